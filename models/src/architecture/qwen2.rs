//! qwen2, also the DeepSeek-R1 distills of it.

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
    names: &["qwen2"],
    load,
};

struct Qwen2 {
    ends: Ends,
    layers: Vec<Layer>,
    rope: Rope,
}

struct Layer {
    attn_norm: Weight,
    attention: Attention,
    ffn_norm: Weight,
    ffn: FeedForward,
}

fn load(keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
    let (d, f) = (keys.size("embedding_length")?, keys.size("feed_forward_length")?);
    let heads = keys.heads(d, None)?;
    let base = keys.rope_base(&["rope.freq_base"], 10_000.0)?;
    let ends = Ends::load(keys, weights, d)?;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for i in 0..keys.layers()? {
        let block = format!("blk.{i}");
        cache.push(None, heads.kv_heads, heads.head_dim);
        layers.push(Layer {
            attn_norm: weights.vector(format!("{block}.attn_norm.weight"), &[d])?,
            attention: Attention::load(weights, &block, d, heads, false)?,
            ffn_norm: weights.vector(format!("{block}.ffn_norm.weight"), &[d])?,
            ffn: FeedForward::load(weights, &block, d, f)?,
        });
    }
    let model = Qwen2 {
        ends,
        layers,
        rope: Rope::from_keys(keys, base, heads.head_dim)?,
    };
    Loaded::new(keys, cache, model)
}

impl Layers for Qwen2 {
    fn ends(&self) -> &Ends {
        &self.ends
    }

    fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.ends.embedding, 1.0);
        for (i, layer) in self.layers.iter().enumerate() {
            g.layer(Some(i));
            let last = i + 1 == self.layers.len();
            let scale = 1.0 / (layer.attention.heads.head_dim as f32).sqrt();
            let attend = Attend {
                layer: i,
                scale,
                softcap: 0.0,
                window: None,
                sinks: None,
            };

            let h = g.rms_norm(x, Some(&layer.attn_norm), self.ends.epsilon);
            let a = layer
                .attention
                .build(g, h, &self.rope, self.ends.epsilon, &attend, last);
            x = if last { g.wanted(x) } else { x };
            x = g.product_add(a, &layer.attention.output, Some(x));
            let h = g.rms_norm(x, Some(&layer.ffn_norm), self.ends.epsilon);
            let f = layer.ffn.build(g, h, Gate::Silu);
            x = g.product_add(f, &layer.ffn.down, Some(x));
        }
        self.ends.logits(g, x, 0.0);
    }
}
