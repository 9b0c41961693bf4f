//! Answers in a form that is asked for: a JSON object, what a JSON schema describes, what a grammar accepts.
//!
//! [`Formats`] knows a model's vocabulary and makes a [`Format`] of what is asked for; each answer is held to it by a
//! [`Constraint`], which forbids every token that cannot follow. Grammars are llguidance's: its
//! [`json_schema.md`](https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md) lists the keywords of
//! schemas that it knows (all drafts from 4 to 2020-12, references within the schema), its
//! [`syntax.md`](https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md) the Lark that it reads.

mod constraint;
mod schema;
mod vocabulary;

use std::fmt;

use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar, earley::SlicedBiasComputer};
use models::tokenizer::Tokenizer;
use serde_json::json;
use toktrie::InferenceCapabilities;

pub use constraint::{Constraint, ConstraintError};
use vocabulary::Vocabulary;

/// Why answers cannot be held to a form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A schema that is no JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// A schema that describes nothing, or uses what is not known.
    #[error("this JSON schema cannot be used: {reason}{}", advice(.hint))]
    Schema {
        /// What is wrong, and where if that is known.
        reason: String,
        /// What helps.
        hint: Option<&'static str>,
    },
    /// A grammar that is not understood.
    #[error("this grammar cannot be used: {reason}{}", advice(.hint))]
    Grammar {
        /// What is wrong, and the line if that is known.
        reason: String,
        /// What helps.
        hint: Option<&'static str>,
    },
    /// A vocabulary that is too large.
    #[error("answers of this model cannot be held to a form: {0}")]
    Vocabulary(String),
}

fn advice(text: &Option<&'static str>) -> String {
    text.map(|text| format!("\nhint: {text}")).unwrap_or_default()
}

/// Makes formats for a model.
pub struct Formats {
    vocabulary: Vocabulary,
    factory: ParserFactory,
}

impl Formats {
    /// Formats in the vocabulary of `tokenizer`. Takes a fraction of a second where it is large.
    pub fn new(tokenizer: &Tokenizer) -> Result<Formats, FormatError> {
        let vocabulary = Vocabulary::new(tokenizer)?;
        let slices = SlicedBiasComputer::json_slices();
        let factory = ParserFactory::new(vocabulary.environment(), InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| FormatError::Vocabulary(told(&error)))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Formats { vocabulary, factory })
    }

    /// Any JSON object.
    pub fn json(&self) -> Result<Format, FormatError> {
        self.schema(&json!({"type": "object"}).to_string())
    }

    /// What a JSON schema describes; objects have no properties but those that it names, unless it says something of others.
    /// An error says which keyword is not known.
    pub fn schema(&self, text: &str) -> Result<Format, FormatError> {
        let schema = serde_json::from_str(without_mark(text)).map_err(schema::unread)?;
        let grammar =
            TopLevelGrammar::from_json_schema(schema::with_bounded_space(schema::with_named_properties(schema)));
        self.format(grammar).map_err(schema::error)
    }

    /// What a grammar in Lark's notation accepts. An error says which line is not understood.
    pub fn grammar(&self, text: &str) -> Result<Format, FormatError> {
        let text = without_mark(text);
        let failed = |reason: String| FormatError::Grammar {
            hint: grammar_advice(text, &reason),
            reason: with_place(reason),
        };
        self.format(TopLevelGrammar::from_lark(text.to_owned())).map_err(failed)
    }

    fn format(&self, grammar: TopLevelGrammar) -> Result<Format, String> {
        let parser = self.factory.create_parser(grammar).map_err(|error| told(&error))?;
        let mut matcher = Matcher::new(Ok(parser));
        for warning in matcher.grammar_warnings() {
            tracing::warn!("{warning}");
        }
        let format = Format {
            start: matcher,
            vocabulary: self.vocabulary.clone(),
        };
        format.constraint().check().map_err(|error| match error {
            ConstraintError::NothingFollows => "there is nothing that it accepts".to_owned(),
            ConstraintError::Grammar(reason) => reason,
        })?;
        Ok(format)
    }
}

impl fmt::Debug for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Formats").finish_non_exhaustive()
    }
}

/// A form that answers of one model are held to.
#[derive(Clone)]
pub struct Format {
    /// Before the first token.
    start: Matcher,
    vocabulary: Vocabulary,
}

impl Format {
    /// Holds one answer to it.
    pub fn constraint(&self) -> Constraint {
        Constraint::new(self.start.clone(), self.vocabulary.clone())
    }

    /// Whether a text is a whole answer.
    pub fn accepts(&self, text: &str) -> bool {
        let mut constraint = self.constraint();
        let tokens = self.vocabulary.tokens(text);
        constraint.take(&tokens) && constraint.is_complete()
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Format").finish_non_exhaustive()
    }
}

/// A text without the mark that some editors put before UTF-8.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// What llguidance says, without what it adds for its developers.
fn told(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let end = ["\n<backtrace>", "\n<non-verbose/>", "\n<state>"]
        .iter()
        .filter_map(|mark| text.find(mark))
        .min();
    let text = text[..end.unwrap_or(text.len())].trim_end();
    match text.strip_prefix("panic: ") {
        Some(text) => format!("its reader failed: {text}"),
        None => text.to_owned(),
    }
}

/// `LINE(COLUMN): WORDS`, as llguidance has it, in words.
fn with_place(reason: String) -> String {
    let place = || {
        let (place, words) = reason.strip_prefix("at ").unwrap_or(&reason).split_once("): ")?;
        let (line, column) = place.split_once('(')?;
        let (line, column): (u32, u32) = (line.parse().ok()?, column.parse().ok()?);
        Some(format!("line {line}, column {column}: {words}"))
    };
    place().unwrap_or(reason)
}

fn grammar_advice(text: &str, reason: &str) -> Option<&'static str> {
    if text.contains("::=") {
        Some("this looks like llama.cpp's GBNF; a Lark grammar is expected: `root ::= \"a\"` is `start: \"a\"` there")
    } else if reason.contains("special token") {
        Some("an answer is text; special tokens are no part of it, and it ends where the grammar does")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
