//! The online softmax of one query over a chunk, a part, and all of its positions (Milakov and Gimelshein 2018,
//! arXiv:1805.02867).
//!
//! The state of a query is a slice: the weighted sum of values, then the largest score, then the sum of weights, both
//! relative to the largest score; what follows is padding.

use std::ops::Range;

use super::cells::Cells;
use crate::{
    lanes::{Lanes, WIDTH, exp, kernel, padded, sum, tanh, total},
    view::{PackedF32, Real},
};

/// Positions that are scored at a time, at most.
pub const CHUNK: usize = 32;

/// How scores are made of products.
#[derive(Clone, Copy)]
pub struct Scoring {
    /// What q·k is multiplied with.
    pub factor: f32,
    /// c in c·tanh(z/c); 0 for none.
    pub softcap: f32,
}

/// The weighted sum (padded), the largest score and the sum of weights of a state.
#[inline(always)]
fn split(state: &[f32]) -> (&[f32], [f32; 2]) {
    match state.split_last_chunk() {
        Some((sum, ends)) => (sum, *ends),
        None => (state, [f32::NEG_INFINITY, 0.0]),
    }
}

/// A state that has seen nothing.
pub fn reset(state: &mut [f32]) {
    state.fill(0.0);
    set_ends(state, f32::NEG_INFINITY, 0.0);
}

#[inline(always)]
fn set_ends(state: &mut [f32], top: f32, weight: f32) {
    if let Some(ends) = state.last_chunk_mut() {
        *ends = [top, weight];
    }
}

kernel! {
    /// Adds the cells `seen` to a state.
    pub fn attend(
        state: &mut [f32],
        q: &[f32],
        keys: Cells<'_>,
        values: Cells<'_>,
        seen: Range<usize>,
        scoring: Scoring,
    ) {
        let mut weights = [f32::NEG_INFINITY; CHUNK];
        score::<L>(&mut weights, q, keys, seen.clone());
        for z in &mut weights[seen.clone()] {
            *z *= scoring.factor;
        }
        if scoring.softcap > 0.0 {
            for z in &mut weights[seen.clone()] {
                *z = scoring.softcap * tanh::<L>(*z / scoring.softcap);
            }
        }
        let (_, [top, weight]) = split(state);
        let highest = weights.iter().fold(top, |a, &b| if b > a { b } else { a });
        let keep = exp::<L>(top - highest);
        for z in &mut weights {
            *z = exp::<L>(*z - highest);
        }
        set_ends(state, highest, weight * keep + sum::<L>(&weights));
        add_values::<L>(state, keep, &weights, values, seen);
    }
}

/// Rows that go through the query's, or the sum's, registers together.
const ROWS: usize = 8;

/// Sets z to q·k for the cells `seen`.
#[inline(always)]
fn score<L: Lanes>(z: &mut [f32; CHUNK], q: &[f32], keys: Cells<'_>, seen: Range<usize>) {
    let mut i = seen.start;
    while i + ROWS <= seen.end {
        z[i..i + ROWS].copy_from_slice(&dots::<L, ROWS>(q, std::array::from_fn(|r| keys.row(i + r))));
        i += ROWS;
    }
    for (i, z) in (i..seen.end).zip(&mut z[i..]) {
        [*z] = dots::<L, 1>(q, [keys.row(i)]);
    }
}

/// Products of a query and several keys; each one's bits do not depend on the others.
#[inline(always)]
fn dots<L: Lanes, const R: usize>(q: &[f32], rows: [&[f32]; R]) -> [f32; R] {
    let mut sums = [L::splat(0.0); R];
    let (chunks, rest) = q.as_chunks::<WIDTH>();
    let rows = rows.map(|row| row.split_at(WIDTH * chunks.len()));
    let whole = rows.map(|(whole, _)| &whole.as_chunks::<WIDTH>().0[..chunks.len()]);
    for (c, q) in chunks.iter().enumerate() {
        let q = L::load(q);
        for r in 0..R {
            sums[r] = L::mul_add(q, L::load(&whole[r][c]), sums[r]);
        }
    }
    if !rest.is_empty() {
        let q = padded::<L>(rest);
        for r in 0..R {
            sums[r] = L::mul_add(q, padded::<L>(rows[r].1), sums[r]);
        }
    }
    sums.map(total::<L>)
}

/// y = y·keep + Σ weight·v, cell after cell.
#[inline(always)]
fn add_values<L: Lanes>(y: &mut [f32], keep: f32, weights: &[f32; CHUNK], values: Cells<'_>, seen: Range<usize>) {
    let (mut i, mut keep) = (seen.start, keep);
    while i + ROWS <= seen.end {
        let weights = std::array::from_fn(|r| weights[i + r]);
        add_rows::<L, ROWS>(y, keep, weights, std::array::from_fn(|r| values.row(i + r)));
        (i, keep) = (i + ROWS, 1.0);
    }
    for (i, weight) in (i..seen.end).zip(&weights[i..]) {
        add_rows::<L, 1>(y, keep, [*weight], [values.row(i)]);
        keep = 1.0;
    }
}

/// y = y·keep + Σ weight·row, row after row: the bits do not depend on how many come at once.
#[inline(always)]
fn add_rows<L: Lanes, const R: usize>(y: &mut [f32], keep: f32, weights: [f32; R], rows: [&[f32]; R]) {
    let width = rows[0].len();
    let (chunks, rest) = y[..width].as_chunks_mut::<WIDTH>();
    let whole = rows.map(|row| &row.as_chunks::<WIDTH>().0[..chunks.len()]);
    let factors = weights.map(L::splat);
    let (zero, kept) = (L::splat(0.0), L::splat(keep));
    for (c, y) in chunks.iter_mut().enumerate() {
        let mut sum = L::mul_add(L::load(y), kept, zero);
        for r in 0..R {
            sum = L::mul_add(factors[r], L::load(&whole[r][c]), sum);
        }
        *y = L::store(sum);
    }
    let start = width - rest.len();
    for (j, y) in rest.iter_mut().enumerate() {
        *y *= keep;
        for r in 0..R {
            *y = L::fma(weights[r], rows[r][start + j], *y);
        }
    }
}

kernel! {
    /// Adds the state of a part to the state of a query.
    pub fn merge(state: &mut [f32], part: &[f32]) {
        let (_, [top, weight]) = split(state);
        let (sum, [part_top, part_weight]) = split(part);
        if part_weight == 0.0 {
            return;
        }
        let highest = if part_top > top { part_top } else { top };
        let (keep, scale) = (exp::<L>(top - highest), exp::<L>(part_top - highest));
        for (y, x) in state.iter_mut().zip(sum) {
            *y = L::fma(*x, scale, *y * keep);
        }
        set_ends(state, highest, weight * keep + part_weight * scale);
    }
}

kernel! {
    /// The average of the values, in which a sink takes weight but has no value.
    pub fn finish(y: &mut [f32], state: &[f32], sink: Option<PackedF32>) {
        let (sum, [top, weight]) = split(state);
        let (mut keep, mut weight) = (1.0, weight);
        if let Some(sink) = sink.map(Real::get) {
            let highest = if sink > top { sink } else { top };
            keep = exp::<L>(top - highest);
            weight = weight * keep + exp::<L>(sink - highest);
        }
        let scale = keep / weight;
        for (y, x) in y.iter_mut().zip(sum) {
            *y = x * scale;
        }
    }
}
