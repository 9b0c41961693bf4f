//! Choosing the next token.
//!
//! Penalties on recent tokens come first. At temperature 0 the largest logit is taken; else, in this order, as in Ollama's own
//! engine: top-k, temperature, softmax, typical, top-p, min-p, and a draw from what is left.

mod candidates;
mod history;
mod options;
#[cfg(test)]
mod tests;

use candidates::Candidates;
use history::History;
pub use options::SamplingOptions;
use rand_pcg::{Pcg64, rand_core::Rng};

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// An option is out of range.
    #[error("sampling option {option} is {value}; expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: f32,
        /// What is possible.
        expected: &'static str,
    },
    /// The model's output cannot be compared.
    #[error("the logit of token {token} is {logit}; the model's output is broken")]
    NotANumber {
        /// The first such token.
        token: usize,
        /// NaN or +∞.
        logit: f32,
    },
    /// No logits, or all are −∞.
    #[error("no token is allowed: all of the {logits} logits are −∞")]
    NothingAllowed {
        /// How many there are.
        logits: usize,
    },
    /// The operating system gave no random seed.
    #[error("no random seed: {0}; hint: set the option seed")]
    Entropy(#[from] getrandom::Error),
}

/// Chooses tokens. A clone goes on exactly as the original would.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    seed: u64,
    random: Pcg64,
    history: History,
    candidates: Candidates,
}

impl Sampler {
    /// A sampler; an error names the option that is out of range.
    pub fn new(options: SamplingOptions) -> Result<Self, SamplingError> {
        options.check()?;
        let seed = options.seed.map_or_else(getrandom::u64, Ok)?;
        // The stream only has to be fixed: the constant is the golden ratio in 64 bits.
        let random = Pcg64::new(u128::from(seed), u128::from(seed ^ 0x9E37_79B9_7F4A_7C15));
        let history = History::new(&options);
        Ok(Self {
            options,
            seed,
            random,
            history,
            candidates: Candidates::default(),
        })
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The seed in use, also where it was chosen at random.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Records a token that the penalties shall see: one that was sampled, or one of the prompt.
    pub fn accept(&mut self, token: u32) {
        self.history.accept(token);
    }

    /// Chooses from `logits`, `[vocabulary]`, and does not record the choice. A token whose logit is −∞ is never chosen:
    /// that is how structured output forbids tokens. The penalties are applied in place. An error when a logit is NaN or +∞
    /// or no token is allowed.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, SamplingError> {
        self.history.penalize(&self.options, logits);
        check(logits)?;
        let chosen = if self.options.temperature == 0.0 {
            largest(logits)
        } else {
            self.draw(logits)
        };
        chosen.ok_or(SamplingError::NothingAllowed { logits: logits.len() })
    }

    fn draw(&mut self, logits: &[f32]) -> Option<u32> {
        self.filter(logits);
        let point = self.random_fraction();
        self.candidates.at(point)
    }

    fn filter(&mut self, logits: &[f32]) {
        let (options, candidates) = (&self.options, &mut self.candidates);
        match usize::try_from(options.top_k) {
            Ok(k @ 1..) if k < logits.len() => candidates.take_largest(logits, k),
            _ => candidates.take_all(logits),
        }
        candidates.softmax(options.temperature);
        if options.typical_p < 1.0 {
            candidates.typical(options.typical_p);
        }
        if options.top_p < 1.0 {
            candidates.top_p(options.top_p);
        }
        if options.min_p > 0.0 {
            candidates.min_p(options.min_p);
        }
    }

    /// Uniform in [0, 1), all 53 bits of it.
    fn random_fraction(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn check(logits: &[f32]) -> Result<(), SamplingError> {
    let broken = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    // Without an early exit the pass is vectorized.
    if logits.iter().fold(false, |any, &logit| any | broken(logit)) {
        let found = logits.iter().position(|&logit| broken(logit));
        return found.map_or(Ok(()), |token| {
            Err(SamplingError::NotANumber {
                token,
                logit: logits[token],
            })
        });
    }
    Ok(())
}

/// The token of the largest logit, the lowest of several; none if all are −∞.
fn largest(logits: &[f32]) -> Option<u32> {
    // Maxima of lanes, and chunks without an early exit, are vectorized; one maximum, and a search, are not.
    const LANES: usize = 16;
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let has = |chunk: &[f32; LANES]| chunk.iter().fold(false, |any, &logit| any | (logit == largest));
    let first = LANES * chunks.iter().position(has).unwrap_or(chunks.len());
    let found = logits[first..].iter().position(|&logit| logit == largest)?;
    (largest > f32::NEG_INFINITY).then_some((first + found) as u32)
}
