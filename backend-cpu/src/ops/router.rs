//! `top_k`, `pick` and `combine`: choosing experts and streams, and adding them up.

use std::cmp::Ordering;

use backend_api::operations::{PickMode, word};

use super::{elementwise::started, split};
use crate::{
    lanes::{axpy, kernel},
    program::{Context, Operands},
    view::View,
};

/// Indices of the k largest entries, descending; ties: the lower index first; NaN below everything.
pub fn top_k(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    let [n, columns, ..] = x.dims();
    split::rows(context, columns, n * output.dims()[0], |t| {
        let x = x.row([t, 0, 0]);
        let mut last = None;
        // SAFETY: columns are disjoint, and `x` shares no byte with the output.
        for id in unsafe { output.row_mut::<i32>([t, 0, 0]) } {
            last = next_largest(x, last);
            *id = last.unwrap_or(0) as i32;
        }
    });
}

/// The first entry in the order of `top_k` that comes after entry `last`.
fn next_largest(x: &[f32], last: Option<usize>) -> Option<usize> {
    let later = |&i: &usize| last.is_none_or(|last| before(x, last, i));
    (0..x.len())
        .filter(later)
        .reduce(|best, i| if before(x, i, best) { i } else { best })
}

fn before(x: &[f32], a: usize, b: usize) -> bool {
    let order = x[b]
        .partial_cmp(&x[a])
        .unwrap_or_else(|| x[a].is_nan().cmp(&x[b].is_nan()));
    order.then(a.cmp(&b)) == Ordering::Less
}

/// Entries by ids: scaled, or as probabilities among the picked or among all.
pub fn pick(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, ids, output) = (operands.input(0), operands.input(1), operands.output());
    let mode = PickMode::from_word(operands.word(word::pick::MODE)).unwrap_or(PickMode::Scale);
    let scale = operands.f32(word::pick::SCALE);
    let [n, columns, ..] = x.dims();
    split::rows(context, columns, 8 * n, |t| {
        let all = x.row([t, 0, 0]);
        // SAFETY: columns are disjoint, and no input shares a byte with the output.
        let y = unsafe { output.row_mut([t, 0, 0]) };
        for (j, y) in y.iter_mut().enumerate() {
            *y = all[ids.i32(j, [t, 0, 0]) as usize];
        }
        let top = match mode {
            PickMode::Scale => return y.iter_mut().for_each(|y| *y *= scale),
            PickMode::SoftmaxPicked => largest(y),
            PickMode::SoftmaxAll => largest(all),
        };
        let sum = match mode {
            PickMode::SoftmaxPicked => exponentials(y, top),
            _ => exponentials(all, top),
        };
        y.iter_mut()
            .for_each(|y| *y = (f64::from(scale) * f64::from(*y - top).exp() / sum) as f32);
    });
}

fn largest(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Σ e^(x − top).
fn exponentials(x: &[f32], top: f32) -> f64 {
    x.iter().map(|&x| f64::from(x - top).exp()).sum()
}

/// Linear combinations of a few vectors a token.
pub fn combine(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    let (coefficients, base) = (operands.optional(1), operands.optional(2));
    let constant = operands.f32(word::combine::C0);
    split::pieces(context, output, |i, range| {
        // SAFETY: pieces are disjoint, and what is read of `base` was copied.
        let y = unsafe { started(output, base.unwrap_or(output), i, range.clone()) };
        if base.is_none() {
            y.fill(0.0);
        }
        let [j, t, _] = i;
        for k in 0..x.dims()[1] {
            let weight = coefficients.map_or(0.0, |c: &View| c.f32(k, [j, t, 0])) + constant;
            add_scaled(context.kernels, y, weight, &x.row([k, t, 0])[range.clone()]);
        }
    });
}

kernel! {
    fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
        axpy::<L, f32>(y, a, x);
    }
}
