//! The parameters of answers, by the names that Ollama gives them.

use serde_json::{Map, Value as Json, json};

use super::nearest::nearest;
use crate::{
    conversation::Options,
    sampling::{Sampler, SamplingOptions},
};

const LIMIT: &str = "num_predict";
const STOP: &str = "stop";
/// What is fixed while the program runs, and what sets it.
const FIXED: [(&str, &str); 4] = [
    ("num_ctx", "--ctx-size"),
    ("num_keep", "--keep"),
    ("num_batch", "--batch-size"),
    ("num_thread", "--threads"),
];

/// Why a parameter was not set. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each says itself what it is
pub enum ParameterError {
    #[error("there is no parameter {name:?}\nhint: {hint}")]
    Unknown { name: String, hint: String },
    #[error("{name} cannot change while the model runs\nhint: start again with {option}")]
    Fixed { name: &'static str, option: &'static str },
    #[error("{name}: {reason}")]
    Value { name: String, reason: String },
}

fn wrong(name: &str, reason: impl ToString) -> ParameterError {
    ParameterError::Value {
        name: name.to_owned(),
        reason: reason.to_string(),
    }
}

/// All parameters with their values.
pub fn all(options: &Options) -> Map<String, Json> {
    let mut all = sampling(&options.sampling);
    let limit = options.limit.map_or(json!(-1), |limit| json!(limit));
    all.insert(LIMIT.to_owned(), limit);
    all.insert(STOP.to_owned(), json!(options.stops));
    all
}

/// The names.
pub fn names() -> Vec<String> {
    all(&Options::default()).into_iter().map(|(name, _)| name).collect()
}

fn sampling(options: &SamplingOptions) -> Map<String, Json> {
    // by way of a text, in which a number has the digits that it needs as f32
    let text = serde_json::to_string(options).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Sets a parameter to what was typed: a number, or texts separated by blanks, quoted as in a shell where they have some.
pub fn set(options: &mut Options, name: &str, typed: &str) -> Result<(), ParameterError> {
    let value = match name {
        STOP => json!(shlex::split(typed).ok_or_else(|| wrong(name, "a quotation mark is missing"))?),
        _ => serde_json::from_str(typed).unwrap_or_else(|_| json!(typed)),
    };
    set_json(options, name, value)
}

/// As [`set`], of a value as [`all`] has it.
pub fn set_json(options: &mut Options, name: &str, value: Json) -> Result<(), ParameterError> {
    match name {
        LIMIT => options.limit = limit(&value).ok_or_else(|| wrong(name, "expected −1 or a number of tokens"))?,
        STOP => options.stops = serde_json::from_value(value).map_err(|_| wrong(name, "expected a list of texts"))?,
        _ => set_sampling(&mut options.sampling, name, value)?,
    }
    Ok(())
}

/// −1 is no limit.
fn limit(value: &Json) -> Option<Option<usize>> {
    let number = value.as_i64().filter(|&number| number >= -1)?;
    Some(usize::try_from(number).ok())
}

fn set_sampling(options: &mut SamplingOptions, name: &str, value: Json) -> Result<(), ParameterError> {
    let mut all = sampling(options);
    let place = all.get_mut(name).ok_or_else(|| unknown(name))?;
    *place = value;
    let changed: SamplingOptions = serde_json::from_value(all.into()).map_err(|error| wrong(name, error))?;
    Sampler::new(changed.clone()).map_err(|error| wrong(name, error))?;
    *options = changed;
    Ok(())
}

fn unknown(name: &str) -> ParameterError {
    if let Some(&(name, option)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
        return ParameterError::Fixed { name, option };
    }
    let names = names();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("they are {}", names.join(", ")),
    };
    ParameterError::Unknown {
        name: name.to_owned(),
        hint,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_parameter_can_be_set_and_is_shown_as_it_was_set() {
        let values = [
            ("temperature", "0.3"),
            ("top_k", "7"),
            ("top_p", "0.25"),
            ("min_p", "0.1"),
            ("typical_p", "0.5"),
            ("repeat_penalty", "1.1"),
            ("repeat_last_n", "-1"),
            ("presence_penalty", "0.7"),
            ("frequency_penalty", "-0.2"),
            ("seed", "18446744073709551615"),
            ("num_predict", "12"),
        ];
        let mut options = Options::default();
        for (name, value) in values {
            set(&mut options, name, value).unwrap();
            assert_eq!(all(&options)[name].to_string(), value);
        }
        set(&mut options, "stop", "User: 'two words'").unwrap();
        assert_eq!(options.stops, ["User:", "two words"]);
        assert_eq!(names().len(), values.len() + 1);

        let mut copy = Options::default();
        for (name, value) in all(&options) {
            set_json(&mut copy, &name, value).unwrap();
        }
        assert_eq!(all(&copy), all(&options));
    }

    #[test]
    fn minus_one_is_no_limit_and_no_seed() {
        let mut options = Options {
            limit: Some(3),
            ..Options::default()
        };
        set(&mut options, "num_predict", "-1").unwrap();
        set(&mut options, "seed", "-1").unwrap();
        assert_eq!((options.limit, options.sampling.seed), (None, None));
    }

    #[rstest]
    #[case(
        "temperature",
        "-1",
        "temperature: sampling option temperature is -1; expected a number from 0"
    )]
    #[case("temperature", "warm", "temperature: invalid type: string \"warm\", expected f32")]
    #[case("top_k", "1.5", "top_k: invalid type: floating point `1.5`, expected i32")]
    #[case("top_p", "1.1", "top_p: sampling option top_p is 1.1; expected a number from 0 to 1")]
    #[case("num_predict", "-2", "num_predict: expected −1 or a number of tokens")]
    #[case("seed", "x", "seed: seed: expected an integer")]
    #[case("stop", "'x", "stop: a quotation mark is missing")]
    #[case(
        "num_ctx",
        "8192",
        "num_ctx cannot change while the model runs\nhint: start again with --ctx-size"
    )]
    #[case(
        "temprature",
        "1",
        "there is no parameter \"temprature\"\nhint: did you mean temperature?"
    )]
    fn a_bad_value_changes_nothing_and_says_what_is_wrong(
        #[case] name: &str,
        #[case] value: &str,
        #[case] message: &str,
    ) {
        let mut options = Options::default();
        assert_eq!(set(&mut options, name, value).unwrap_err().to_string(), message);
        assert_eq!(all(&options), all(&Options::default()));
    }
}
