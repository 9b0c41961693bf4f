//! The paged key/value cache: which page holds which tokens. It counts pages and holds no tensor.
//!
//! A *group* is a set of layers that keep the same tokens: all of them, or the newest within a window. Each group has pages
//! of P tokens, a free list, and a block table `[B, S]` that says for each sequence which page holds its tokens
//! bP … bP + P − 1. Sequences may share pages; a shared page is copied when one of them is about to write to it. Taking a
//! cell, sharing and giving back cost O(1) a page, and nothing here grows with the number of cells.
//!
//! A group with window W keeps, for each sequence, the pages of the newest W + T − 1 tokens, where T is the most tokens a
//! step has. A step of T tokens needs all of these; after smaller ones the surplus lets a sequence be cut by up to T tokens
//! and go on from there.
//!
//! The last tokens of a step may be *ahead*: a guess, to be cut off again if it is wrong. No page slides out because of
//! them, so that a sequence is after the cut as if they had never been.

mod group;
mod prefix;
mod step;
#[cfg(test)]
mod tests;

use group::{Column, Group};
pub use prefix::Prefix;
pub use step::{PageCopy, Step, TableWord};

/// A cell's index (page · P + entry) is an i32 in the step inputs.
const MAX_INDEX: u64 = i32::MAX as u64;
/// Positions are exact as f32 up to here.
pub const MAX_TOKENS: u32 = 1 << 24;

/// One group of layers that keep the same tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How many tokens a token sees, itself included; `None` sees all.
    pub window: Option<u32>,
    /// Pages in the pools of the group.
    pub pages: u32,
}

/// The dimensions of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Tokens a page holds (P): a power of two from 16 to 256.
    pub page_tokens: u32,
    /// Most sequences at a time (S).
    pub sequences: usize,
    /// Most tokens in a sequence, at most 2^24.
    pub context: u32,
    /// Most tokens in a step (T) over all sequences, at most 2^24.
    pub step_tokens: u32,
    /// Most tokens of a sequence in a step that may be ahead.
    pub ahead: u32,
    /// The groups.
    pub groups: Vec<GroupConfig>,
}

impl CacheConfig {
    /// A cache that never runs out of pages: one group for each of `windows`, with [`CacheConfig::pages_needed`] pages.
    pub fn full(page_tokens: u32, sequences: usize, context: u32, step_tokens: u32, windows: &[Option<u32>]) -> Self {
        let mut config = Self {
            page_tokens,
            sequences,
            context,
            step_tokens,
            ahead: 0,
            groups: Vec::new(),
        };
        config.groups = windows
            .iter()
            .map(|&window| GroupConfig {
                window,
                pages: config.pages_needed(window),
            })
            .collect();
        config
    }

    /// The same for steps of which up to `ahead` tokens of each sequence are ahead.
    pub fn with_ahead(mut self, ahead: u32) -> Self {
        self.ahead = ahead;
        for group in 0..self.groups.len() {
            self.groups[group].pages = self.pages_needed(self.groups[group].window);
        }
        self
    }

    /// Entries in a sequence's row of a block table: B = ⌈context / P⌉.
    pub fn blocks(&self) -> usize {
        self.context.div_ceil(self.page_tokens.max(1)) as usize
    }

    /// The pages with which a group can hold every sequence at any length, and fewer cannot: S·⌈context/P⌉ without a
    /// window. With window W a sequence of n tokens holds the L = W + T − 1 from lo = max(0, n − L) on, in
    /// ⌈n/P⌉ − ⌊lo/P⌋ pages. While lo < P the second term is 0 and the first grows with n; from lo = P on the counts repeat.
    /// So the most are held at lo = P − 1, or at n = context where that comes earlier: S·⌈min(context, L + P − 1) / P⌉.
    /// What is ahead comes on top of n: S·⌈min(context, L + P − 1 + ahead) / P⌉. Numbers beyond u32 saturate; [`Cache::new`] refuses them.
    pub fn pages_needed(&self, window: Option<u32>) -> u32 {
        let (p, context) = (u64::from(self.page_tokens.max(1)), u64::from(self.context));
        let tokens = match window {
            None => context,
            Some(w) => {
                let step = u64::from(self.step_tokens) + u64::from(self.ahead);
                context.min((u64::from(w) + step + p).saturating_sub(2))
            }
        };
        let pages = tokens.div_ceil(p).saturating_mul(self.sequences as u64);
        u32::try_from(pages).unwrap_or(u32::MAX)
    }

    /// An error where the dimensions are impossible.
    pub fn check(&self) -> Result<(), CacheError> {
        let require = |holds: bool, what: &dyn Fn() -> String, expected| {
            if holds {
                Ok(())
            } else {
                Err(CacheError::Config { what: what(), expected })
            }
        };
        let page_tokens = self.page_tokens;
        let possible = page_tokens.is_power_of_two() && (16..=256).contains(&page_tokens);
        require(
            possible,
            &|| format!("{page_tokens} tokens a page"),
            "a power of two from 16 to 256",
        )?;
        for (name, tokens) in [("a context", self.context), ("a step", self.step_tokens)] {
            let possible = (1..=MAX_TOKENS).contains(&tokens);
            require(possible, &|| format!("{name} of {tokens} tokens"), "from 1 to 2^24")?;
        }
        let words = (self.blocks() as u64).saturating_mul(self.sequences as u64);
        let possible = (1..=MAX_INDEX).contains(&words);
        require(
            possible,
            &|| format!("{} sequences", self.sequences),
            "from 1 to 2^31 table entries",
        )?;
        for (g, group) in self.groups.iter().enumerate() {
            let cells = u64::from(group.pages) * u64::from(page_tokens);
            require(
                cells <= MAX_INDEX,
                &|| format!("group {g}: {} pages", group.pages),
                "fewer than 2^31 cells",
            )?;
            require(
                group.window != Some(0),
                &|| format!("group {g}: window 0"),
                "at least 1: a token sees itself",
            )?;
        }
        Ok(())
    }
}

/// Why the cache refused. Whatever was refused has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Impossible dimensions.
    #[error("cache: {what}; expected {expected}")]
    Config {
        /// What was asked.
        what: String,
        /// What is possible.
        expected: &'static str,
    },
    /// A group has too few free pages for a step.
    #[error("cache group {group} has too few free pages for this step: {free} of {pages} are free; release a sequence")]
    NoPages {
        /// The group.
        group: usize,
        /// Pages that are free.
        free: u32,
        /// Pages in all.
        pages: u32,
    },
    /// A sequence number that the cache does not have.
    #[error("sequence {sequence} does not exist: the cache holds sequences 0 to {}", sequences - 1)]
    Sequence {
        /// What was asked.
        sequence: usize,
        /// How many there are.
        sequences: usize,
    },
    /// The columns of a step are not in ascending order of their sequences.
    #[error("the columns of a step must have ascending sequences: {sequence} comes after {before}")]
    Order {
        /// The sequence out of order.
        sequence: usize,
        /// The one before it.
        before: usize,
    },
    /// A step has too many tokens.
    #[error("a step of {tokens} tokens is larger than the largest, {step_tokens}")]
    StepTooLarge {
        /// What was asked.
        tokens: u64,
        /// Most tokens in a step.
        step_tokens: u32,
    },
    /// A sequence would outgrow the context.
    #[error("sequence {sequence} has {length} tokens, and {count} more exceed the context of {context}")]
    ContextFull {
        /// The sequence.
        sequence: usize,
        /// Its length.
        length: u32,
        /// New tokens.
        count: u32,
        /// Most tokens in a sequence.
        context: u32,
    },
    /// A sequence cannot be cut or forked at this length.
    #[error(
        "sequence {sequence} of {length} tokens cannot go on at {asked}: the nearest such length below is {resumable}"
    )]
    NotResumable {
        /// The sequence.
        sequence: usize,
        /// Its length.
        length: u32,
        /// The length asked for.
        asked: u32,
        /// Where it can go on.
        resumable: u32,
    },
    /// A sequence forked onto itself.
    #[error("sequence {0} cannot be forked onto itself")]
    SameSequence(usize),
}

/// The page tables of all groups and the lengths of all sequences. A sequence that has no tokens costs nothing.
#[derive(Clone, Debug)]
pub struct Cache {
    config: CacheConfig,
    groups: Vec<Group>,
    lengths: Vec<u32>,
    columns: Vec<Column>,
}

impl Cache {
    /// An empty cache; an error when the dimensions are impossible.
    pub fn new(config: CacheConfig) -> Result<Self, CacheError> {
        config.check()?;
        let groups = config.groups.iter().map(|group| Group::new(&config, group)).collect();
        Ok(Self {
            groups,
            lengths: vec![0; config.sequences],
            columns: Vec::new(),
            config,
        })
    }

    /// The dimensions it was made with.
    pub fn config(&self) -> &CacheConfig {
        &self.config
    }

    /// Takes cells for `count` new tokens of each `(sequence, count)`, sequences ascending, and writes the step inputs to
    /// `step`. The tokens count as stored from here on. The copies and words of the step must be carried out before the
    /// next one begins; where that fails, release its sequences and upload the tables anew.
    pub fn begin(&mut self, columns: &[(usize, u32)], step: &mut Step) -> Result<(), CacheError> {
        self.begin_ahead(columns, 0, step)
    }

    /// As [`Cache::begin`], where the last `ahead` tokens of each sequence may be cut off again by [`Cache::truncate`], at
    /// most [`CacheConfig::ahead`]; the first of a sequence's tokens never is one of them.
    pub fn begin_ahead(&mut self, columns: &[(usize, u32)], ahead: u32, step: &mut Step) -> Result<(), CacheError> {
        self.lay_out(columns, ahead.min(self.config.ahead))?;
        for group in 0..self.groups.len() {
            if self.groups[group].take(&self.columns).is_none() {
                self.groups[..=group].iter_mut().for_each(Group::undo);
                let (free, pages) = (self.free_pages(group), self.pages(group));
                return Err(CacheError::NoPages { group, free, pages });
            }
        }
        step.clear(self.groups.len());
        for (g, group) in self.groups.iter_mut().enumerate() {
            group.describe(g, &self.columns, step);
        }
        self.describe(step);
        Ok(())
    }

    /// Checks the columns of a step and turns counts into positions.
    fn lay_out(&mut self, columns: &[(usize, u32)], ahead: u32) -> Result<(), CacheError> {
        self.columns.clear();
        let (context, step_tokens) = (self.config.context, self.config.step_tokens);
        let tokens = columns.iter().map(|&(_, count)| u64::from(count)).sum();
        if tokens > u64::from(step_tokens) {
            return Err(CacheError::StepTooLarge { tokens, step_tokens });
        }
        if let Some(pair) = columns.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(CacheError::Order {
                sequence: pair[1].0,
                before: pair[0].0,
            });
        }
        for &(sequence, count) in columns {
            let length = self.checked_length(sequence)?;
            if count > context - length {
                return Err(CacheError::ContextFull {
                    sequence,
                    length,
                    count,
                    context,
                });
            }
            if count > 0 {
                self.columns.push(Column {
                    sequence,
                    tokens: length..length + count,
                    stays: length + (count - ahead.min(count - 1)),
                });
            }
        }
        Ok(())
    }

    fn describe(&mut self, step: &mut Step) {
        for Column { sequence, tokens, .. } in &self.columns {
            step.starts.resize(sequence + 1, step.positions.len() as i32);
            step.positions.extend(tokens.clone().map(|position| position as i32));
            self.lengths[*sequence] = tokens.end;
        }
        step.starts
            .resize(self.config.sequences + 1, step.positions.len() as i32);
    }

    /// How many tokens a sequence has; 0 for one that does not exist.
    pub fn length(&self, sequence: usize) -> u32 {
        self.lengths.get(sequence).copied().unwrap_or(0)
    }

    /// The longest prefix of at most `wanted` tokens from which evaluation can go on. At n that takes, in each group with
    /// window W, every position from max(0, n − max(W − 1, 1)) to n − 1. A group that lost those of n has lost those of every smaller
    /// length too, so the answer is `wanted`, or the whole length if that is less, or 0.
    pub fn resumable(&self, sequence: usize, wanted: u32) -> u32 {
        let length = wanted.min(self.length(sequence));
        if length > 0 && self.groups.iter().all(|group| group.can_resume(sequence, length)) {
            length
        } else {
            0
        }
    }

    /// Cuts a sequence to its first `length` tokens; an error where evaluation could not go on from there. What was ahead
    /// until now and is not cut off stays, and pages slide out because of it.
    pub fn truncate(&mut self, sequence: usize, length: u32) -> Result<(), CacheError> {
        let before = self.check_resumable(sequence, length)?;
        for group in &mut self.groups {
            group.truncate(sequence, before, length);
        }
        self.lengths[sequence] = length;
        Ok(())
    }

    /// Drops what `to` holds and lets it share the first `length` tokens of `from`; an error where evaluation could not go
    /// on from there. No page is copied before one of the two writes to it.
    pub fn fork(&mut self, from: usize, to: usize, length: u32) -> Result<(), CacheError> {
        self.check_resumable(from, length)?;
        self.checked_length(to)?;
        if from == to {
            return Err(CacheError::SameSequence(from));
        }
        self.release(to)?;
        for group in &mut self.groups {
            group.share(from, to, length);
        }
        self.lengths[to] = length;
        Ok(())
    }

    /// Drops all tokens of a sequence.
    pub fn release(&mut self, sequence: usize) -> Result<(), CacheError> {
        self.truncate(sequence, 0)
    }

    /// The block table of a group, `[B, S]`, for uploading it whole. −1 where there is no page.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn table(&self, group: usize) -> &[i32] {
        self.groups[group].table()
    }

    /// Pages of a group that no sequence holds.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn free_pages(&self, group: usize) -> u32 {
        self.groups[group].free_pages()
    }

    /// Pages of a group in all.
    ///
    /// # Panics
    /// When there is no such group.
    pub fn pages(&self, group: usize) -> u32 {
        self.groups[group].pages()
    }

    fn checked_length(&self, sequence: usize) -> Result<u32, CacheError> {
        let sequences = self.config.sequences;
        self.lengths
            .get(sequence)
            .copied()
            .ok_or(CacheError::Sequence { sequence, sequences })
    }

    fn check_resumable(&self, sequence: usize, asked: u32) -> Result<u32, CacheError> {
        let length = self.checked_length(sequence)?;
        let resumable = self.resumable(sequence, asked);
        if resumable == asked {
            Ok(length)
        } else {
            Err(CacheError::NotResumable {
                sequence,
                length,
                asked,
                resumable,
            })
        }
    }
}
