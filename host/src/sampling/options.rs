//! The options of the sampler, by the names that Ollama gives them.

use serde::{Deserialize, Deserializer, Serialize};

use super::SamplingError;

/// How the next token is chosen from the logits. Fields missing from a serialized form take their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingOptions {
    /// Logits are divided by it; 0 always takes the largest logit. From 0; default 0.8.
    pub temperature: f32,
    /// Only the k largest logits are considered; 0 or less: all. Default 40.
    pub top_k: i32,
    /// Only the most probable tokens that together exceed this probability are considered; 1: all. From 0 to 1; default 0.9.
    pub top_p: f32,
    /// Only tokens at least this fraction as probable as the most probable are considered. From 0 to 1; default 0.
    pub min_p: f32,
    /// Only the tokens whose surprise is nearest to the expected one and that together exceed this probability are
    /// considered; 1: all. From 0 to 1; default 1. Meister et al., "Locally typical sampling", 2022.
    pub typical_p: f32,
    /// Positive logits of recent tokens are divided by it, others multiplied. Above 0; default 1, no penalty.
    /// Keskar et al., "CTRL", 2019, with the correction for negative logits that is customary.
    pub repeat_penalty: f32,
    /// How many recent tokens the penalties look at; 0: none, −1: all. Default 64.
    pub repeat_last_n: i32,
    /// Subtracted from the logit of each recent token. Default 0.
    pub presence_penalty: f32,
    /// Subtracted from the logit of each recent token as often as it occurred. Default 0.
    pub frequency_penalty: f32,
    /// The same seed, options and logits give the same tokens. None, or −1 in a serialized form: a random one.
    #[serde(deserialize_with = "seed")]
    pub seed: Option<u64>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
        }
    }
}

impl SamplingOptions {
    pub(super) fn check(&self) -> Result<(), SamplingError> {
        let require = |holds: bool, option, value: f32, expected| {
            if holds {
                Ok(())
            } else {
                Err(SamplingError::Option {
                    option,
                    value,
                    expected,
                })
            }
        };
        let fractions = [
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("typical_p", self.typical_p),
        ];
        for (option, value) in fractions {
            require((0.0..=1.0).contains(&value), option, value, "a number from 0 to 1")?;
        }
        let penalties = [
            ("presence_penalty", self.presence_penalty),
            ("frequency_penalty", self.frequency_penalty),
        ];
        for (option, value) in penalties {
            require(value.is_finite(), option, value, "a finite number")?;
        }
        let (temperature, repeat) = (self.temperature, self.repeat_penalty);
        require(
            temperature.is_finite() && temperature >= 0.0,
            "temperature",
            temperature,
            "a number from 0",
        )?;
        require(
            repeat.is_finite() && repeat > 0.0,
            "repeat_penalty",
            repeat,
            "a number above 0",
        )?;
        require(
            self.repeat_last_n >= -1,
            "repeat_last_n",
            self.repeat_last_n as f32,
            "−1, 0 or a number of tokens",
        )
    }
}

fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "seed: expected an integer")]
    enum Seed {
        Unsigned(u64),
        Signed(i64),
    }
    Ok(match Option::deserialize(deserializer)? {
        None | Some(Seed::Signed(-1)) => None,
        Some(Seed::Unsigned(seed)) => Some(seed),
        Some(Seed::Signed(seed)) => Some(seed as u64),
    })
}
