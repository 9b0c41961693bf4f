//! qwen3moe: attention as qwen3's, and experts in every layer.

use super::{Architecture, Config, ExpertGate, Keys, LoadError, Network, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["qwen3moe"], qwen3moe).with_batch(BATCH);

/// Of 128 experts 8 serve a token: of 512 tokens an expert sees 32, too few to be bound by arithmetic.
const BATCH: u32 = 1024;

fn qwen3moe(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    let experts = Network::experts(keys, keys.size("expert_feed_forward_length")?, ExpertGate::SILU)?;
    Ok(Config::usual(keys, experts)?.with(|qwen3| qwen3.head_norms = true))
}
