//! The tokens that are still considered, and the filters that leave fewer of them.

use std::cmp::Ordering;

/// Logits that are compared with the bound at once, so that the comparison is vectorized.
const CHUNK: usize = 64;
/// Candidates that are sorted first when only the front of the order is needed.
const FRONT: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Candidate {
    token: u32,
    /// What decides its rank: the larger the better, on equal keys the lower token.
    key: f32,
    p: f32,
}

fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.key
        .partial_cmp(&a.key)
        .unwrap_or(Ordering::Equal)
        .then(a.token.cmp(&b.token))
}

/// A buffer of candidates, used again for every token. Their order is that of tokens or that of ranks, never one that a
/// library's selection happens to leave, so that a seed has one meaning.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    items: Vec<Candidate>,
}

impl Candidates {
    /// Takes every token whose logit is not −∞, in the order of tokens.
    pub(super) fn take_all(&mut self, logits: &[f32]) {
        self.make_room(logits.len());
        let allowed = (0..).zip(logits).filter(|&(_, &logit)| logit > f32::NEG_INFINITY);
        self.items
            .extend(allowed.map(|(token, &key)| Candidate { token, key, p: 0.0 }));
    }

    /// Takes the k largest logits that are not −∞, in the order of ranks. One pass: what exceeds the k-th largest so far is
    /// collected, and each time 2k are collected, the k smaller ones go and the bound rises.
    pub(super) fn take_largest(&mut self, logits: &[f32], k: usize) {
        self.make_room(logits.len().min(2 * k));
        let mut bound = f32::NEG_INFINITY;
        for (start, chunk) in (0..).step_by(CHUNK).zip(logits.chunks(CHUNK)) {
            if !chunk.iter().fold(false, |any, &logit| any | (logit > bound)) {
                continue;
            }
            for (token, &key) in (start..).zip(chunk) {
                if key > bound {
                    self.items.push(Candidate { token, key, p: 0.0 });
                    if self.items.len() == 2 * k {
                        bound = self.keep_largest(k);
                    }
                }
            }
        }
        if self.items.len() > k {
            self.keep_largest(k);
        }
        self.items.sort_unstable_by(by_rank);
    }

    /// Empties the buffer, which can then take `most` candidates: the first token takes the memory for all others.
    fn make_room(&mut self, most: usize) {
        self.items.clear();
        self.items.reserve(most);
    }

    fn keep_largest(&mut self, k: usize) -> f32 {
        let (_, last, _) = self.items.select_nth_unstable_by(k - 1, by_rank);
        let bound = last.key;
        self.items.truncate(k);
        bound
    }

    /// p = softmax(logit / temperature) over the candidates.
    pub(super) fn softmax(&mut self, temperature: f32) {
        let largest = self.items.iter().map(|c| c.key).fold(f32::NEG_INFINITY, f32::max);
        for candidate in &mut self.items {
            candidate.p = ((candidate.key - largest) / temperature).exp();
        }
        self.normalize();
    }

    fn normalize(&mut self) {
        let total = self.total();
        for candidate in &mut self.items {
            candidate.p = (f64::from(candidate.p) / total) as f32;
        }
    }

    fn total(&self) -> f64 {
        self.items.iter().map(|c| f64::from(c.p)).sum()
    }

    /// Keeps the first in rank that together exceed the probability `mass`.
    pub(super) fn top_p(&mut self, mass: f32) {
        let (mut sum, mut sorted, mut front) = (0.0, 0, FRONT);
        while sorted < self.items.len() {
            let rest = &mut self.items[sorted..];
            if front < rest.len() {
                rest.select_nth_unstable_by(front - 1, by_rank);
            }
            let front_len = front.min(rest.len());
            rest[..front_len].sort_unstable_by(by_rank);
            for (i, candidate) in rest[..front_len].iter().enumerate() {
                sum += f64::from(candidate.p);
                if sum > f64::from(mass) {
                    return self.items.truncate(sorted + i + 1);
                }
            }
            sorted += front_len;
            front *= 8;
        }
    }

    /// Keeps those whose surprise −ln p is nearest to its expectation, the entropy, and that together exceed `mass`.
    pub(super) fn typical(&mut self, mass: f32) {
        let surprise = |p: f32| -f64::from(p).ln();
        let possible = self.items.iter().filter(|c| c.p > 0.0);
        let entropy: f64 = possible.map(|c| f64::from(c.p) * surprise(c.p)).sum();
        for candidate in &mut self.items {
            candidate.key = -(surprise(candidate.p) - entropy).abs() as f32;
        }
        self.top_p(mass);
        self.normalize();
        for candidate in &mut self.items {
            candidate.key = candidate.p;
        }
    }

    /// Keeps those at least `fraction` as probable as the most probable.
    pub(super) fn min_p(&mut self, fraction: f32) {
        let least = fraction * self.items.iter().map(|c| c.p).fold(0.0, f32::max);
        self.items.retain(|candidate| candidate.p >= least);
    }

    /// The candidate at `point`, from 0 to 1, of the candidates' probabilities laid end to end. None if there is none.
    pub(super) fn at(&self, point: f64) -> Option<u32> {
        let point = point * self.total();
        let mut sum = 0.0;
        let possible = || self.items.iter().filter(|candidate| candidate.p > 0.0);
        let found = possible().find(|candidate| {
            sum += f64::from(candidate.p);
            point < sum
        });
        found
            .or_else(|| possible().next_back())
            .map(|candidate| candidate.token)
    }
}

#[cfg(test)]
impl Candidates {
    pub(super) fn tokens(&self) -> Vec<u32> {
        self.items.iter().map(|candidate| candidate.token).collect()
    }

    pub(super) fn probabilities(&self) -> Vec<f32> {
        let total = self.total() as f32;
        self.items.iter().map(|candidate| candidate.p / total).collect()
    }
}
