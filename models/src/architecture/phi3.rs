//! phi3, also Phi-3.5, Phi-4 and its small variants: part of each head is rotated, all layers have a window where the file
//! asks for one, and frequencies are divided by factors that depend on the context (LongRoPE, Ding et al., 2024).

use super::{Architecture, Config, Gate, Keys, LoadError, Network, Rope, Weights};
use crate::graph::rope::Rotated;

pub(super) const ARCHITECTURE: Architecture = Architecture::decoder(&["phi3"], phi3);

const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

fn phi3(keys: &Keys, weights: &Weights) -> Result<Config, LoadError> {
    let heads = keys.heads(None)?;
    let (short, long_rope) = ropes(keys, weights, heads.head_dim)?;
    let window = Some(keys.number_or_zero("attention.sliding_window")?).filter(|&window| window > 0);
    let plain = Config::new(keys, heads, short, Network::gated(keys, Gate::Silu)?)?;
    Ok(Config {
        long_rope,
        windows: vec![window; plain.windows.len()],
        ..plain
    })
}

/// The rotation for contexts up to the original one, and that of longer ones with the length where it begins.
fn ropes(keys: &Keys, weights: &Weights, head_dim: u32) -> Result<(Rope, Option<(u32, Rope)>), LoadError> {
    let base = keys.rope_base(&["rope.freq_base"], 10_000.0)?;
    if !weights.has(SHORT) && !weights.has(LONG) {
        return Ok((Rope::from_keys(keys, base, head_dim)?, None));
    }
    let dims = keys.rotated_dims(head_dim)?;
    let original = keys.size("rope.scaling.original_context_length")?;
    let magnitude = match keys.positive_f32("rope.scaling.attn_factor")? {
        Some(said) => said.into(),
        None => magnitude(keys.size("context_length")?.into(), original.into()),
    };
    let divided_by = |name| {
        let factors = weights.factors(name, dims / 2)?;
        let rotated = Rotated {
            factors: Some(&factors),
            ..Rotated::plain(base, dims)
        };
        Ok::<Rope, LoadError>(Rope::divided(&rotated, 1.0, magnitude))
    };
    Ok((divided_by(SHORT)?, Some((original, divided_by(LONG)?))))
}

/// √(1 + ln s / ln original), where the context is s times the original one.
fn magnitude(context: f64, original: f64) -> f64 {
    match context / original {
        s if s > 1.0 && original > 1.0 => (1.0 + s.ln() / original.ln()).sqrt(),
        _ => 1.0,
    }
}
