//! gpt-oss: experts with clamped gates, attention sinks, a window on even layers. Files with separate tensors.

use backend_api::operations::Gate;

use super::{Architecture, Layers, Loaded};
use crate::{
    error::LoadError,
    graph::{
        Builder, CacheLayout,
        blocks::{Attention, Ends},
        builder::Attend,
        experts::{ExpertGate, Experts},
        rope::Rope,
    },
    keys::Keys,
    weights::{Weight, Weights},
};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    names: &["gpt-oss", "gptoss"],
    load,
};

const GATE: ExpertGate = ExpertGate {
    kind: Gate::SwigluOai,
    alpha: 1.702,
    limit: 7.0,
};

struct GptOss {
    ends: Ends,
    layers: Vec<Layer>,
    rope: Rope,
}

struct Layer {
    window: Option<u32>,
    attn_norm: Weight,
    attention: Attention,
    sinks: Weight,
    post_attention_norm: Weight,
    experts: Experts,
}

fn load(keys: &Keys, weights: &Weights) -> Result<Loaded, LoadError> {
    let (d, f) = (keys.size("embedding_length")?, keys.size("expert_feed_forward_length")?);
    let (n, used) = keys.experts()?;
    let heads = keys.heads(d, None)?;
    let window = keys.size("attention.sliding_window")?;
    let base = keys.rope_base(&["rope.freq_base"], 150_000.0)?;
    let ends = Ends::load(keys, weights, d)?;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for i in 0..keys.layers()? {
        let block = format!("blk.{i}");
        let window = i.is_multiple_of(2).then_some(window);
        cache.push(window, heads.kv_heads, heads.head_dim);
        layers.push(Layer {
            window,
            attn_norm: weights.vector(format!("{block}.attn_norm.weight"), &[d])?,
            attention: Attention::load(weights, &block, d, heads, false)?,
            sinks: weights.vector(format!("{block}.attn_sinks.weight"), &[heads.heads])?,
            post_attention_norm: weights.vector(format!("{block}.post_attention_norm.weight"), &[d])?,
            experts: Experts::load(weights, &block, [d, f, n], used, GATE)?,
        });
    }
    let model = GptOss {
        ends,
        layers,
        rope: Rope::from_keys_unrounded(keys, base, heads.head_dim)?,
    };
    Loaded::new(keys, cache, model)
}

impl Layers for GptOss {
    fn ends(&self) -> &Ends {
        &self.ends
    }

    fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.ends.embedding, 1.0);
        for (i, layer) in self.layers.iter().enumerate() {
            g.layer(Some(i));
            let last = i + 1 == self.layers.len();
            let attend = Attend {
                layer: i,
                scale: 1.0 / (layer.attention.heads.head_dim as f32).sqrt(),
                softcap: 0.0,
                window: layer.window,
                sinks: Some(g.weight(&layer.sinks)),
            };
            let h = g.rms_norm(x, Some(&layer.attn_norm), self.ends.epsilon);
            let a = layer
                .attention
                .build(g, h, &self.rope, self.ends.epsilon, &attend, last);
            x = if last { g.wanted(x) } else { x };
            x = g.product_add(a, &layer.attention.output, Some(x));
            let h = g.rms_norm(x, Some(&layer.post_attention_norm), self.ends.epsilon);
            x = layer.experts.build(g, h, x);
        }
        self.ends.logits(g, x, 0.0);
    }
}
