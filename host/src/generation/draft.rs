//! Guessing the tokens that come next, from what was said before: prompts and answers repeat themselves.
//!
//! A guess costs little where a step of several tokens takes hardly longer than one of one, and nothing is lost but that
//! time where it is wrong. So steps are timed, it is counted how often guesses would have been right, and as many tokens are
//! guessed as promise the most tokens a second: none, where guessing does not pay.

use std::time::Duration;

use super::ngrams::Ngrams;

/// The most tokens that are guessed at once: a column's bits are the same in steps of up to 8 columns.
pub const MOST_AHEAD: usize = 7;
/// Agreements of so many tokens or more, up to the next, are judged alike.
const AGREEMENTS: [usize; 5] = [0, 3, 4, 5, 9];
/// An agreement of so many tokens is not given up for a newer one.
const FIRM: usize = 4;
/// How much longer a step takes for each more column, before it is known.
const SLOPE: f32 = 0.1;
/// The guesses that are remembered.
const REMEMBERED: f32 = 20.0;
/// The weight of a new step's time.
const NEW_TIME: f32 = 1.0 / 4.0;
/// How fast a time that is not observed any more is doubted.
const DOUBT: f32 = 1.0 / 256.0;

/// Guesses tokens and keeps account of how good its guesses are.
#[derive(Debug)]
pub struct Drafter {
    ngrams: Ngrams,
    source: Option<Source>,
    /// How often guesses were right, by [`AGREEMENTS`].
    chances: [Chance; AGREEMENTS.len()],
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
            chances: [Chance::default(); AGREEMENTS.len()],
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
            self.chances[class(source.agree)].observe(right);
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

    /// Tokens that may follow `tokens`: as many as pay, at least `least` and up to `most`; none where nothing is known.
    pub fn propose(&mut self, tokens: &[u32], least: usize, most: usize) -> &[u32] {
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
            sure *= self.chances[class(agree + i)].value();
            expected += sure;
            let rate = expected / self.times.of(2 + i);
            if rate > best {
                (best, count) = (rate, i + 1);
            }
        }
        &self.draft[..count.max(least)]
    }

    /// Learns how long a step of so many columns took.
    pub fn timed(&mut self, columns: usize, time: Duration) {
        self.times.observe(columns, time.as_secs_f32());
    }
}

fn class(agree: usize) -> usize {
    AGREEMENTS.partition_point(|&least| least <= agree) - 1
}

/// How often something happens, the newest observations counting most.
#[derive(Clone, Copy, Debug, Default)]
struct Chance {
    happened: f32,
    observed: f32,
}

impl Chance {
    /// As Laplace has it: a half, where nothing is known.
    fn value(self) -> f32 {
        (self.happened + 1.0) / (self.observed + 2.0)
    }

    fn observe(&mut self, happened: bool) {
        let fade = (REMEMBERED / (self.observed + 1.0)).min(1.0);
        self.happened = (self.happened + f32::from(u8::from(happened))) * fade;
        self.observed = (self.observed + 1.0) * fade;
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
        let expected = match self.0[0] {
            0.0 => seconds,
            _ => self.of(columns),
        };
        self.0[columns - 1] = expected + (seconds.min(2.0 * expected) - expected) * NEW_TIME;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How much faster tokens come than one by one, where a step of n columns takes `time(n)` milliseconds.
    fn gain(tokens: &[u32], time: impl Fn(usize) -> u64) -> f64 {
        let mut drafter = Drafter::new(tokens.len());
        let (mut end, mut total) = (0, 0);
        while end < tokens.len() {
            end += 1;
            drafter.push(&tokens[..end]);
            let draft = drafter.propose(&tokens[..end], 0, MOST_AHEAD).to_vec();
            let taken = time(1 + draft.len());
            drafter.timed(1 + draft.len(), Duration::from_millis(taken));
            total += taken;
            let right = draft
                .iter()
                .zip(&tokens[end..])
                .take_while(|(guess, token)| guess == token);
            for _ in 0..right.count() {
                end += 1;
                drafter.push(&tokens[..end]);
            }
        }
        tokens.len() as f64 * time(1) as f64 / total as f64
    }

    /// Numbers below `limit`, by a congruential generator of Knuth's.
    fn random(count: usize, limit: u64) -> Vec<u32> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % limit) as u32
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn what_was_said_before_is_guessed_also_beyond_the_end() {
        let mut drafter = Drafter::new(64);
        let tokens = [9, 1, 2, 3, 4, 5, 6, 1, 2, 3];
        drafter.read(&tokens);
        assert_eq!(drafter.propose(&tokens, 7, 7), [4, 5, 6, 1, 2, 3, 4]);
        assert_eq!(drafter.propose(&tokens, 0, 1), [4]);
        assert!(drafter.propose(&tokens, 0, 0).is_empty());
        drafter.read(&[7, 7, 7]);
        assert_eq!(drafter.propose(&[7, 7, 7], 4, 4), [7; 4]);
        drafter.read(&[1, 2]);
        assert!(drafter.propose(&[1, 2], 4, 4).is_empty());
    }

    #[test]
    fn text_that_repeats_comes_faster() {
        let text = random(40, 1 << 20).repeat(10);
        let flat = gain(&text, |columns| 20 + 2 * columns as u64);
        assert!(flat > 3.0, "{flat}");
        let stepped = gain(&text, |columns| if columns > 2 { 40 } else { 20 });
        assert!(stepped > 2.5, "{stepped}");
    }

    #[test]
    fn other_text_comes_hardly_slower() {
        // with so few tokens pairs come again and again, and what follows them is chance
        for limit in [8, 12, 30, 1 << 20] {
            let text = random(3000, limit);
            for slope in [1, 5, 20] {
                let gain = gain(&text, |columns| 20 + slope * columns as u64);
                assert!(gain > 0.97, "{limit} tokens, slope {slope}: {gain}");
            }
        }
    }

    #[test]
    fn where_steps_of_several_columns_take_as_long_as_several_steps_nothing_is_lost() {
        let gain = gain(&random(40, 1 << 20).repeat(20), |columns| 20 * columns as u64);
        assert!(gain > 0.97, "{gain}");
    }

    #[test]
    fn a_step_that_was_held_up_is_soon_forgotten() {
        let mut times = Times::default();
        [1, 4, 4].into_iter().for_each(|columns| times.observe(columns, 1.0));
        times.observe(1, 1000.0);
        assert!(times.of(1) < 1.3, "{times:?}");
        (0..20).for_each(|_| times.observe(4, 1000.0));
        (0..1000).for_each(|_| times.observe(1, 1.0));
        assert!(times.of(4) > 1.3 && times.of(4) < 4.0, "{times:?}");
    }
}
