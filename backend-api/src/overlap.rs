//! Which views share bytes.
//!
//! Views interleave: q and k side by side in every column, every second row of a weight. So ranges of bytes decide
//! nothing; whether two runs of adjacent bytes meet is a small integer problem, and it is solved exactly.

use crate::graph::Tensor;

/// Steps of the search before it gives up and reports an overlap. Views with nested strides need a handful.
const BUDGET: u32 = 20_000;

/// Whether two views share a byte at the largest step. Views of different buffers never do. Exact, but that views whose
/// strides do not nest in any way, or are not positive, may be reported as overlapping.
pub fn overlap(a: &Tensor, b: &Tensor) -> bool {
    let (Some(x), Some(y)) = (Runs::of(a), Runs::of(b)) else {
        return false;
    };
    let negated = y.steps.iter().map(|s| Multiple {
        low: -s.high,
        high: 0,
        ..*s
    });
    let terms = merged(x.steps.iter().copied().chain(negated));
    let offset = x.start - y.start;
    a.buffer == b.buffer && meets(&terms, 1 - x.run - offset, y.run - 1 - offset)
}

/// Whether two elements of a view share a byte, so that it cannot be written.
pub fn overlaps_itself(view: &Tensor) -> bool {
    let Some(Runs { steps, run, .. }) = Runs::of(view) else {
        return false;
    };
    let both_ways = |s: &Multiple| Multiple { low: -s.high, ..*s };
    (0..steps.len()).any(|first| {
        let later = steps[first + 1..].iter().map(both_ways);
        let mut differing = vec![Multiple { low: 1, ..steps[first] }];
        differing.extend(later);
        differing.sort_by_key(|s| std::cmp::Reverse(s.stride));
        meets(&differing, 1 - run, run - 1)
    })
}

/// A term stride·x with x from `low` to `high`.
#[derive(Clone, Copy)]
struct Multiple {
    stride: i128,
    low: i128,
    high: i128,
}

/// A view as runs of `run` adjacent bytes: they start at `start` plus a sum of multiples, each from 0.
struct Runs {
    start: i128,
    run: i128,
    steps: Vec<Multiple>,
}

impl Runs {
    /// `None` for a view without elements.
    fn of(view: &Tensor) -> Option<Runs> {
        let ty = view.kind()?;
        let mut counts = view.dims;
        counts[0] = counts[0].div_ceil(ty.block_values() as u32);
        let (mut run, mut steps) = (ty.block_bytes() as i128, Vec::new());
        for (count, stride) in counts.into_iter().zip(view.strides.map(i128::from)) {
            match i128::from(count) {
                0 => return None,
                1 => {}
                count if steps.is_empty() && stride == run => run *= count,
                count => steps.push(Multiple {
                    stride,
                    low: 0,
                    high: count - 1,
                }),
            }
        }
        Some(Runs {
            start: view.offset.into(),
            run,
            steps,
        })
    }
}

/// The terms with those of one stride put together, largest stride first.
fn merged(terms: impl Iterator<Item = Multiple>) -> Vec<Multiple> {
    let mut terms: Vec<_> = terms.collect();
    terms.sort_by_key(|t| std::cmp::Reverse(t.stride));
    terms.dedup_by(|next, kept| {
        let same = next.stride == kept.stride;
        if same {
            kept.low += next.low;
            kept.high += next.high;
        }
        same
    });
    terms
}

/// Whether some sum of the terms, strides falling, lies from `low` to `high`. True without a search where a stride is
/// not positive, which no proper view has.
fn meets(terms: &[Multiple], low: i128, high: i128) -> bool {
    let mut search = Search { budget: BUDGET };
    terms.iter().any(|t| t.stride <= 0) || search.reaches(terms, low, high)
}

struct Search {
    budget: u32,
}

impl Search {
    /// As [`meets`], for positive strides.
    fn reaches(&mut self, terms: &[Multiple], low: i128, high: i128) -> bool {
        let Some((term, rest)) = terms.split_first() else {
            return low <= 0 && 0 <= high;
        };
        if self.budget == 0 {
            return true;
        }
        self.budget -= 1;
        let least: i128 = rest.iter().map(|t| t.stride * t.low).sum();
        let most: i128 = rest.iter().map(|t| t.stride * t.high).sum();
        let first = -(most - low).div_euclid(term.stride);
        let last = (high - least).div_euclid(term.stride);
        (first.max(term.low)..=last.min(term.high))
            .any(|x| self.reaches(rest, low - x * term.stride, high - x * term.stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Type;

    fn view(dims: [u32; 4], strides: [i64; 4], offset: u64) -> Tensor {
        Tensor {
            strides,
            ..Tensor::contiguous(Type::F32, dims, 0, offset).unwrap()
        }
    }

    #[test]
    fn views_side_by_side_in_every_column_are_disjoint() {
        let q = view([8, 5, 1, 1], [4, 48, 0, 0], 0);
        let k = view([4, 5, 1, 1], [4, 48, 0, 0], 32);
        assert!(!overlap(&q, &k) && !overlap(&k, &q));
        assert!(overlap(&q, &view([5, 5, 1, 1], [4, 48, 0, 0], 28)));
        assert!(overlap(&q, &view([8, 5, 1, 1], [4, 44, 0, 0], 32)));
    }

    #[test]
    fn heads_of_a_fused_output_are_disjoint_from_its_other_heads() {
        let q = view([4, 2, 6, 1], [4, 16, 64, 0], 0);
        let k = view([4, 2, 6, 1], [4, 16, 64, 0], 32);
        assert!(!overlap(&q, &k));
        assert!(overlap(&q, &view([4, 3, 6, 1], [4, 16, 64, 0], 16)));
    }

    #[test]
    fn streams_and_alternate_elements_are_disjoint() {
        let even = view([4, 3, 1, 1], [8, 32, 0, 0], 0);
        let odd = view([4, 3, 1, 1], [8, 32, 0, 0], 4);
        assert!(!overlap(&even, &odd));
        assert!(overlap(&even, &even));
        let stream = |i: u64| view([8, 3, 1, 1], [4, 4 * 32, 0, 0], 32 * i);
        assert!(!overlap(&stream(0), &stream(3)));
        assert!(!overlap(&stream(1), &view([8, 3, 3, 1], [4, 32, 128, 0], 128 * 3)));
    }

    #[test]
    fn views_that_the_search_cannot_decide_count_as_overlapping() {
        let a = view([8, 2, 1, 1], [4, 0, 0, 0], 0);
        assert!(overlaps_itself(&a) && overlap(&a, &view([8, 2, 1, 1], [4, -32, 0, 0], 4096)));
    }

    #[test]
    fn other_buffers_and_empty_views_never_overlap() {
        let a = view([8, 1, 1, 1], [4, 0, 0, 0], 0);
        assert!(!overlap(&a, &Tensor { buffer: 1, ..a }));
        assert!(!overlap(&a, &view([8, 0, 1, 1], [4, 32, 0, 0], 0)));
    }

    #[test]
    fn the_search_agrees_with_counting_bytes() {
        let views: Vec<Tensor> = [
            (3, 12, 2, 40),
            (2, 8, 3, 20),
            (5, 4, 2, 36),
            (2, 20, 4, 8),
            (1, 4, 3, 28),
        ]
        .into_iter()
        .flat_map(|(n, s, m, t)| [0, 4, 12].map(|o| view([n, m, 1, 1], [s, t, 0, 0], o)))
        .collect();
        let elements = |v: &Tensor| -> Vec<i64> {
            let starts = (0..i64::from(v.dims[1])).flat_map(|j| (0..i64::from(v.dims[0])).map(move |i| (i, j)));
            let mut all: Vec<_> = starts
                .map(|(i, j)| v.offset as i64 + i * v.strides[0] + j * v.strides[1])
                .collect();
            all.sort();
            all
        };
        for a in &views {
            let own = elements(a);
            assert_eq!(overlaps_itself(a), own.windows(2).any(|w| w[1] - w[0] < 4), "{a:?}");
            for b in &views {
                let other = elements(b);
                let expected = own.iter().any(|x| other.iter().any(|y| (x - y).abs() < 4));
                assert_eq!(overlap(a, b), expected, "{a:?} {b:?}");
            }
        }
    }
}
