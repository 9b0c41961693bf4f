//! llama, also Mistral, Mixtral and many others: files hold rows of queries and keys permuted, so that neighbours are
//! rotated together; `rope_freqs`, where it stands, divides the frequencies (Llama 3.1); a file may have experts.

use super::{Architecture, Config, ExpertGate, Gate, Keys, LoadError, Network, Rope, Weights};
use crate::graph::rope::Rotated;

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["llama"], llama);

/// Files of 2023 have a tensor for each expert.
const SEPARATE_EXPERT: &str = "blk.0.ffn_gate.0.weight";
const ROUTER: &str = "blk.0.ffn_gate_inp.weight";

/// The description of a llama, which mistral3 is a variant of.
pub(super) fn llama(keys: &Keys, weights: &Weights) -> Result<Config, LoadError> {
    let heads = keys.heads(None)?;
    let dims = keys.rotated_dims(heads.head_dim)?;
    let factors = match weights.has("rope_freqs.weight") {
        true => Some(weights.factors("rope_freqs.weight", dims / 2)?),
        false => None,
    };
    let rotated = Rotated {
        base: keys.rope_base(&["rope.freq_base"], 10_000.0)?,
        dims,
        factors: factors.as_deref(),
    };
    let rope = Rope::scaled(keys, &rotated, true)?.in_pairs();
    Config::new(keys, heads, rope, network(keys, weights)?)
}

fn network(keys: &Keys, weights: &Weights) -> Result<Network, LoadError> {
    if keys.number_or_zero("expert_count")? == 0 && !weights.has(ROUTER) {
        Network::gated(keys, Gate::Silu)
    } else if weights.has(SEPARATE_EXPERT) {
        Err(weights.separate_experts(SEPARATE_EXPERT))
    } else {
        Network::experts(keys, keys.size("feed_forward_length")?, ExpertGate::SILU)
    }
}
