//! qwen3moe: attention as qwen3's, and experts in every layer.

use super::{Architecture, Config, ExpertGate, Keys, LoadError, Network, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["qwen3moe"], qwen3moe);

fn qwen3moe(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let experts = Network::experts(keys, keys.size("expert_feed_forward_length")?, ExpertGate::SILU)?;
    Ok(Config::usual(keys, experts)?.with(|qwen3| qwen3.head_norms = true))
}
