//! Rotary position embedding: every scheme ends up in a vector of frequencies.

use backend_api::operations::RopeLayout;

use crate::{error::LoadError, keys::Keys};

/// What `rope` needs: frequencies `[n/2]`, computed in f64 and rounded once, and a factor on cos and sin.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians a position, for each pair.
    pub frequencies: Vec<f32>,
    /// Factor on cos and sin.
    pub magnitude: f32,
    /// Which entries are pairs.
    pub layout: RopeLayout,
}

/// YaRN's parameters (Peng et al., 2023).
#[derive(Clone, Copy, Debug)]
pub struct Yarn {
    /// How much longer the context is than the original one.
    pub factor: f64,
    /// The context that the model was first trained for.
    pub original_context: f64,
    /// Whether the two dimensions are rounded outwards to whole ones.
    pub rounded: bool,
}

const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

impl Rope {
    /// θ^(−2j/n) / factor for n rotated dimensions.
    pub fn linear(base: f32, dims: u32, factor: f32) -> Rope {
        Rope::new(plain(base, dims).map(|f| f / f64::from(factor)), 1.0)
    }

    /// Frequencies blended between interpolated and kept ones by a ramp over the dimensions; cos and sin times
    /// 1 + 0.1·ln factor.
    pub fn yarn(base: f32, dims: u32, yarn: Yarn) -> Rope {
        let (low, high) = yarn.ramp(f64::from(base), f64::from(dims));
        let blended = plain(base, dims).enumerate().map(|(j, f)| {
            let r = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f * (1.0 - r) + r * f / yarn.factor
        });
        let magnitude = if yarn.factor > 1.0 {
            1.0 + 0.1 * yarn.factor.ln()
        } else {
            1.0
        };
        Rope::new(blended, magnitude)
    }

    /// What `rope.scaling.*` asks for over n = `dims` rotated dimensions: nothing, `linear`, or `yarn` with its two
    /// dimensions rounded.
    pub fn from_keys(keys: &Keys, base: f32, dims: u32) -> Result<Rope, LoadError> {
        Rope::scaled(keys, base, dims, true)
    }

    /// As [`Rope::from_keys`], but YaRN's two dimensions stay as they are: gpt-oss was trained so.
    pub fn from_keys_unrounded(keys: &Keys, base: f32, dims: u32) -> Result<Rope, LoadError> {
        Rope::scaled(keys, base, dims, false)
    }

    fn scaled(keys: &Keys, base: f32, dims: u32, rounded: bool) -> Result<Rope, LoadError> {
        let factor = keys.opt_f32("rope.scaling.factor")?.unwrap_or(1.0);
        match keys.opt_string("rope.scaling.type")? {
            None | Some("none") => Ok(Rope::linear(base, dims, 1.0)),
            _ if factor <= 0.0 => Err(keys.unexpected("rope.scaling.factor", "a factor above 0").into()),
            Some("linear") => Ok(Rope::linear(base, dims, factor)),
            Some("yarn") => {
                let original_context = keys.size("rope.scaling.original_context_length")?.into();
                Ok(Rope::yarn(
                    base,
                    dims,
                    Yarn {
                        factor: factor.into(),
                        original_context,
                        rounded,
                    },
                ))
            }
            Some(_) => Err(keys
                .unexpected("rope.scaling.type", "\"none\", \"linear\" or \"yarn\"")
                .into()),
        }
    }

    fn new(frequencies: impl Iterator<Item = f64>, magnitude: f64) -> Rope {
        let frequencies = frequencies.map(|f| f as f32).collect();
        Rope {
            frequencies,
            magnitude: magnitude as f32,
            layout: RopeLayout::Halves,
        }
    }
}

fn plain(base: f32, dims: u32) -> impl Iterator<Item = f64> {
    (0..dims / 2).map(move |j| f64::from(base).powf(-2.0 * f64::from(j) / f64::from(dims)))
}

impl Yarn {
    /// The dimensions between which frequencies pass from kept to interpolated.
    fn ramp(&self, base: f64, dims: f64) -> (f64, f64) {
        let at = |turns: f64| dims * (self.original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (at(BETA_FAST), at(BETA_SLOW));
        if self.rounded {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dims - 1.0));
        (low, if low == high { high + 0.001 } else { high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_fall_from_one() {
        let rope = Rope::linear(10_000.0, 4, 1.0);
        assert_eq!(rope.frequencies, [1.0, 0.01]);
        assert_eq!(rope.magnitude, 1.0);
    }

    #[test]
    fn linear_scaling_divides() {
        assert_eq!(Rope::linear(10_000.0, 4, 8.0).frequencies, [0.125, 0.00125]);
    }

    #[test]
    fn yarn_keeps_the_fast_and_divides_the_slow() {
        let yarn = Yarn {
            factor: 32.0,
            original_context: 4096.0,
            rounded: false,
        };
        let (scaled, plain) = (Rope::yarn(150_000.0, 64, yarn), Rope::linear(150_000.0, 64, 1.0));
        assert_eq!(scaled.frequencies[0], plain.frequencies[0]);
        let last = plain.frequencies.len() - 1;
        assert_eq!(scaled.frequencies[last], plain.frequencies[last] / 32.0);
        assert!((scaled.magnitude - 1.3466).abs() < 1e-4);
    }
}
