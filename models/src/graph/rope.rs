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
    /// Frequencies that turn at least so often over the original context are kept; 32 is usual.
    pub beta_fast: f64,
    /// Frequencies that turn at most so often are divided; 1 is usual.
    pub beta_slow: f64,
    /// Whether the two dimensions are rounded outwards to whole ones.
    pub rounded: bool,
    /// Factor on cos and sin.
    pub magnitude: f64,
}

/// Keys with the names of llama.cpp, then those of Ollama or of earlier files.
const FACTOR: [&str; 2] = ["rope.scaling.factor", "rope.scale_linear"];
const BETA_FAST: [&str; 2] = ["rope.scaling.yarn_beta_fast", "rope.scaling.beta_fast"];
const BETA_SLOW: [&str; 2] = ["rope.scaling.yarn_beta_slow", "rope.scaling.beta_slow"];
const LOG_MULTIPLIER: [&str; 2] = ["rope.scaling.yarn_log_multiplier", "rope.scaling.mscale_all_dim"];
const EXTRAPOLATED: &str = "rope.scaling.yarn_ext_factor";

/// What is rotated, and how fast before any scaling.
#[derive(Clone, Copy, Debug)]
pub struct Rotated<'a> {
    /// θ.
    pub base: f32,
    /// n: rotated dimensions.
    pub dims: u32,
    /// `[n/2]`: what frequencies are divided by.
    pub factors: Option<&'a [f32]>,
}

impl Rotated<'_> {
    /// n = `dims` dimensions at θ = `base`, without factors.
    pub fn plain(base: f32, dims: u32) -> Self {
        Rotated {
            base,
            dims,
            factors: None,
        }
    }

    /// θ^(−2j/n) / factor_j.
    fn frequencies(&self) -> impl Iterator<Item = f64> {
        let (base, dims) = (f64::from(self.base), f64::from(self.dims));
        (0..self.dims / 2).map(move |j| {
            let factor = self.factors.map_or(1.0, |factors| f64::from(factors[j as usize]));
            base.powf(-2.0 * f64::from(j) / dims) / factor
        })
    }
}

impl Rope {
    /// θ^(−2j/n) / factor for n rotated dimensions.
    pub fn linear(base: f32, dims: u32, factor: f32) -> Rope {
        Rope::divided(&Rotated::plain(base, dims), factor, 1.0)
    }

    /// All frequencies divided; cos and sin times `magnitude`.
    pub fn divided(rotated: &Rotated, factor: f32, magnitude: f64) -> Rope {
        Rope::new(rotated.frequencies().map(|f| f / f64::from(factor)), magnitude)
    }

    /// Frequencies blended between divided and kept ones by a ramp over the dimensions.
    pub fn yarn(rotated: &Rotated, yarn: Yarn) -> Rope {
        let (low, high) = yarn.ramp(f64::from(rotated.base), f64::from(rotated.dims));
        let blended = rotated.frequencies().enumerate().map(|(j, f)| {
            let r = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f * (1.0 - r) + r * f / yarn.factor
        });
        Rope::new(blended, yarn.magnitude)
    }

    /// What `rope.scaling.*` asks for over heads of `head_dim` values: nothing, `linear`, or `yarn` with its two
    /// dimensions rounded.
    pub fn from_keys(keys: &Keys, base: f32, head_dim: u32) -> Result<Rope, LoadError> {
        let dims = keys.rotated_dims(head_dim)?;
        Rope::scaled(keys, &Rotated::plain(base, dims), true)
    }

    /// As [`Rope::from_keys`], but YaRN where the file does not say, and its two dimensions stay as they are.
    pub fn yarn_unrounded(keys: &Keys, base: f32, head_dim: u32) -> Result<Rope, LoadError> {
        let dims = keys.rotated_dims(head_dim)?;
        Rope::scaled_as(keys, &Rotated::plain(base, dims), "yarn", false)
    }

    /// What `rope.scaling.*` asks for; `rounded` as in [`Yarn`].
    pub fn scaled(keys: &Keys, rotated: &Rotated, rounded: bool) -> Result<Rope, LoadError> {
        // early files have a factor alone
        let usual = match keys.first_f32(&FACTOR)? {
            None => "none",
            Some(_) => "linear",
        };
        Rope::scaled_as(keys, rotated, usual, rounded)
    }

    fn scaled_as(keys: &Keys, rotated: &Rotated, usual: &str, rounded: bool) -> Result<Rope, LoadError> {
        let factor = || match keys.first_f32(&FACTOR)? {
            Some((_, factor)) if factor > 0.0 => Ok(factor),
            Some((key, _)) => Err(keys.unexpected(key, "a factor above 0")),
            None => keys.f32(FACTOR[0]),
        };
        match keys.opt_string("rope.scaling.type")?.unwrap_or(usual) {
            "none" => Ok(Rope::divided(rotated, 1.0, 1.0)),
            "linear" => Ok(Rope::divided(rotated, factor()?, 1.0)),
            "yarn" => Ok(Rope::yarn(rotated, Yarn::from_keys(keys, factor()?, rounded)?)),
            _ => Err(keys
                .unexpected("rope.scaling.type", "\"none\", \"linear\" or \"yarn\"")
                .into()),
        }
    }

    /// The same rotation of neighbours, for files whose rows of queries and keys are permuted so.
    pub fn in_pairs(self) -> Rope {
        Rope {
            layout: RopeLayout::Pairs,
            ..self
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

/// 1 + 0.1·m·ln factor: what longer contexts do to the size of scores.
fn growth(factor: f64, m: f64) -> f64 {
    if factor > 1.0 { 1.0 + 0.1 * m * factor.ln() } else { 1.0 }
}

impl Yarn {
    /// The usual numbers: cos and sin times 1 + 0.1·ln factor.
    pub fn usual(factor: f64, original_context: u32, rounded: bool) -> Yarn {
        Yarn {
            factor,
            original_context: original_context.into(),
            beta_fast: 32.0,
            beta_slow: 1.0,
            rounded,
            magnitude: growth(factor, 1.0),
        }
    }

    /// `rope.scaling.original_context_length`, and the numbers that are not usual. With `yarn_log_multiplier` m, cos and
    /// sin are divided by 1 + 0.1·m·ln factor.
    fn from_keys(keys: &Keys, factor: f32, rounded: bool) -> Result<Yarn, LoadError> {
        let original = keys.size("rope.scaling.original_context_length")?;
        let usual = Yarn::usual(factor.into(), original, rounded);
        let number =
            |names: [&str; 2]| Ok::<_, LoadError>(keys.first_f32(&names)?.map(|(_, number)| f64::from(number)));
        if keys
            .opt_f32(EXTRAPOLATED)?
            .is_some_and(|extrapolated| extrapolated != 1.0)
        {
            return Err(keys.unexpected(EXTRAPOLATED, "1").into());
        }
        let positive = |names: [&str; 2]| match number(names)? {
            Some(beta) if beta <= 0.0 => Err(keys.unexpected(keys.there(&names), "a number above 0").into()),
            beta => Ok::<_, LoadError>(beta),
        };
        let beta_fast = positive(BETA_FAST)?.unwrap_or(usual.beta_fast);
        let beta_slow = positive(BETA_SLOW)?.unwrap_or(usual.beta_slow);
        if beta_fast <= beta_slow {
            return Err(keys
                .unexpected(keys.there(&BETA_FAST), "more than yarn_beta_slow")
                .into());
        }
        let divided = growth(usual.factor, number(LOG_MULTIPLIER)?.unwrap_or(0.0));
        Ok(Yarn {
            beta_fast,
            beta_slow,
            magnitude: number(["rope.scaling.yarn_attn_factor"; 2])?.unwrap_or(usual.magnitude / divided),
            ..usual
        })
    }

    /// The dimensions between which frequencies pass from kept to divided.
    fn ramp(&self, base: f64, dims: f64) -> (f64, f64) {
        let at = |turns: f64| dims * (self.original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * base.ln());
        let (mut low, mut high) = (at(self.beta_fast), at(self.beta_slow));
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
        let yarn = Yarn::usual(32.0, 4096, false);
        let rotated = Rotated::plain(150_000.0, 64);
        let (scaled, plain) = (Rope::yarn(&rotated, yarn), Rope::divided(&rotated, 1.0, 1.0));
        assert_eq!(scaled.frequencies[0], plain.frequencies[0]);
        let last = plain.frequencies.len() - 1;
        assert_eq!(scaled.frequencies[last], plain.frequencies[last] / 32.0);
        assert!((scaled.magnitude - 1.3466).abs() < 1e-4);
    }

    #[test]
    fn factors_divide_each_frequency_before_it_is_scaled() {
        let rotated = Rotated {
            factors: Some(&[1.0, 4.0]),
            ..Rotated::plain(10_000.0, 4)
        };
        let rope = Rope::divided(&rotated, 2.0, 1.5);
        assert_eq!((rope.frequencies, rope.magnitude), (vec![0.5, 0.00125], 1.5));
    }
}
