//! Guessing the tokens that come next, from what was said before: prompts and answers repeat themselves.
//!
//! A guess costs little where a step of several tokens takes hardly longer than one of one, and nothing is lost but that
//! time where it is wrong. So steps are timed, it is counted how often guesses would have been right, and as many tokens are
//! guessed as promise the most tokens a second: none, where guessing does not pay.

use std::time::Duration;

use super::ngrams::Ngrams;

/// The most tokens that are guessed at once: a column's bits are the same in steps of up to 8 columns.
pub const MOST_AHEAD: usize = 7;
/// A longer agreement than this is not told from longer ones.
const LONGEST: usize = 16;
/// An agreement of so many tokens is not given up for a newer one.
const FIRM: usize = 4;
/// How often a guess is right, before it is known.
const CHANCE: f32 = 0.5;
/// How much longer a step takes for each more column, before it is known.
const SLOPE: f32 = 0.1;
/// The weights of a new observation: of a guess, and of a step's time.
const NEW_GUESS: f32 = 1.0 / 12.0;
const NEW_TIME: f32 = 1.0 / 8.0;
/// How fast a time that is not observed any more is doubted.
const DOUBT: f32 = 1.0 / 512.0;

/// Guesses tokens and keeps account of how good its guesses are.
#[derive(Debug)]
pub struct Drafter {
    ngrams: Ngrams,
    source: Option<Source>,
    /// How often a guess after an agreement of so many tokens was right.
    chances: [Chance; LONGEST + 1],
    times: Times,
    draft: [u32; MOST_AHEAD],
}

/// Where the tokens that come next stood before.
#[derive(Clone, Copy, Debug)]
struct Source {
    place: usize,
    /// How many tokens before agree.
    agree: usize,
}

impl Drafter {
    /// For sequences of up to `context` tokens.
    pub fn new(context: usize) -> Drafter {
        Drafter {
            ngrams: Ngrams::new(context),
            source: None,
            chances: [Chance::default(); LONGEST + 1],
            times: Times::default(),
            draft: [0; MOST_AHEAD],
        }
    }

    /// Starts over with a sequence. What was learnt of guesses stays.
    pub fn read(&mut self, tokens: &[u32]) {
        self.source = None;
        for end in 1..=tokens.len() {
            self.go_on(&tokens[..end]);
        }
    }

    /// Takes the last of `tokens` in, which was chosen after the others, and learns from it.
    pub fn push(&mut self, tokens: &[u32]) {
        if let (Some(source), Some(token)) = (self.source, tokens.last()) {
            let right = tokens[source.place] == *token;
            self.chances[source.agree.min(LONGEST)].observe(right);
        }
        self.go_on(tokens);
    }

    fn go_on(&mut self, tokens: &[u32]) {
        let Some(last) = tokens.last() else { return };
        let found = self.ngrams.follow(tokens);
        let goes_on = self
            .source
            .filter(|source| tokens[source.place] == *last)
            .map(|source| Source {
                place: source.place + 1,
                agree: source.agree + 1,
            });
        self.source = goes_on
            .filter(|source| source.agree >= FIRM)
            .or(found.map(|(place, agree)| Source { place, agree }));
    }

    /// Up to `most` tokens that may follow `tokens`, as many as pay.
    pub fn propose(&mut self, tokens: &[u32], most: usize) -> &[u32] {
        let Some(Source { place, agree }) = self.source else {
            return &[];
        };
        let (mut sure, mut expected) = (1.0, 1.0);
        let (mut best, mut count) = (expected / self.times.of(1), 0);
        for i in 0..most.min(MOST_AHEAD) {
            // a source that reaches the end goes on with what is guessed
            self.draft[i] = match tokens.get(place + i) {
                Some(&token) => token,
                None => self.draft[place + i - tokens.len()],
            };
            sure *= self.chances[(agree + i).min(LONGEST)].0;
            expected += sure;
            let rate = expected / self.times.of(2 + i);
            if rate > best {
                (best, count) = (rate, i + 1);
            }
        }
        &self.draft[..count]
    }

    /// Learns how long a step of so many columns took.
    pub fn timed(&mut self, columns: usize, time: Duration) {
        self.times.observe(columns, time.as_secs_f32());
    }
}

/// How often something happens, the newest observations counting most.
#[derive(Clone, Copy, Debug)]
struct Chance(f32);

impl Default for Chance {
    fn default() -> Self {
        Chance(CHANCE)
    }
}

impl Chance {
    fn observe(&mut self, happened: bool) {
        self.0 += (f32::from(u8::from(happened)) - self.0) * NEW_GUESS;
    }
}

/// How long steps take, by their columns, from one column on; in seconds, 0 where it is not known.
#[derive(Debug, Default)]
struct Times([f32; MOST_AHEAD + 1]);

impl Times {
    fn of(&self, columns: usize) -> f32 {
        match self.0[columns - 1] {
            0.0 => self.guessed(columns),
            time => time,
        }
    }

    /// From the nearest smaller step that is known.
    fn guessed(&self, columns: usize) -> f32 {
        let known = (0..columns - 1).rev().find(|&smaller| self.0[smaller] > 0.0);
        let (from, time) = known.map_or((0, 1.0), |smaller| (smaller, self.0[smaller]));
        time * (1.0 + SLOPE * (columns - 1 - from) as f32)
    }

    /// A step that was held up counts for no more than twice what was expected.
    fn observe(&mut self, columns: usize, seconds: f32) {
        let time = match self.0[columns - 1] {
            0.0 => seconds,
            before => before + (seconds.min(2.0 * before) - before) * NEW_TIME,
        };
        self.0[columns - 1] = time;
        self.doubt(columns);
    }

    /// Brings the times of other steps than the one observed closer to what they may be at best, so that they are tried
    /// again if that would pay. Steps of fewer columns take no longer.
    fn doubt(&mut self, columns: usize) {
        let (observed, single) = (self.0[columns - 1], self.0[0]);
        for (more, time) in self
            .0
            .iter_mut()
            .enumerate()
            .filter(|(more, time)| more + 1 != columns && **time > 0.0)
        {
            let least = if more == 0 {
                0.0
            } else {
                single * (1.0 + SLOPE * more as f32)
            };
            *time -= (*time - least).max(0.0) * DOUBT;
            if more + 1 < columns {
                *time = time.min(observed);
            }
        }
    }
}
