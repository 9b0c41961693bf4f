//! The sums of a part: the query heads of one column that share a KV head pass over positions together.
//!
//! Keys and values are read once for as many heads as the registers hold, and widened on the way. A score is added up in
//! lanes, and the lanes of 16 scores together; the order depends on nothing but the width of a head.

#![allow(clippy::needless_range_loop)] // heads, rows and vectors of registers are numbered

use std::ops::Range;

use super::{WIDEST, softmax::LOWEST};
use crate::lanes::{Lanes, WIDTH, exp, kernel, prefetch, tanh};

/// Query heads of a part at most.
pub const HEADS: usize = 8;
/// Positions that are scored at a time, at most.
pub const CELLS: usize = 64;

/// What a key or value is made of.
pub trait Element: Copy {
    /// Numbers in it.
    const NUMBERS: usize;
    /// Vector `v` of a row.
    fn load<L: Lanes>(row: &[Self], v: usize) -> L::V;
}

impl Element for f32 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn load<L: Lanes>(row: &[f32], v: usize) -> L::V {
        L::load(&row.as_chunks().0[v])
    }
}

/// The bits of f16.
impl Element for u16 {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn load<L: Lanes>(row: &[u16], v: usize) -> L::V {
        L::widen(&row.as_chunks().0[v])
    }
}

/// A block of q8_0.
pub type Q8 = [u8; 34];

impl Element for Q8 {
    const NUMBERS: usize = 32;

    #[inline(always)]
    fn load<L: Lanes>(row: &[Q8], v: usize) -> L::V {
        let [d0, d1, codes @ ..] = &row[v / 2];
        let codes = L::bytes(&codes.as_chunks().0[v % 2]);
        L::mul_add(codes, L::splat_half(u16::from_le_bytes([*d0, *d1])), L::splat(0.0))
    }
}

/// A block of q4_0.
pub type Q4 = [u8; 18];

impl Element for Q4 {
    const NUMBERS: usize = 32;

    #[inline(always)]
    fn load<L: Lanes>(row: &[Q4], v: usize) -> L::V {
        let [d0, d1, codes @ ..] = &row[v / 2];
        let codes = L::nibbles(codes, v % 2 == 1);
        L::mul_add(codes, L::splat_half(u16::from_le_bytes([*d0, *d1])), L::splat(0.0))
    }
}

/// Keys or values of the positions from `first` on, a number of vectors wide, each `step` elements from the one before.
#[derive(Clone, Copy)]
pub struct Rows<'a, E> {
    pub data: &'a [E],
    pub step: usize,
    pub first: usize,
    pub vectors: usize,
}

impl<'a, E: Element> Rows<'a, E> {
    #[inline(always)]
    fn row(&self, i: usize) -> &'a [E] {
        let at = (i - self.first) * self.step;
        &self.data[at..at + self.vectors * WIDTH / E::NUMBERS]
    }
}

/// Queries, multiplied with what scores are, and what they have seen so far.
#[repr(C, align(64))]
pub struct State {
    pub q: [[f32; WIDEST]; HEADS],
    pub sums: [[f32; WIDEST]; HEADS],
    /// The largest score and the sum of weights.
    pub ends: [[f32; 2]; HEADS],
    /// Scores of the positions at work, then their weights.
    pub scores: [[f32; CELLS]; HEADS],
    /// What the sums keep when those are added.
    pub keeps: [f32; HEADS],
}

impl State {
    /// Queries that are still 0 and have seen nothing.
    pub fn new() -> State {
        State {
            q: [[0.0; WIDEST]; HEADS],
            sums: [[0.0; WIDEST]; HEADS],
            ends: [[LOWEST, 0.0]; HEADS],
            scores: [[0.0; CELLS]; HEADS],
            keeps: [0.0; HEADS],
        }
    }

    /// Lets the first queries have seen nothing.
    pub fn reset(&mut self, heads: usize, hd_v: usize) {
        self.sums[..heads].iter_mut().for_each(|sum| sum[..hd_v].fill(0.0));
        self.ends[..heads].fill([LOWEST, 0.0]);
    }
}

/// What the queries of a part have before them.
pub struct Sight<'a, E> {
    pub keys: Rows<'a, E>,
    pub values: Rows<'a, E>,
    /// The positions that they see, all of which keys and values have.
    pub seen: Range<usize>,
    /// The keys and values that will be read after that.
    pub soon: [&'a [u8]; 2],
}

/// Defines [`attend`] for an element.
macro_rules! attend_to {
    ($name:ident, $element:ty) => {
        kernel! {
            /// Adds what is seen to the sums of the first `heads` heads.
            pub fn $name(state: &mut State, heads: usize, sight: Sight<'_, $element>, softcap: f32) {
                attend::<L, $element>(state, heads, sight, softcap);
            }
        }
    };
}

attend_to!(attend_f32, f32);
attend_to!(attend_f16, u16);
attend_to!(attend_q8_0, Q8);
attend_to!(attend_q4_0, Q4);

#[inline(always)]
fn attend<L: Lanes, N: Element>(state: &mut State, heads: usize, sight: Sight<'_, N>, softcap: f32) {
    let Sight {
        keys,
        values,
        seen,
        soon: [soon, _],
    } = sight;
    let mut head = 0;
    while head < heads {
        head += match heads - head {
            6 if L::ROOMY => score::<L, N, 6>(state, head, keys, &seen, values.data),
            4 | 7.. if L::ROOMY => score::<L, N, 4>(state, head, keys, &seen, values.data),
            3 | 5 if L::ROOMY => score::<L, N, 3>(state, head, keys, &seen, values.data),
            2 if L::ROOMY => score::<L, N, 2>(state, head, keys, &seen, values.data),
            _ => score::<L, N, 1>(state, head, keys, &seen, values.data),
        };
    }
    soften::<L>(state, heads, &seen, softcap);
    let mut head = 0;
    while head < heads {
        head += match heads - head {
            6 if L::ROOMY => weigh::<L, N, 6>(state, head, values, &seen, soon),
            4 | 7.. if L::ROOMY => weigh::<L, N, 4>(state, head, values, &seen, soon),
            3 | 5 if L::ROOMY => weigh::<L, N, 3>(state, head, values, &seen, soon),
            2 if L::ROOMY => weigh::<L, N, 2>(state, head, values, &seen, soon),
            _ => weigh::<L, N, 1>(state, head, values, &seen, soon),
        };
    }
}

/// Scores the positions `seen`, and others of the same 16 with what they do not matter, for `H` heads from number `head`
/// on; gives H.
#[inline(always)]
fn score<L: Lanes, N: Element, const H: usize>(
    state: &mut State,
    head: usize,
    keys: Rows<'_, N>,
    seen: &Range<usize>,
    soon: &[N],
) -> usize {
    let zero = L::splat(0.0);
    let vectors = keys.vectors.min(WIDEST / WIDTH);
    let q = &state.q[head..head + H];
    for first in (seen.start / WIDTH * WIDTH..seen.end).step_by(WIDTH) {
        let mut folded = [[zero; 4]; H];
        for quad in 0..4 {
            if head == 0 {
                prefetch(soon, first % CELLS / 4 + quad, CELLS / 4);
            }
            let at = |i: usize| (first + 4 * quad + i).clamp(seen.start, seen.end - 1);
            let [a, b, c, d] = [at(0), at(1), at(2), at(3)];
            let [a, b, c, d] = [keys.row(a), keys.row(b), keys.row(c), keys.row(d)];
            let mut sums = [[zero; 4]; H];
            for v in 0..vectors {
                let key = [
                    N::load::<L>(a, v),
                    N::load::<L>(b, v),
                    N::load::<L>(c, v),
                    N::load::<L>(d, v),
                ];
                for h in 0..H {
                    let q = L::load(&q[h].as_chunks().0[v]);
                    for i in 0..4 {
                        sums[h][i] = L::mul_add(q, key[i], sums[h][i]);
                    }
                }
            }
            for h in 0..H {
                folded[h][quad] = L::fold(sums[h]);
            }
        }
        for h in 0..H {
            let scores = &mut state.scores[head + h].as_chunks_mut::<WIDTH>().0[first / WIDTH];
            *scores = L::store(L::totals(folded[h]));
        }
    }
    H
}

/// Makes weights of scores, and notes what older sums keep. Heads are taken step by step together: those of one would wait
/// for each other.
#[inline(always)]
pub fn soften<L: Lanes>(state: &mut State, heads: usize, seen: &Range<usize>, softcap: f32) {
    let blocks = seen.start / WIDTH..seen.end.div_ceil(WIDTH).min(CELLS / WIDTH);
    let heads = heads.min(HEADS);
    let mut highest = [0.0; HEADS];
    for head in 0..heads {
        let scores = &mut state.scores[head];
        if softcap > 0.0 {
            scores.iter_mut().for_each(|z| *z = softcap * tanh::<L>(*z));
        }
        scores[blocks.start * WIDTH..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..blocks.end * WIDTH].fill(f32::NEG_INFINITY);
        let mut largest = L::splat(state.ends[head][0]);
        for z in &scores.as_chunks().0[blocks.clone()] {
            largest = L::max(L::load(z), largest);
        }
        highest[head] = L::largest(largest);
    }
    let (one, zero) = (L::splat(1.0), L::splat(0.0));
    for head in 0..heads {
        let less = L::splat(-highest[head]);
        let mut total = zero;
        for z in &mut state.scores[head].as_chunks_mut().0[blocks.clone()] {
            let weights = L::exp(L::mul_add(L::load(z), one, less));
            *z = L::store(weights);
            total = L::mul_add(weights, one, total);
        }
        let [top, weight] = state.ends[head];
        let keep = if highest[head] > top {
            exp::<L>(top - highest[head])
        } else {
            1.0
        };
        state.keeps[head] = keep;
        state.ends[head] = [highest[head], weight * keep + L::total(total)];
    }
}

/// Vectors of a sum that are in registers at a time.
const VECTORS: usize = 4;

/// Adds the weighted values of the positions `seen` to the sums of `H` heads from number `head` on; gives H.
#[inline(always)]
fn weigh<L: Lanes, N: Element, const H: usize>(
    state: &mut State,
    head: usize,
    values: Rows<'_, N>,
    seen: &Range<usize>,
    soon: &[u8],
) -> usize {
    let vectors = values.vectors.min(WIDEST / WIDTH);
    let mut v = 0;
    while v + VECTORS <= vectors {
        let soon = if head + v == 0 { soon } else { &[] };
        weigh_vectors::<L, N, H, VECTORS>(state, head, values, seen, v, soon);
        v += VECTORS;
    }
    while v < vectors {
        weigh_vectors::<L, N, H, 1>(state, head, values, seen, v, &[]);
        v += 1;
    }
    H
}

#[inline(always)]
fn weigh_vectors<L: Lanes, N: Element, const H: usize, const C: usize>(
    state: &mut State,
    head: usize,
    values: Rows<'_, N>,
    seen: &Range<usize>,
    v: usize,
    soon: &[u8],
) {
    let zero = L::splat(0.0);
    let mut sums = [[zero; C]; H];
    for h in 0..H {
        let keep = L::splat(state.keeps[head + h]);
        let old = &state.sums[head + h].as_chunks().0[v..v + C];
        for c in 0..C {
            sums[h][c] = L::mul_add(L::load(&old[c]), keep, zero);
        }
    }
    let weights = &state.scores[head..head + H];
    for i in seen.start..seen.end.min(CELLS) {
        prefetch(soon, i, CELLS);
        let row = values.row(i);
        let mut value = [zero; C];
        for c in 0..C {
            value[c] = N::load::<L>(row, v + c);
        }
        for h in 0..H {
            let weight = L::splat(weights[h][i]);
            for c in 0..C {
                sums[h][c] = L::mul_add(weight, value[c], sums[h][c]);
            }
        }
    }
    for h in 0..H {
        let new = &mut state.sums[head + h].as_chunks_mut().0[v..v + C];
        for c in 0..C {
            new[c] = L::store(sums[h][c]);
        }
    }
}
