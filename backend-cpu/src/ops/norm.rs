//! `rms_norm`, `norm_add`, `rms_match` and `sparsify`: what takes a sum over a row first.

use backend_api::operations::word;

use super::{
    elementwise::{broadcast, started},
    split,
};
use crate::{
    lanes::{kernel, squares, sum},
    program::{Context, Operands},
    view::{PackedF32, Real},
};

kernel! {
    /// 1/√(mean(x²) + ε).
    pub fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
        1.0 / (squares::<L>(x) / x.len() as f32 + epsilon).sqrt()
    }
}

kernel! {
    /// y = (y·r)·w.
    pub fn scale_by(y: &mut [f32], r: f32, w: Option<&[PackedF32]>) {
        match w {
            Some(w) => y.iter_mut().zip(w).for_each(|(y, w)| *y = *y * r * w.get()),
            None => y.iter_mut().for_each(|y| *y *= r),
        }
    }
}

/// (x·r)·w with r = 1/√(mean(x²) + ε).
pub fn rms_norm(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    let w = operands.optional(1).map(|w| w.packed_row([0; 3]));
    let epsilon = operands.f32(word::rms_norm::EPSILON);
    let d = output.dims()[0];
    split::rows(context, output.rows(), d, |row| {
        // SAFETY: rows are disjoint, and what is read of `x` was copied.
        let y = unsafe { started(output, x, output.row_index(row), 0..d) };
        let r = inverse_rms(context.kernels, y, epsilon);
        scale_by(context.kernels, y, r, w);
    });
}

kernel! {
    /// y = (y·r)·w + residual.
    fn scale_and_add(y: &mut [f32], r: f32, w: &[PackedF32], residual: &[f32]) {
        for ((y, w), residual) in y.iter_mut().zip(w).zip(residual) {
            *y = *y * r * w.get() + residual;
        }
    }
}

kernel! {
    /// y += (x·r)·w.
    fn add_scaled(y: &mut [f32], r: f32, w: &[PackedF32], x: &[f32]) {
        for ((y, w), x) in y.iter_mut().zip(w).zip(x) {
            *y += x * r * w.get();
        }
    }
}

/// `rms_norm` of x, whose dims above 0 may be 1, and a residual.
pub fn norm_add(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, residual, output) = (operands.input(0), operands.input(2), operands.output());
    let w = operands.input(1).packed_row([0; 3]);
    let epsilon = operands.f32(word::rms_norm::EPSILON);
    let d = output.dims()[0];
    split::rows(context, output.rows(), d, |row| {
        let i = output.row_index(row);
        let r = inverse_rms(context.kernels, x.row(broadcast(x, i)), epsilon);
        if x.is_same(output) {
            // SAFETY: rows are disjoint, and nothing else of `x` is in use.
            let y = unsafe { output.row_mut(i) };
            scale_and_add(context.kernels, y, r, w, residual.row(i));
        } else {
            // SAFETY: rows are disjoint, and what is read of `residual` was copied.
            let y = unsafe { started(output, residual, i, 0..d) };
            add_scaled(context.kernels, y, r, w, x.row(broadcast(x, i)));
        }
    });
}

kernel! {
    fn mean_square(x: &[f32]) -> f32 {
        squares::<L>(x) / x.len() as f32
    }
}

/// x·√(mean ref²)/√(max(mean x², floor)).
pub fn rms_match(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, reference, output) = (operands.input(0), operands.input(1), operands.output());
    let floor = operands.f32(word::rms_match::FLOOR);
    let d = output.dims()[0];
    split::rows(context, output.rows(), 2 * d, |row| {
        let i = output.row_index(row);
        let wanted = mean_square(context.kernels, reference.row(broadcast(reference, i)));
        // SAFETY: rows are disjoint, and what is read of `x` was copied.
        let y = unsafe { started(output, x, i, 0..d) };
        let found = mean_square(context.kernels, y).max(floor);
        scale_by(context.kernels, y, wanted.sqrt() / found.sqrt(), None);
    });
}

kernel! {
    /// y = max(y − (μ + s·σ), 0), σ from a second pass.
    fn keep_largest(y: &mut [f32], s: f32) {
        let n = y.len() as f32;
        let mean = sum(y, |y, lane| lane + y) / n;
        let variance = sum(y, |y, lane| L::fma(y - mean, y - mean, lane)) / n;
        let threshold = mean + s * variance.sqrt();
        for y in y {
            *y = (*y - threshold).max(0.0);
        }
    }
}

/// max(x − (μ + s·σ), 0).
pub fn sparsify(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    let s = operands.f32(word::sparsify::S);
    let d = output.dims()[0];
    split::rows(context, output.rows(), 2 * d, |row| {
        // SAFETY: rows are disjoint, and what is read of `x` was copied.
        let y = unsafe { started(output, x, output.row_index(row), 0..d) };
        keep_largest(context.kernels, y, s);
    });
}
