//! qwen3: each head of queries and of keys is normalized before it is rotated.

use super::{Architecture, Config, Gate, Keys, LoadError, Weights};

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["qwen3"], qwen3);

fn qwen3(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    Ok(Config::gated(keys, Gate::Silu)?.with(|config| config.head_norms = true))
}
