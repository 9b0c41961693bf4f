//! One answer that is held to a form.

use llguidance::{Matcher, api::StopReason};

use toktrie::SimpleVob;

use super::{Vocabulary, told};

/// Why no token can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The grammar grew too complex, or nothing in the vocabulary goes on.
    #[error("the answer cannot be held to its form any further: {0}")]
    Grammar(String),
    /// No token goes on, and the answer is not complete.
    #[error(
        "the grammar or schema is at fault: it let the answer come to a point where no token can follow, and where it is \
         not complete"
    )]
    NothingFollows,
}

/// Where an answer is in its form.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    vocabulary: Vocabulary,
}

impl Constraint {
    pub(super) fn new(matcher: Matcher, vocabulary: Vocabulary) -> Constraint {
        Constraint { matcher, vocabulary }
    }

    /// Leaves the logits `[V]` of the tokens that can follow and makes the others −∞; the `ends` can follow where the answer
    /// is complete. `false` if none is left and the answer is complete.
    pub fn restrict(&mut self, logits: &mut [f32], ends: &[u32]) -> Result<bool, ConstraintError> {
        let mut allowed = self.allowed()?;
        // a grammar may name tokens by their numbers
        allowed.and(self.vocabulary.texts());
        let complete = self.is_complete();
        let ends = if complete { ends } else { &[] };
        if allowed.is_zero() && ends.is_empty() {
            return if complete {
                Ok(false)
            } else {
                Err(ConstraintError::NothingFollows)
            };
        }
        let kept: Vec<(usize, f32)> = ends
            .iter()
            .filter_map(|&end| Some((end as usize, *logits.get(end as usize)?)))
            .collect();
        keep(allowed.as_slice(), logits);
        kept.into_iter().for_each(|(end, logit)| logits[end] = logit);
        Ok(true)
    }

    /// Whether any text can follow, or the answer is complete: an error if there is no such answer.
    pub(super) fn check(&mut self) -> Result<(), ConstraintError> {
        self.allowed().map(drop)
    }

    fn allowed(&mut self) -> Result<SimpleVob, ConstraintError> {
        self.matcher.compute_mask().map_err(|error| match told(&error) {
            reason if reason == StopReason::NoExtensionBias.to_string() => ConstraintError::NothingFollows,
            reason => ConstraintError::Grammar(reason),
        })
    }

    /// Goes on by a token that [`Constraint::restrict`] left.
    pub fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let consumed = self.matcher.consume_token(token);
        consumed.map_err(|error| ConstraintError::Grammar(told(&error)))
    }

    /// Whether the answer may end here.
    pub fn is_complete(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether the answer is complete and nothing can follow.
    pub fn is_finished(&mut self) -> bool {
        self.matcher.is_stopped() && self.is_complete()
    }

    /// Goes on by all of these tokens; `false` if one cannot follow.
    pub(super) fn take(&mut self, tokens: &[u32]) -> bool {
        self.matcher
            .try_consume_tokens(tokens)
            .is_ok_and(|taken| taken == tokens.len())
    }
}

/// Makes −∞ of every logit whose bit is not set; bits that are not there are not set.
fn keep(bits: &[u32], logits: &mut [f32]) {
    let words = bits.iter().copied().chain(std::iter::repeat(0));
    for (logits, word) in logits.chunks_mut(u32::BITS as usize).zip(words) {
        match word {
            u32::MAX => {}
            0 => logits.fill(f32::NEG_INFINITY),
            _ => {
                let forbidden = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_without_a_set_bit_is_forbidden() {
        let mut logits = vec![1.0; 100];
        keep(&[u32::MAX, 0b101], &mut logits);
        let left: Vec<usize> = (0..100).filter(|&token| logits[token] == 1.0).collect();
        assert_eq!(left, (0..32).chain([32, 34]).collect::<Vec<_>>());
        assert!(logits[35..].iter().all(|&logit| logit == f32::NEG_INFINITY));
    }
}
