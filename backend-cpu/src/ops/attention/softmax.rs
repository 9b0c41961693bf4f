//! States of the online softmax of a query (Milakov and Gimelshein 2018, arXiv:1805.02867).
//!
//! A state is a slice: the weighted sum of values, then the largest score, then the sum of weights, both relative to the
//! largest score; between them there may be padding.

use crate::{
    lanes::{Lanes, exp, kernel},
    view::{PackedF32, Real},
};

/// Below all scores: where nothing was seen.
pub const LOWEST: f32 = f32::MIN;

/// Values of the state of a query, in whole cache lines.
pub fn size(hd_v: usize) -> usize {
    (hd_v + 2).next_multiple_of(16)
}

/// The weighted sum (padded), the largest score and the sum of weights of a state.
#[inline(always)]
fn split(state: &[f32]) -> (&[f32], [f32; 2]) {
    match state.split_last_chunk() {
        Some((sum, ends)) => (sum, *ends),
        None => (state, [LOWEST, 0.0]),
    }
}

/// A state that has seen nothing.
pub fn reset(state: &mut [f32]) {
    state.fill(0.0);
    set_ends(state, LOWEST, 0.0);
}

/// Sets the largest score and the sum of weights.
#[inline(always)]
pub fn set_ends(state: &mut [f32], top: f32, weight: f32) {
    if let Some(ends) = state.last_chunk_mut() {
        *ends = [top, weight];
    }
}

/// Writes a state.
pub fn write(state: &mut [f32], sum: &[f32], top: f32, weight: f32) {
    state[..sum.len()].copy_from_slice(sum);
    set_ends(state, top, weight);
}

kernel! {
    /// Adds the state of a part to the state of a query.
    pub fn merge(state: &mut [f32], part: &[f32]) {
        let (_, [top, weight]) = split(state);
        let (sum, [part_top, part_weight]) = split(part);
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
        let (sum, ends) = split(state);
        let scale = share::<L>(ends, sink);
        for (y, x) in y.iter_mut().zip(sum) {
            *y = x * scale;
        }
    }
}

/// What a weighted sum is multiplied with to be an average.
#[inline(always)]
fn share<L: Lanes>([top, weight]: [f32; 2], sink: Option<PackedF32>) -> f32 {
    let (mut keep, mut weight) = (1.0, weight);
    if let Some(sink) = sink.map(Real::get) {
        let highest = if sink > top { sink } else { top };
        keep = exp::<L>(top - highest);
        weight = weight * keep + exp::<L>(sink - highest);
    }
    keep / weight
}
