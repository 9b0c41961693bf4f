//! gemma3n: several streams a token that are predicted and corrected (AltUp), low-rank residuals (laurel), inputs of
//! each layer's own, sparse gates, and layers that share the caches of earlier ones.

use super::{Architecture, Gate, Keys, Layers, LoadError, Loaded, Rope, Weights, gemma3::rope_bases};
use crate::{
    graph::{
        Builder, Id,
        altup::{AltUp, Streams},
        blocks::{Ends, FeedForward},
        borrowed::{BorrowingAttention, Owners},
        builder::Attend,
        laurel::Laurel,
        own_inputs::{OwnInput, OwnInputs},
    },
    weights::Weight,
};

pub(super) const ARCHITECTURE: Architecture = Architecture::own(&["gemma3n"], load);

/// Layer i is global when i + 1 is a multiple of this, where the file does not say.
const GLOBAL_PERIOD: u32 = 5;
const SOFTCAP: f32 = 30.0;

struct Gemma3n {
    ends: Ends,
    streams: Streams,
    own_inputs: OwnInputs,
    layers: Vec<Layer>,
    local: Rope,
    global: Rope,
    softcap: f32,
}

struct Layer {
    window: Option<u32>,
    /// The layer whose cache it reads.
    cache: usize,
    altup: AltUp,
    attn_norm: Weight,
    attention: BorrowingAttention,
    post_attention_norm: Weight,
    laurel: Laurel,
    ffn_norm: Weight,
    ffn: FeedForward,
    /// s of the gate's threshold μ + s·σ.
    sparsity: Option<f32>,
    post_ffw_norm: Weight,
    own_input: OwnInput,
}

fn load(keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
    let d = keys.size("embedding_length")?;
    let heads = keys.heads(Some(256))?;
    let windows = keys.windows(GLOBAL_PERIOD, None)?;
    let owners = Owners::load(keys, &windows)?;
    let depth = keys.layers()?;
    let hidden = keys.sizes("feed_forward_length", depth)?;
    let sparsity = keys.per_layer_f32("activation_sparsity_scale", depth)?;
    let (local, global) = rope_bases(keys)?;

    let ends = Ends::load(keys, weights, d, None)?;
    let streams = Streams::load(keys, weights, d)?;
    let own_inputs = OwnInputs::load(keys, weights, d)?;
    let mut layers = Vec::new();
    for (i, window) in windows.iter().enumerate() {
        let block = weights.block(i as u32, &[]);
        layers.push(Layer {
            window: *window,
            cache: owners.of(i),
            attention: BorrowingAttention::load(&block, d, heads, owners.of(i) == i)?,
            ffn: FeedForward::load(&block, d, hidden[i])?,
            sparsity: Some(sparsity[i]).filter(|&s| s > 0.0),
            own_input: OwnInput::load(&block, d, own_inputs.width)?,
            altup: AltUp::load(&block, &streams)?,
            laurel: Laurel::load(&block, d)?,
            attn_norm: block.vector("attn_norm", d)?,
            post_attention_norm: block.vector("post_attention_norm", d)?,
            ffn_norm: block.vector("ffn_norm", d)?,
            post_ffw_norm: block.vector("post_ffw_norm", d)?,
        });
    }
    let model = Gemma3n {
        ends,
        streams,
        own_inputs,
        layers,
        local: Rope::linear(local, heads.head_dim, 1.0),
        global: Rope::from_keys(keys, global, heads.head_dim)?,
        softcap: keys.softcap_or("final_logit_softcapping", SOFTCAP)?,
    };
    Loaded::new(keys, owners.cache(&windows, heads), model)
}

impl Layers for Gemma3n {
    fn ends(&self) -> &Ends {
        &self.ends
    }

    fn build(&self, g: &mut Builder) {
        let mut h = self.streams.begin(g, &self.ends);
        let x = g.stream(h, 0);
        let mut own = self.own_inputs.build(g, x, self.ends.epsilon);
        for i in 0..self.layers.len() {
            g.layer(Some(i));
            h = self.layer(g, i, h, &mut own);
        }
        g.layer(None);
        let y = self.streams.end(g, h);
        self.ends.logits(g, y, self.softcap);
    }
}

impl Gemma3n {
    /// Layer i of streams h `[d, n, T]` and inputs `own` `[P, L, T]`; the last goes on with the wanted columns alone.
    fn layer(&self, g: &mut Builder, i: usize, h: Id, own: &mut Id) -> Id {
        let (layer, epsilon) = (&self.layers[i], self.ends.epsilon);
        let rope = match layer.window {
            Some(_) => &self.local,
            None => &self.global,
        };
        let mut pred = layer.altup.predict(g, h, epsilon);
        let mut active = g.stream(pred, self.streams.active);
        let mut normed = g.rms_norm(active, Some(&layer.attn_norm), epsilon);
        layer.attention.store(g, i, normed, rope, epsilon);
        if i + 1 == self.layers.len() {
            (pred, normed, *own) = (g.wanted_streams(pred), g.wanted(normed), g.wanted_streams(*own));
            active = g.stream(pred, self.streams.active);
        }
        let r = layer.attend(g, active, normed, rope, epsilon);
        let result = layer.feed_forward(g, r, epsilon);
        let h = layer.altup.correct(g, pred, result, epsilon);

        let (active, own) = (g.stream(h, self.streams.active), g.stream(*own, i as u32));
        let others = g.streams(h, 1, self.streams.count - 1);
        layer.own_input.add(g, active, own, others, epsilon);
        h
    }
}

impl Layer {
    /// (active + rms(attention)·post_attention_norm + laurel) / √2.
    fn attend(&self, g: &mut Builder, active: Id, normed: Id, rope: &Rope, epsilon: f32) -> Id {
        let attend = Attend {
            layer: self.cache,
            scale: 1.0,
            softcap: 0.0,
            window: self.window,
            temperature: None,
            sinks: None,
        };
        let laurel = self.laurel.build(g, normed, epsilon);
        let a = self.attention.build(g, normed, rope, epsilon, &attend);
        let r = g.norm_add_onto(a, &self.post_attention_norm, active, epsilon);
        g.add(r, laurel, 0.5f32.sqrt(), 1.0)
    }

    /// r + rms(down(gelu(gate) ⊙ up))·post_ffw_norm, the gate sparse where the layer says so; in r's place.
    fn feed_forward(&self, g: &mut Builder, r: Id, epsilon: f32) -> Id {
        let h = g.rms_norm(r, Some(&self.ffn_norm), epsilon);
        let f = match self.sparsity {
            None => self.ffn.build(g, h, Gate::GeluTanh),
            Some(s) => self.ffn.build_sparse(g, h, Gate::GeluTanh, s),
        };
        let f = g.linear(f, &self.ffn.down);
        g.norm_add(f, &self.post_ffw_norm, r, epsilon)
    }
}
