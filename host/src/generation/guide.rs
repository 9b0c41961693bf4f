//! Replies whose answer is held to a form.

use std::vec::IntoIter;

use models::tokenizer::{Special, Tokenizer};

use super::GenerationError;
use crate::{
    reply::{Format, Reader},
    sampling::Sampler,
    structured::Constraint,
};

/// Leads a reply to an answer and through it. What a model thinks is free, but only an answer can follow.
pub struct Guide {
    constraint: Constraint,
    format: Format,
    /// Tokens that come next, whatever the model would say.
    forced: IntoIter<u32>,
}

impl Guide {
    /// For a reply in this format, whose answer is held to `constraint`.
    pub fn new(constraint: Constraint, format: Format) -> Guide {
        Guide {
            constraint,
            format,
            forced: Vec::new().into_iter(),
        }
    }

    /// The next token of the reply that `reader` has read so far; none where it ends. Tokens that end replies do so where
    /// the answer may end, unless they are not to (`ignore_end`).
    pub(super) fn next(
        &mut self,
        reader: &Reader<'_>,
        tokenizer: &Tokenizer,
        sampler: &mut Sampler,
        logits: &mut [f32],
        ignore_end: bool,
    ) -> Result<Option<u32>, GenerationError> {
        if let Some(token) = self.forced.next() {
            return Ok(Some(token));
        }
        if reader.in_answer() {
            let ends = if ignore_end { &[] } else { tokenizer.ends() };
            self.constraint.restrict(logits, ends)?;
            let token = sampler.sample(logits)?;
            if tokenizer.is_end(token) {
                return Ok(None);
            }
            self.constraint.accept(token)?;
            return Ok(Some(token));
        }
        if reader.in_thinking() {
            let token = sampler.sample(logits)?;
            if !tokenizer.is_end(token) {
                return Ok(Some(token));
            }
            self.force(self.format.end_of_thinking(), tokenizer);
        } else {
            self.force(self.format.begin_of_answer(), tokenizer);
        }
        Ok(self.forced.next())
    }

    /// Whether the answer is complete and nothing can follow.
    pub(super) fn is_finished(&mut self) -> bool {
        self.constraint.is_finished()
    }

    fn force(&mut self, text: &str, tokenizer: &Tokenizer) {
        self.forced = tokenizer.encode(text, Special::Parse).into_iter();
    }
}
