//! qwen2, also the DeepSeek-R1 distills of it: the usual decoder, whose queries, keys and values have biases.

use backend_api::operations::Gate;

use super::{Architecture, Config, Keys, LoadError, Weights};
use crate::graph::decoder::Network;

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["qwen2"], qwen2);

fn qwen2(keys: &Keys, _: &Weights) -> Result<Config, LoadError> {
    Ok(Config {
        biased: &["attn_q", "attn_k", "attn_v"],
        ..Config::usual(keys, Network::gated(keys, Gate::Silu)?)?
    })
}
