//! gemma3n: several streams a token that are predicted and corrected (AltUp), low-rank residuals (laurel), inputs of
//! each layer's own, sparse gates, and layers that share the caches of earlier ones.

use backend_api::operations::{Gate, Precision, UnaryKind};

use super::{Architecture, Layers, Loaded};
use crate::{
    error::LoadError,
    graph::{Builder, CacheLayout, Id, Part, blocks::Ends, builder::Attend, rope::Rope, streams::Mixing},
    keys::{Heads, Keys},
    weights::{Linear, Weight, Weights},
};

pub(super) const ARCHITECTURE: Architecture = Architecture::own(&["gemma3n"], load);

/// Layer i is global when i + 1 is a multiple of this, where the file does not say.
const GLOBAL_PERIOD: u32 = 5;
/// Least mean square of a stream that is rescaled.
const FLOOR: f32 = 1e-5;
const SOFTCAP: f32 = 30.0;

struct Gemma3n {
    ends: Ends,
    layers: Vec<Layer>,
    local: Rope,
    global: Rope,
    softcap: f32,
    heads: Heads,
    /// n: streams a token.
    streams: u32,
    /// a: the stream that layers work on.
    active: u32,
    /// `[d, d, n − 1]`: into the streams, and out of them.
    altup_proj: Weight,
    altup_unembd_proj: Weight,
    /// `[P·L, V′]`: each layer's own embeddings; tokens from V′ on take those of token 0.
    per_layer_token_embd: Weight,
    per_layer_model_proj: Weight,
    per_layer_proj_norm: Weight,
}

struct Layer {
    window: Option<u32>,
    /// The layer whose cache it reads.
    cache: usize,
    attn_norm: Weight,
    q: Linear,
    q_norm: Weight,
    /// What fills its own cache, where it has one.
    kv: Option<KeysAndValues>,
    attn_output: Linear,
    post_attention_norm: Weight,
    laurel_l: Weight,
    laurel_r: Weight,
    laurel_post_norm: Weight,
    ffn_norm: Weight,
    gate: Linear,
    up: Linear,
    down: Linear,
    post_ffw_norm: Weight,
    /// s of the gate's threshold μ + s·σ.
    sparsity: Option<f32>,
    altup_router_norm: Weight,
    altup_router: Weight,
    altup_predict_coef: Weight,
    altup_correct_coef: Weight,
    altup_correct_scale: Weight,
    inp_gate: Weight,
    proj: Weight,
    post_norm: Weight,
}

struct KeysAndValues {
    k: Linear,
    v: Linear,
    k_norm: Weight,
}

/// Sizes that all layers share.
struct Sizes {
    d: u32,
    heads: Heads,
    streams: u32,
    per_layer: u32,
}

fn load(keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
    let d = keys.size("embedding_length")?;
    let heads = keys.heads(Some(256))?;
    let (streams, active) = streams(keys)?;
    let per_layer = keys.size("embedding_length_per_layer_input")?;
    let depth = keys.layers()?;
    let sizes = Sizes {
        d,
        heads,
        streams,
        per_layer,
    };
    let ends = Ends::load(keys, weights, d)?;
    let (layers, cache) = layers(keys, weights, &sizes, depth)?;

    let own = keys.product("embedding_length_per_layer_input", per_layer, depth)?;
    let own_rows = weights.rows("per_layer_token_embd.weight")?;
    let stack = |name: &str| weights.matrix(name, &[d, d, streams - 1]);
    let model = Gemma3n {
        ends,
        layers,
        local: Rope::linear(
            keys.rope_base(&["rope.freq_base_swa", "rope.local.freq_base"], 10_000.0)?,
            heads.head_dim,
            1.0,
        ),
        global: Rope::from_keys(
            keys,
            keys.rope_base(&["rope.freq_base", "rope.global.freq_base"], 1e6)?,
            heads.head_dim,
        )?,
        softcap: keys.softcap_or("final_logit_softcapping", SOFTCAP)?,
        heads,
        streams,
        active,
        altup_proj: stack("altup_proj.weight")?,
        altup_unembd_proj: stack("altup_unembd_proj.weight")?,
        per_layer_token_embd: weights.matrix("per_layer_token_embd.weight", &[own, own_rows])?,
        per_layer_model_proj: weights.matrix("per_layer_model_proj.weight", &[d, own])?,
        per_layer_proj_norm: weights.vector("per_layer_proj_norm.weight", &[per_layer])?,
    };
    Loaded::new(keys, cache, model)
}

/// n and a: backends combine up to 8 streams.
fn streams(keys: &Keys) -> Result<(u32, u32), LoadError> {
    let n = keys.size("altup.num_inputs")?;
    let active = keys.number("altup.active_idx")?;
    if !(2..=8).contains(&n) {
        return Err(keys.unexpected("altup.num_inputs", "2 to 8 streams").into());
    }
    if active >= n {
        return Err(keys
            .unexpected("altup.active_idx", "a stream below altup.num_inputs")
            .into());
    }
    Ok((n, active))
}

fn layers(keys: &Keys, weights: &Weights, sizes: &Sizes, depth: u32) -> Result<(Vec<Layer>, CacheLayout), LoadError> {
    let window = keys.size("attention.sliding_window")?;
    let windowed = keys.windowed_layers(depth, GLOBAL_PERIOD)?;
    let hidden = keys.sizes("feed_forward_length", depth)?;
    let sparsity = keys.per_layer_f32("activation_sparsity_scale", depth)?;
    let own = depth.saturating_sub(keys.number("attention.shared_kv_layers")?) as usize;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for i in 0..depth as usize {
        let window = windowed[i].then_some(window);
        let owner = match i < own {
            true => {
                cache.push(window, sizes.heads.kv_heads, sizes.heads.head_dim);
                Some(i)
            }
            false => {
                cache.layers.push(None);
                (0..own).rev().find(|&earlier| windowed[earlier] == windowed[i])
            }
        };
        let unshared = "so few that an earlier layer of each kind keeps a cache";
        let owner = owner.ok_or_else(|| keys.unexpected("attention.shared_kv_layers", unshared))?;
        let sparsity = Some(sparsity[i]).filter(|&s| s > 0.0);
        layers.push(Layer::load(weights, i, sizes, hidden[i], window, owner, sparsity)?);
    }
    Ok((layers, cache))
}

impl Layer {
    fn load(
        weights: &Weights,
        i: usize,
        &Sizes {
            d,
            heads,
            streams: n,
            per_layer: p,
        }: &Sizes,
        f: u32,
        window: Option<u32>,
        cache: usize,
        sparsity: Option<f32>,
    ) -> Result<Layer, LoadError> {
        let Heads {
            heads: count,
            kv_heads,
            head_dim: hd,
        } = heads;
        let name = |name: &str| format!("blk.{i}.{name}");
        let matrix = |tensor: &str, dims: &[u32]| weights.matrix(name(&format!("{tensor}.weight")), dims);
        let vector = |tensor: &str, len: u32| weights.vector(name(&format!("{tensor}.weight")), &[len]);
        let block = weights.block(i as u32, &[]);
        let linear = |tensor: &str, k, m| block.linear(tensor, k, m);
        let rank = weights.rows(&name("laurel_l.weight"))?;
        let kv = match cache == i {
            true => Some(KeysAndValues {
                k: linear("attn_k", d, kv_heads * hd)?,
                v: linear("attn_v", d, kv_heads * hd)?,
                k_norm: vector("attn_k_norm", hd)?,
            }),
            false => None,
        };
        Ok(Layer {
            window,
            cache,
            attn_norm: vector("attn_norm", d)?,
            q: linear("attn_q", d, count * hd)?,
            q_norm: vector("attn_q_norm", hd)?,
            kv,
            attn_output: linear("attn_output", count * hd, d)?,
            post_attention_norm: vector("post_attention_norm", d)?,
            laurel_l: matrix("laurel_l", &[d, rank])?,
            laurel_r: matrix("laurel_r", &[rank, d])?,
            laurel_post_norm: vector("laurel_post_norm", d)?,
            ffn_norm: vector("ffn_norm", d)?,
            gate: linear("ffn_gate", d, f)?,
            up: linear("ffn_up", d, f)?,
            down: linear("ffn_down", f, d)?,
            post_ffw_norm: vector("post_ffw_norm", d)?,
            sparsity,
            altup_router_norm: vector("altup_router_norm", d)?,
            altup_router: matrix("altup_router", &[d, n])?,
            altup_predict_coef: matrix("altup_predict_coef", &[n, n * n])?,
            altup_correct_coef: matrix("altup_correct_coef", &[n, n])?,
            altup_correct_scale: vector("altup_correct_scale", d)?,
            inp_gate: matrix("inp_gate", &[d, p])?,
            proj: matrix("proj", &[p, d])?,
            post_norm: vector("post_norm", d)?,
        })
    }

    fn mixing<'a>(&'a self, coefficients: &'a Weight) -> Mixing<'a> {
        Mixing {
            norm: &self.altup_router_norm,
            router: &self.altup_router,
            coefficients,
        }
    }
}

impl Layers for Gemma3n {
    fn ends(&self) -> &Ends {
        &self.ends
    }

    fn build(&self, g: &mut Builder) {
        let mut h = self.begin(g);
        let mut own = self.per_layer_inputs(g, h);
        for (i, layer) in self.layers.iter().enumerate() {
            g.layer(Some(i));
            h = self.layer(g, i, layer, h, &mut own);
        }
        g.layer(None);
        let y = self.collapse(g, h);
        self.ends.logits(g, y, self.softcap);
    }
}

impl Gemma3n {
    fn d(&self) -> f32 {
        self.ends.embedding.dims[0] as f32
    }

    /// Stream 0 is the embedding·√d, stream k altup_proj_k of it, rescaled to its size: `[d, n, T]`.
    fn begin(&self, g: &mut Builder) -> Id {
        let h = g.token_streams(self.ends.embedding.dims[0], self.streams);
        let x = g.stream(h, 0);
        g.embed_into(&self.ends.embedding, self.d().sqrt(), x);
        for k in 1..self.streams {
            let y = g.stream(h, k);
            g.stacked_product_into(x, &self.altup_proj, k - 1, y);
        }
        let (first, others) = (g.streams(h, 0, 1), g.streams(h, 1, self.streams - 1));
        g.rms_match(others, first, FLOOR);
        h
    }

    /// (rms(Wplm·x / √d)·per_layer_proj_norm + per_layer_embed(tokens)·√P) / √2: `[P, L, T]`.
    fn per_layer_inputs(&self, g: &mut Builder, h: Id) -> Id {
        let (p, depth) = (self.per_layer_proj_norm.dims[0], self.layers.len() as u32);
        let x = g.stream(h, 0);
        let projected = g.product(x, &self.per_layer_model_proj, Precision::OfType);
        let projected = g.heads(projected, 0, p, depth);
        // 1/√d before the norm is d times its ε
        let normed = g.rms_norm(projected, Some(&self.per_layer_proj_norm), self.ends.epsilon * self.d());
        let embedded = g.embed(&self.per_layer_token_embd, (p as f32).sqrt());
        let embedded = g.heads(embedded, 0, p, depth);
        g.add(normed, embedded, 0.5f32.sqrt(), 1.0)
    }

    /// One layer: predict all streams, work on the active one, correct all.
    fn layer(&self, g: &mut Builder, i: usize, layer: &Layer, h: Id, own: &mut Id) -> Id {
        let last = i + 1 == self.layers.len();
        let mut pred = self.predict(g, layer, h);
        let mut active = g.stream(pred, self.active);
        let mut normed = g.rms_norm(active, Some(&layer.attn_norm), self.ends.epsilon);
        self.store(g, i, layer, normed);
        if last {
            (pred, normed, *own) = (g.wanted_streams(pred), g.wanted(normed), g.wanted_streams(*own));
            active = g.stream(pred, self.active);
        }
        let z = self.attend(g, layer, active, normed);
        let result = self.feed_forward(g, layer, z);
        let h = self.correct(g, layer, pred, active, result);
        self.add_own_input(g, layer, i, h, *own);
        h
    }

    /// pred_j = h_j + Σ_i C_ij·h_i.
    fn predict(&self, g: &mut Builder, layer: &Layer, h: Id) -> Id {
        let active = g.stream(h, self.active);
        let mixing = layer.mixing(&layer.altup_predict_coef);
        let c = g.mix_coefficients(active, &mixing, self.ends.epsilon, 1.0 / self.d(), self.streams);
        let pred = g.another(h);
        g.combine(h, Some(c), h, 0.0, pred)
    }

    fn rope(&self, layer: &Layer) -> &Rope {
        if layer.window.is_some() {
            &self.local
        } else {
            &self.global
        }
    }

    /// Keys and values of all columns to the layer's own cache, if it has one.
    fn store(&self, g: &mut Builder, i: usize, layer: &Layer, normed: Id) {
        let Some(kv) = &layer.kv else { return };
        let Heads { kv_heads, head_dim, .. } = self.heads;
        let both = g.products(normed, &[&kv.k, &kv.v]);
        let (k, v) = (
            g.heads(both, 0, head_dim, kv_heads),
            g.heads(both, kv_heads * head_dim, head_dim, kv_heads),
        );
        let k = g.norm_rope(k, &kv.k_norm, self.ends.epsilon, self.rope(layer));
        let v = g.rms_norm(v, None, self.ends.epsilon);
        g.cache_store(i, Part::Keys, k);
        g.cache_store(i, Part::Values, v);
    }

    /// (active + rms(attention)·post_attention_norm + laurel) / √2.
    fn attend(&self, g: &mut Builder, layer: &Layer, active: Id, normed: Id) -> Id {
        let Heads { heads, head_dim, .. } = self.heads;
        let low = g.product(normed, &layer.laurel_l, Precision::OfType);
        let low = g.product(low, &layer.laurel_r, Precision::OfType);
        let laurel = g.norm_add_onto(low, &layer.laurel_post_norm, normed, self.ends.epsilon);

        let q = g.linear(normed, &layer.q);
        let q = g.heads(q, 0, head_dim, heads);
        let q = g.norm_rope(q, &layer.q_norm, self.ends.epsilon, self.rope(layer));
        let attend = Attend {
            layer: layer.cache,
            scale: 1.0,
            softcap: 0.0,
            window: layer.window,
            temperature: None,
            sinks: None,
        };
        let a = g.attention(q, &attend);
        let a = g.flat(a);
        let a = g.linear(a, &layer.attn_output);
        let z = g.norm_add_onto(a, &layer.post_attention_norm, active, self.ends.epsilon);
        g.add(z, laurel, 0.5f32.sqrt(), 1.0)
    }

    /// z + rms(down(gelu(gate) ⊙ up))·post_ffw_norm, the gate sparse where the layer says so; in z's place.
    fn feed_forward(&self, g: &mut Builder, layer: &Layer, z: Id) -> Id {
        let h = g.rms_norm(z, Some(&layer.ffn_norm), self.ends.epsilon);
        let f = layer.gate.weight.dims[1];
        let hidden = match layer.sparsity {
            None => g.gated_product(h, &layer.gate, &layer.up, Gate::GeluTanh),
            Some(s) => {
                let both = g.products(h, &[&layer.gate, &layer.up]);
                let (gate, up) = (g.part(both, 0, f), g.part(both, f, f));
                let gate = g.sparsify(gate, s);
                g.gated(gate, up, Gate::GeluTanh)
            }
        };
        let out = g.linear(hidden, &layer.down);
        g.norm_add(out, &layer.post_ffw_norm, z, self.ends.epsilon)
    }

    /// new_j = pred_j + (result − active)·(C_j + 1), in the predictions' place.
    fn correct(&self, g: &mut Builder, layer: &Layer, pred: Id, active: Id, result: Id) -> Id {
        let mixing = layer.mixing(&layer.altup_correct_coef);
        let c = g.mix_coefficients(result, &mixing, self.ends.epsilon, 1.0 / self.d(), 1);
        let innovation = g.difference(result, active);
        let innovation = g.as_one_row(innovation);
        g.combine(innovation, Some(c), pred, 1.0, pred)
    }

    /// Adds the layer's own input, gated by the active stream, to the others but the first.
    fn add_own_input(&self, g: &mut Builder, layer: &Layer, i: usize, h: Id, own: Id) {
        let active = g.stream(h, self.active);
        let y = g.scaled(active, &layer.altup_correct_scale);
        let y = g.product(y, &layer.inp_gate, Precision::OfType);
        let own = g.stream(own, i as u32);
        let y = g.gated(y, own, Gate::GeluTanh);
        let y = g.product(y, &layer.proj, Precision::OfType);
        let (y, others) = (g.as_one_row(y), g.streams(h, 1, self.streams - 1));
        g.norm_add(y, &layer.post_norm, others, self.ends.epsilon);
    }

    /// The mean of stream 0 and the others through altup_unembd_proj, rescaled to its size: `[d, R]`.
    fn collapse(&self, g: &mut Builder, h: Id) -> Id {
        let first = g.streams(h, 0, 1);
        let x = g.stream(h, 1);
        let others = g.new_streams(x, self.streams - 1);
        for k in 1..self.streams {
            let (x, y) = (g.stream(h, k), g.stream(others, k - 1));
            g.stacked_product_into(x, &self.altup_unembd_proj, k - 1, y);
        }
        g.rms_match(others, first, FLOOR);
        let sum = g.new_streams(x, 1);
        let sum = g.combine(others, None, first, 1.0, sum);
        let sum = g.stream(sum, 0);
        g.unary(sum, UnaryKind::Identity, 1.0, 1.0 / self.streams as f32)
    }
}
