//! The merge loop of byte pair encoding, shared by both kinds of vocabulary.
//!
//! Neighbouring symbols are joined, best pair first and the leftmost of equals, until no pair can be
//! joined. Symbols form a doubly linked list and pairs wait in a heap, so `n` symbols take
//! O(n log n), however long the text is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

const NONE: usize = usize::MAX;

/// A run of the text. One that was joined into its left neighbour has length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Offset of its first byte in the text.
    pub(super) start: usize,
    /// Length in bytes.
    pub(super) len: usize,
    /// Its piece, if it is one.
    pub(super) id: Option<u32>,
    previous: usize,
    next: usize,
}

/// What two neighbours would become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// Lowest is joined first.
    pub(super) order: u32,
    /// The piece that results.
    pub(super) id: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    order: u32,
    left: usize,
    right: usize,
    len: usize,
    id: u32,
}

/// The loop's working memory, kept between words.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts over with no symbols.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Appends a symbol of `len` > 0 bytes after those already there.
    pub(super) fn push(&mut self, len: usize, id: Option<u32>) {
        let previous = self.symbols.len().checked_sub(1);
        let start = previous.map_or(0, |at| self.symbols[at].start + self.symbols[at].len);
        if let Some(at) = previous {
            self.symbols[at].next = at + 1;
        }
        self.symbols.push(Symbol {
            start,
            len,
            id,
            previous: previous.unwrap_or(NONE),
            next: NONE,
        });
    }

    /// Joins until `join` knows no pair.
    pub(super) fn run(&mut self, mut join: impl FnMut(&Symbol, &Symbol) -> Option<Joined>) {
        self.heap.clear();
        for left in 1..self.symbols.len() {
            self.consider(left - 1, left, &mut join);
        }
        while let Some(Reverse(best)) = self.heap.pop() {
            if self.is_current(&best) {
                self.apply(&best);
                let Symbol { previous, next, .. } = self.symbols[best.left];
                self.consider(previous, best.left, &mut join);
                self.consider(best.left, next, &mut join);
            }
        }
    }

    /// The symbols that are left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn consider(&mut self, left: usize, right: usize, join: &mut impl FnMut(&Symbol, &Symbol) -> Option<Joined>) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&self.symbols[left], &self.symbols[right]);
        if let Some(Joined { order, id }) = join(a, b) {
            self.heap.push(Reverse(Candidate {
                order,
                left,
                right,
                len: a.len + b.len,
                id,
            }));
        }
    }

    /// Symbols only grow to the right or disappear, so two that are both alive and as long together
    /// as they were are the same two.
    fn is_current(&self, candidate: &Candidate) -> bool {
        let (a, b) = (self.symbols[candidate.left].len, self.symbols[candidate.right].len);
        a > 0 && b > 0 && a + b == candidate.len
    }

    fn apply(&mut self, candidate: &Candidate) {
        let next = self.symbols[candidate.right].next;
        self.symbols[candidate.right].len = 0;
        let left = &mut self.symbols[candidate.left];
        (left.len, left.id, left.next) = (candidate.len, Some(candidate.id), next);
        if next != NONE {
            self.symbols[next].previous = candidate.left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(text: &str, join: impl Fn(&str, &str) -> Option<u32>) -> Vec<&str> {
        let mut merger = Merger::default();
        text.chars().for_each(|c| merger.push(c.len_utf8(), None));
        let part = |s: &Symbol| &text[s.start..s.start + s.len];
        let joined = |a: &Symbol, b: &Symbol| join(part(a), part(b)).map(|order| Joined { order, id: 0 });
        merger.run(joined);
        merger.symbols().map(part).collect()
    }

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_of_equals() {
        let order = |a: &str, b: &str| {
            ["bc", "ab", "aa"]
                .iter()
                .position(|p| *p == format!("{a}{b}"))
                .map(|at| at as u32)
        };
        assert_eq!(merge("abc", order), ["a", "bc"]);
        assert_eq!(merge("aaaaa", order), ["aa", "aa", "a"]);
        assert_eq!(merge("", order), [""; 0]);
    }

    #[test]
    fn a_pair_whose_neighbour_was_taken_is_forgotten() {
        let order = |a: &str, b: &str| {
            ["ab", "bc", "abcd", "cd"]
                .iter()
                .position(|p| *p == format!("{a}{b}"))
                .map(|at| at as u32)
        };
        assert_eq!(merge("abcd", order), ["abcd"]);
        assert_eq!(merge("abc", order), ["ab", "c"]);
    }
}
