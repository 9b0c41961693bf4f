//! gpt-oss: experts with clamped gates, attention sinks, a window on even layers. Files with separate tensors.

use backend_api::operations::Gate;

use super::{Architecture, Layers, Loaded, embedding_and_output};
use crate::{
    error::LoadError,
    graph::{
        Builder, CacheLayout,
        blocks::Attention,
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
    embedding: Weight,
    layers: Vec<Layer>,
    output_norm: Weight,
    output: Weight,
    rope: Rope,
    epsilon: f32,
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
    let (embedding, output) = embedding_and_output(weights, d)?;

    let mut cache = CacheLayout::default();
    let mut layers = Vec::new();
    for i in 0..keys.layers()? {
        let block = format!("blk.{i}");
        let window = i.is_multiple_of(2).then_some(window);
        cache.push(window, heads.kv_heads, heads.head_dim);
        layers.push(Layer {
            window,
            attn_norm: weights.vector(&format!("{block}.attn_norm.weight"), &[d])?,
            attention: Attention::load(weights, &block, d, heads, false)?,
            sinks: weights.vector(&format!("{block}.attn_sinks.weight"), &[heads.heads])?,
            post_attention_norm: weights.vector(&format!("{block}.post_attention_norm.weight"), &[d])?,
            experts: Experts::load(weights, &block, [d, f, n], used, GATE)?,
        });
    }
    let model = GptOss {
        embedding,
        layers,
        output_norm: weights.vector("output_norm.weight", &[d])?,
        output,
        rope: Rope::from_keys_unrounded(keys, base, heads.head_dim)?,
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

impl Layers for GptOss {
    fn build(&self, g: &mut Builder) {
        let mut x = g.embed(&self.embedding, 1.0);
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
            let h = g.rms_norm(x, Some(&layer.attn_norm), self.epsilon);
            let a = layer.attention.build(g, h, &self.rope, self.epsilon, &attend, last);
            x = if last { g.wanted(x) } else { x };
            x = g.product_add(a, &layer.attention.output, Some(x));
            let h = g.rms_norm(x, Some(&layer.post_attention_norm), self.epsilon);
            x = layer.experts.build(g, h, x);
        }
        g.layer(None);
        let h = g.rms_norm(x, Some(&self.output_norm), self.epsilon);
        g.logits(h, &self.output, 0.0);
    }
}
