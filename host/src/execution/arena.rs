//! Offsets for things that live for a while, so that those whose lives do not meet share memory.

/// Something that needs memory from one moment to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its length.
    pub bytes: u64,
    /// The first moment.
    pub first: usize,
    /// The last moment.
    pub last: usize,
}

/// An offset for each, a multiple of `alignment`, and the length of the whole. The largest are placed first, each in
/// the smallest gap that holds it.
pub fn assign(lives: &[Lifetime], alignment: u64) -> (Vec<u64>, u64) {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lives[i].bytes));
    let mut offsets = vec![0; lives.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(lives.len());
    for i in order {
        let mut busy: Vec<(u64, u64)> = placed
            .iter()
            .filter(|&&j| lives[j].first <= lives[i].last && lives[i].first <= lives[j].last)
            .map(|&j| (offsets[j], offsets[j] + lives[j].bytes))
            .collect();
        busy.sort_unstable();
        offsets[i] = smallest_gap(&busy, lives[i].bytes, alignment);
        placed.push(i);
    }
    let total = lives
        .iter()
        .zip(&offsets)
        .map(|(life, offset)| offset + life.bytes)
        .max()
        .unwrap_or(0);
    (offsets, total)
}

/// The start of the smallest gap of at least `bytes` between busy ranges, sorted by start; else their end.
fn smallest_gap(busy: &[(u64, u64)], bytes: u64, alignment: u64) -> u64 {
    let mut best: Option<(u64, u64)> = None;
    let mut end = 0u64;
    for &(start, stop) in busy {
        if start >= end + bytes && best.is_none_or(|(size, _)| start - end < size) {
            best = Some((start - end, end));
        }
        end = end.max(stop.next_multiple_of(alignment));
    }
    best.map_or(end, |(_, offset)| offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn life(bytes: u64, first: usize, last: usize) -> Lifetime {
        Lifetime { bytes, first, last }
    }

    #[test]
    fn what_never_meets_shares_memory() {
        assert_eq!(assign(&[life(64, 0, 1), life(64, 2, 3)], 64), (vec![0, 0], 64));
    }

    #[test]
    fn what_meets_for_a_moment_does_not() {
        assert_eq!(assign(&[life(64, 0, 1), life(64, 1, 3)], 64), (vec![0, 64], 128));
    }

    #[test]
    fn a_small_one_goes_into_the_smallest_gap() {
        // 0–256 and 320–640 are taken at moment 1, and 64 bytes fit between them
        let lives = [life(320, 1, 2), life(256, 0, 1), life(64, 1, 1)];
        let (offsets, total) = assign(&lives, 64);
        assert_eq!((offsets[2], total), (576, 640));
    }

    proptest! {
        #[test]
        fn nothing_overlaps(lives in prop::collection::vec((1u64..500, 0usize..20, 0usize..6), 0..40)) {
            let lives: Vec<_> = lives.into_iter().map(|(b, first, n)| life(b, first, first + n)).collect();
            let (offsets, total) = assign(&lives, 32);
            for (i, a) in lives.iter().enumerate() {
                prop_assert!(offsets[i] % 32 == 0 && offsets[i] + a.bytes <= total);
                for (j, b) in lives.iter().enumerate().take(i) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    prop_assert!(!together || apart);
                }
            }
        }
    }
}
