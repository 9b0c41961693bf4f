//! The recent tokens and the penalties on them.

use std::collections::{HashMap, VecDeque};

use super::SamplingOptions;

/// The last n tokens and how often each occurs among them.
#[derive(Clone, Debug)]
pub(super) struct History {
    last_n: usize,
    tokens: VecDeque<u32>,
    counts: HashMap<u32, u32>,
}

impl History {
    /// A history that records only if the options have a use for it.
    pub(super) fn new(options: &SamplingOptions) -> Self {
        let penalizes =
            options.repeat_penalty != 1.0 || options.presence_penalty != 0.0 || options.frequency_penalty != 0.0;
        let last_n = if penalizes {
            usize::try_from(options.repeat_last_n).unwrap_or(usize::MAX)
        } else {
            0
        };
        let room = last_n.min(1 << 12);
        // Twice the room, so that the map never grows over the keys that were removed.
        Self {
            last_n,
            tokens: VecDeque::with_capacity(room),
            counts: HashMap::with_capacity(2 * room + 2),
        }
    }

    pub(super) fn accept(&mut self, token: u32) {
        if self.last_n == 0 {
            return;
        }
        if self.tokens.len() == self.last_n {
            self.forget_oldest();
        }
        self.tokens.push_back(token);
        *self.counts.entry(token).or_insert(0) += 1;
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.tokens.pop_front() else { return };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }

    /// Lowers the logits of the tokens in the history: first by the factor, then by what is subtracted.
    pub(super) fn penalize(&self, options: &SamplingOptions, logits: &mut [f32]) {
        for (&token, &count) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize) else {
                continue;
            };
            let scaled = if *logit > 0.0 {
                *logit / options.repeat_penalty
            } else {
                *logit * options.repeat_penalty
            };
            *logit = scaled - (count as f32 * options.frequency_penalty + options.presence_penalty);
        }
    }
}
