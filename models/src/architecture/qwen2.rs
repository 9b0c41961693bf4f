//! qwen2, also the DeepSeek-R1 distills of it: queries, keys and values have biases.

use super::{Architecture, Config, Gate, Keys, LoadError, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["qwen2"], qwen2);

fn qwen2(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    Ok(Config::gated(keys, Gate::Silu)?.with(|config| config.biased = &["attn_q", "attn_k", "attn_v"]))
}
