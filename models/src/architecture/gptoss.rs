//! gpt-oss: experts with clamped gates, attention sinks, a window on even layers, biases everywhere. Ollama's older files
//! have other names for some tensors and hold several in one.
//!
//! The ramp of its YaRN is not rounded to whole dimensions: it was trained so. Ollama's files do not say that it is YaRN.

use super::{Architecture, Config, ExpertGate, Gate, Keys, LoadError, Network, Rope, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["gpt-oss", "gptoss"], gptoss);

const GATE: ExpertGate = ExpertGate {
    kind: Gate::SwigluOai,
    alpha: 1.702,
    limit: 7.0,
};

const BIASED: [&str; 8] = [
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_gate_inp",
    "ffn_gate_exps",
    "ffn_up_exps",
    "ffn_down_exps",
];

fn gptoss(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let heads = keys.heads(None)?;
    let base = keys.rope_base(&["rope.freq_base"], 150_000.0)?;
    let rope = Rope::yarn_unrounded(keys, base, heads.head_dim)?;
    let hidden = keys.any_size(["expert_feed_forward_length", "feed_forward_length"])?;
    let experts = Network::experts(keys, hidden, GATE)?.in_turn();
    Ok(Config {
        windows: keys.windows(2, None)?,
        sinks: &["attn_sinks.weight", "attn_sinks"],
        network_norm: &["post_attention_norm", "ffn_norm"],
        biased: &BIASED,
        ..Config::new(keys, heads, rope, experts)?
    })
}
