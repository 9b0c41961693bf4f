//! The parameters of answers, by the names that Ollama gives them.

use serde_json::{Map, Value as Json, json};

use super::nearest::nearest;
use crate::{
    conversation::Options,
    generation::MOST_AHEAD,
    sampling::{Sampler, SamplingError, SamplingOptions},
};

const LIMIT: &str = "num_predict";
const STOP: &str = "stop";
const DRAFT: &str = "num_draft";
const SEED: &str = "seed";
/// What is fixed while the program runs, and what sets it.
const FIXED: [(&str, &str); 5] = [
    ("num_ctx", "--ctx-size"),
    ("num_keep", "--keep"),
    ("num_batch", "--batch-size"),
    ("num_thread", "--threads"),
    // where tokens may be guessed, how many may change
    (DRAFT, "--draft ngram"),
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
    if let Some(draft) = options.draft {
        all.insert(DRAFT.to_owned(), json!(draft));
    }
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
        DRAFT if options.draft.is_none() => return Err(unknown(name)),
        STOP => json!(shlex::split(typed).ok_or_else(|| wrong(name, "a quotation mark is missing"))?),
        _ => match number(typed) {
            Ok(number) => number,
            // that there is no such parameter matters more
            Err(reason) if name == DRAFT || names().iter().any(|known| known == name) => {
                return Err(wrong(name, reason));
            }
            Err(_) => return Err(unknown(name)),
        },
    };
    set_json(options, name, value)
}

const NUMBER: &str = "expected a number";
const WHOLE: &str = "expected a whole number";
const TOO_LARGE: &str = "this number is too large";

/// What was typed as a number; a whole one where it is one.
fn number(typed: &str) -> Result<Json, &'static str> {
    if let Ok(whole) = typed.parse::<i64>() {
        return Ok(whole.into());
    }
    if let Ok(whole) = typed.parse::<u64>() {
        return Ok(whole.into());
    }
    match typed.parse::<f64>() {
        Ok(number) if number.is_infinite() => Err(TOO_LARGE),
        Ok(number) if !number.is_nan() => Ok(number.into()),
        _ => Err(NUMBER),
    }
}

/// As [`set`], of a value as [`all`] has it. How many tokens are guessed is set only where any are: it changes no answer.
pub fn set_json(options: &mut Options, name: &str, value: Json) -> Result<(), ParameterError> {
    match name {
        LIMIT => options.limit = limit(&value).ok_or_else(|| wrong(name, "expected −1 or a number of tokens"))?,
        STOP => options.stops = serde_json::from_value(value).map_err(|_| wrong(name, "expected a list of texts"))?,
        DRAFT => {
            let draft = draft(&value).ok_or_else(|| wrong(name, "expected a number of tokens from 0 to 7"))?;
            options.draft = options.draft.map(|_| draft);
        }
        _ => set_sampling(&mut options.sampling, name, value)?,
    }
    Ok(())
}

/// −1 is no limit.
fn limit(value: &Json) -> Option<Option<usize>> {
    let number = value.as_i64().filter(|&number| number >= -1)?;
    Some(usize::try_from(number).ok())
}

fn draft(value: &Json) -> Option<usize> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok())?;
    (number <= MOST_AHEAD).then_some(number)
}

fn set_sampling(options: &mut SamplingOptions, name: &str, value: Json) -> Result<(), ParameterError> {
    let mut all = sampling(options);
    let place = all.get_mut(name).ok_or_else(|| unknown(name))?;
    check(name, place, &value).map_err(|reason| wrong(name, reason))?;
    *place = value;
    let changed: SamplingOptions = serde_json::from_value(all.into()).map_err(|error| wrong(name, error))?;
    Sampler::new(changed.clone()).map_err(|error| match error {
        SamplingError::Option { expected, .. } => wrong(name, format_args!("expected {expected}")),
        other => wrong(name, other),
    })?;
    *options = changed;
    Ok(())
}

/// Whether a parameter can have a value: an f32 or an i32 as the one that is present, or a seed, which has 64 bits and may
/// be absent.
fn check(name: &str, present: &Json, value: &Json) -> Result<(), &'static str> {
    let fraction = present.is_f64();
    match value {
        Json::Null if name == SEED => Ok(()),
        Json::Number(_) if fraction => match value.as_f64() {
            Some(number) if number.abs() <= f32::MAX.into() => Ok(()),
            _ => Err(TOO_LARGE),
        },
        Json::Number(number) if number.is_f64() => Err(WHOLE),
        Json::Number(_) if name == SEED => Ok(()),
        Json::Number(number) => match number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) {
            true => Ok(()),
            false => Err(TOO_LARGE),
        },
        _ if fraction => Err(NUMBER),
        _ => Err(WHOLE),
    }
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
    fn how_many_tokens_are_guessed_can_change_where_any_may_be() {
        let mut options = Options::default();
        let fixed = "num_draft cannot change while the model runs\nhint: start again with --draft ngram";
        assert_eq!(set(&mut options, "num_draft", "3").unwrap_err().to_string(), fixed);
        set_json(&mut options, "num_draft", json!(3)).unwrap();
        assert_eq!(options.draft, None);

        options.draft = Some(7);
        for value in ["3", "0"] {
            set(&mut options, "num_draft", value).unwrap();
            assert_eq!(all(&options)["num_draft"].to_string(), value);
        }
        for (value, reason) in [("8", "a number of tokens from 0 to 7"), ("many", "a number")] {
            let error = set(&mut options, "num_draft", value).unwrap_err().to_string();
            assert_eq!(error, format!("num_draft: expected {reason}"));
        }
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

    #[test]
    fn a_file_has_numbers_for_numbers() {
        let mut options = Options::default();
        let mut refused = |name, value| set_json(&mut options, name, value).unwrap_err().to_string();
        assert_eq!(refused("temperature", json!("1")), "temperature: expected a number");
        assert_eq!(refused("temperature", json!(null)), "temperature: expected a number");
        assert_eq!(refused("top_k", json!([1])), "top_k: expected a whole number");
        assert_eq!(refused("seed", json!("1")), "seed: expected a whole number");
    }

    #[test]
    fn a_zero_before_the_point_may_be_left_out() {
        let mut options = Options::default();
        set(&mut options, "temperature", ".5").unwrap();
        set(&mut options, "top_p", "1").unwrap();
        assert_eq!((options.sampling.temperature, options.sampling.top_p), (0.5, 1.0));
    }

    #[rstest]
    #[case("temperature", "-1", "temperature: expected a number from 0")]
    #[case("temperature", "warm", "temperature: expected a number")]
    #[case("temperature", "NaN", "temperature: expected a number")]
    #[case("temperature", "\"1\"", "temperature: expected a number")]
    #[case("temperature", "1e40", "temperature: this number is too large")]
    #[case("temperature", "1e400", "temperature: this number is too large")]
    #[case("top_k", "1.5", "top_k: expected a whole number")]
    #[case("top_k", "many", "top_k: expected a number")]
    #[case("top_k", "3000000000", "top_k: this number is too large")]
    #[case("top_p", "1.1", "top_p: expected a number from 0 to 1")]
    #[case("num_predict", "-2", "num_predict: expected −1 or a number of tokens")]
    #[case("num_predict", "all", "num_predict: expected a number")]
    #[case("seed", "x", "seed: expected a number")]
    #[case("seed", "1.5", "seed: expected a whole number")]
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
