//! gpt-oss: experts with clamped gates, attention sinks, a window on even layers. Files with separate tensors.
//!
//! The ramp of its YaRN is not rounded to whole dimensions: it was trained so.

use super::{Architecture, Config, ExpertGate, Gate, Keys, LoadError, Network, Rope, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["gpt-oss", "gptoss"], gptoss);

const GATE: ExpertGate = ExpertGate {
    kind: Gate::SwigluOai,
    alpha: 1.702,
    limit: 7.0,
};

fn gptoss(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let heads = keys.heads(None)?;
    let base = keys.rope_base(&["rope.freq_base"], 150_000.0)?;
    let rope = Rope::from_keys_unrounded(keys, base, heads.head_dim)?;
    let experts = Network::experts(keys, keys.size("expert_feed_forward_length")?, GATE)?;
    Ok(Config {
        windows: keys.windows(2, None)?,
        sinks: Some("attn_sinks"),
        network_norm: "post_attention_norm",
        ..Config::new(keys, heads, rope, experts)?
    })
}
