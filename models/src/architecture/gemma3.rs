//! gemma3: norms before and after each block, windowed layers with a global one now and then.

use backend_api::operations::Gate;

use super::{Architecture, Layers, Loaded};
use crate::{
    error::LoadError,
    graph::{
        Builder, CacheLayout,
        blocks::{Attention, Ends, FeedForward},
        builder::Attend,
        rope::Rope,
    },
    keys::Keys,
    weights::{Weight, Weights},
};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    names: &["gemma3"],
    load,
};

/// Layer i is global when i + 1 is a multiple of this, where the file does not say.
const GLOBAL_PERIOD: u32 = 6;
/// Files with so many layers (4B, 12B, 27B) and no scaling key mean a linear factor of 8 on global layers.
const SCALED_DEPTHS: [u32; 3] = [34, 48, 62];
/// The 27B model scales scores by the embedding's share of a head.
const DEPTH_OF_27B: u32 = 62;

struct Gemma3 {
    ends: Ends,
    layers: Vec<Layer>,
    local: Rope,
    global: Rope,
    scale: f32,
    softcap: f32,
}

struct Layer {
    window: Option<u32>,
    attn_norm: Weight,
    attention: Attention,
    post_attention_norm: Weight,
    ffn_norm: Weight,
    ffn: FeedForward,
    post_ffw_norm: Weight,
}

fn load(keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
    let (d, f) = (keys.size("embedding_length")?, keys.size("feed_forward_length")?);
    let heads = keys.heads(d, Some(256))?;
    let head_dim = heads.head_dim;
    if keys.opt_size("attention.value_length")?.is_some_and(|v| v != head_dim) {
        return Err(keys
            .unexpected("attention.value_length", "the same as attention.key_length")
            .into());
    }
    let depth = keys.layers()?;
    let window = keys.size("attention.sliding_window")?;
    let ends = Ends::load(keys, weights, d)?;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for (i, windowed) in keys.windowed_layers(depth, GLOBAL_PERIOD)?.into_iter().enumerate() {
        let block = format!("blk.{i}");
        let norm = |name: &str| weights.vector(format!("{block}.{name}.weight"), &[d]);
        let window = windowed.then_some(window);
        cache.push(window, heads.kv_heads, head_dim);
        layers.push(Layer {
            window,
            attn_norm: norm("attn_norm")?,
            attention: Attention::load(weights, &block, d, heads, true)?,
            post_attention_norm: norm("post_attention_norm")?,
            ffn_norm: norm("ffn_norm")?,
            ffn: FeedForward::load(weights, &block, d, f)?,
            post_ffw_norm: norm("post_ffw_norm")?,
        });
    }
    let (local, global) = ropes(keys, depth, head_dim)?;
    let of_score = if depth == DEPTH_OF_27B {
        d / heads.heads
    } else {
        head_dim
    };
    let model = Gemma3 {
        ends,
        layers,
        local,
        global,
        scale: 1.0 / (of_score as f32).sqrt(),
        softcap: keys.softcap("final_logit_softcapping")?,
    };
    Loaded::new(keys, cache, model)
}

/// The rotations of local and of global layers; scaling applies to the global ones alone.
fn ropes(keys: &Keys, depth: u32, head_dim: u32) -> Result<(Rope, Rope), LoadError> {
    let local = keys.rope_base(&["rope.freq_base_swa", "rope.local.freq_base"], 10_000.0)?;
    let global = keys.rope_base(&["rope.freq_base", "rope.global.freq_base"], 1_000_000.0)?;
    let unsaid = keys.opt_string("rope.scaling.type")?.is_none() && keys.opt_f32("rope.scaling.factor")?.is_none();
    let global = if unsaid && SCALED_DEPTHS.contains(&depth) {
        Rope::linear(global, head_dim, 8.0)
    } else {
        Rope::from_keys(keys, global, head_dim)?
    };
    Ok((Rope::linear(local, head_dim, 1.0), global))
}

impl Layers for Gemma3 {
    fn ends(&self) -> &Ends {
        &self.ends
    }

    fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.ends.embedding, (self.ends.embedding.dims[0] as f32).sqrt());
        for (i, layer) in self.layers.iter().enumerate() {
            g.layer(Some(i));
            let last = i + 1 == self.layers.len();
            let rope = if layer.window.is_some() {
                &self.local
            } else {
                &self.global
            };
            let attend = Attend {
                layer: i,
                scale: self.scale,
                softcap: 0.0,
                window: layer.window,
                sinks: None,
            };

            let h = g.rms_norm(x, Some(&layer.attn_norm), self.ends.epsilon);
            let a = layer.attention.build(g, h, rope, self.ends.epsilon, &attend, last);
            let a = g.linear(a, &layer.attention.output);
            x = if last { g.wanted(x) } else { x };
            x = g.norm_add(a, &layer.post_attention_norm, x, self.ends.epsilon);
            let h = g.rms_norm(x, Some(&layer.ffn_norm), self.ends.epsilon);
            let f = layer.ffn.build(g, h, Gate::GeluTanh);
            let f = g.linear(f, &layer.ffn.down);
            x = g.norm_add(f, &layer.post_ffw_norm, x, self.ends.epsilon);
        }
        self.ends.logits(g, x, self.softcap);
    }
}
