//! qwen2, also the DeepSeek-R1 distills of it.

use backend_api::operations::Gate;

use super::{Architecture, Layers, Loaded, embedding_and_output};
use crate::{
    error::LoadError,
    graph::{
        Builder, CacheLayout,
        blocks::{Attention, FeedForward},
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
    embedding: Weight,
    layers: Vec<Layer>,
    output_norm: Weight,
    output: Weight,
    rope: Rope,
    epsilon: f32,
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
    let (embedding, output) = embedding_and_output(weights, d)?;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for i in 0..keys.layers()? {
        let block = format!("blk.{i}");
        cache.push(None, heads.kv_heads, heads.head_dim);
        layers.push(Layer {
            attn_norm: weights.vector(&format!("{block}.attn_norm.weight"), &[d])?,
            attention: Attention::load(weights, &block, d, heads, false)?,
            ffn_norm: weights.vector(&format!("{block}.ffn_norm.weight"), &[d])?,
            ffn: FeedForward::load(weights, &block, d, f)?,
        });
    }
    let model = Qwen2 {
        embedding,
        layers,
        output_norm: weights.vector("output_norm.weight", &[d])?,
        output,
        rope: Rope::from_keys(keys, base, heads.head_dim)?,
        epsilon: keys.epsilon("attention.layer_norm_rms_epsilon")?,
    };
    let (vocabulary, context) = (output.dims[1], keys.size("context_length")?);
    Ok(Loaded {
        layers: Box::new(model),
        cache,
        vocabulary,
        context,
    })
}

impl Layers for Qwen2 {
    fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.embedding, 1.0);
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

            let h = g.rms_norm(x, Some(&layer.attn_norm), self.epsilon);
            let a = layer.attention.build(g, h, &self.rope, self.epsilon, &attend, last);
            x = if last { g.wanted(x) } else { x };
            x = g.product_add(a, &layer.attention.output, Some(x));
            let h = g.rms_norm(x, Some(&layer.ffn_norm), self.epsilon);
            let f = layer.ffn.build(g, h, Gate::Silu);
            x = g.product_add(f, &layer.ffn.down, Some(x));
        }
        g.layer(None);
        let h = g.rms_norm(x, Some(&self.output_norm), self.epsilon);
        g.logits(h, &self.output, 0.0);
    }
}
