//! `add`, `mul`, `unary` and `gated`: values by themselves.

use std::ops::Range;

use backend_api::operations::{Gate, UnaryKind, word};

use super::split;
use crate::{
    lanes::{Lanes, exp, kernel, tanh},
    program::{Context, Operands},
    view::{PackedF32, Real, View},
};

/// α·(a + β·b).
pub fn add(context: &Context<'_>, operands: &Operands<'_>) {
    let (alpha, beta) = (operands.f32(word::add::ALPHA), operands.f32(word::add::BETA));
    with_second(
        context,
        operands,
        |y, b| scaled_sum(context.kernels, y, b, alpha, beta),
        |a, b| alpha * (a + beta * b),
    );
}

/// a·b.
pub fn mul(context: &Context<'_>, operands: &Operands<'_>) {
    with_second(context, operands, |y, b| product(context.kernels, y, b), |a, b| a * b);
}

kernel! {
    fn scaled_sum(y: &mut [f32], b: &[PackedF32], alpha: f32, beta: f32) {
        for (y, b) in y.iter_mut().zip(b) {
            *y = alpha * L::fma(beta, b.get(), *y);
        }
    }
}

kernel! {
    fn product(y: &mut [f32], b: &[PackedF32]) {
        for (y, b) in y.iter_mut().zip(b) {
            *y *= b.get();
        }
    }
}

/// Combines `a` with `b`, whose dims above 0 may be 1: `dense` where b's rows are dense, else `single`.
fn with_second(
    context: &Context<'_>,
    operands: &Operands<'_>,
    dense: impl Fn(&mut [f32], &[PackedF32]) + Sync,
    single: impl Fn(f32, f32) -> f32 + Sync,
) {
    let (a, b, output) = (operands.input(0), operands.input(1), operands.output());
    split::pieces(context, output, |i, range| {
        // SAFETY: pieces are disjoint, and what is read of `a` was copied.
        let y = unsafe { started(output, a, i, range.clone()) };
        let at = broadcast(b, i);
        if b.is_dense() {
            dense(y, &b.packed_row(at)[range]);
        } else {
            y.iter_mut().zip(range).for_each(|(y, j)| *y = single(*y, b.f32(j, at)));
        }
    });
}

/// The row of `view` that goes with row `i`, where its dims may be 1.
pub fn broadcast(view: &View, i: [usize; 3]) -> [usize; 3] {
    let dims = view.dims();
    std::array::from_fn(|k| if dims[k + 1] == 1 { 0 } else { i[k] })
}

/// A piece of the output with the values of the input that it may replace.
///
/// # Safety
/// No other reference to the piece is used while the result lives.
#[allow(clippy::mut_from_ref)] // views are addresses, not owners
pub unsafe fn started<'a>(output: &'a View, input: &View, i: [usize; 3], range: Range<usize>) -> &'a mut [f32] {
    // SAFETY: as this function's; the piece lies inside the row.
    let y = unsafe {
        let start = output.row_ptr(i).cast::<f32>().add(range.start);
        std::slice::from_raw_parts_mut(start, range.len())
    };
    if !input.is_same(output) {
        y.copy_from_slice(&input.row(i)[range]);
    }
    y
}

/// out·f(in·x).
pub fn unary(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    let (inner, outer) = (operands.f32(word::unary::IN), operands.f32(word::unary::OUT));
    let is_tanh = operands.word(word::unary::KIND) == UnaryKind::Tanh as u32;
    split::pieces(context, output, |i, range| {
        // SAFETY: pieces are disjoint, and what is read of `x` was copied.
        let y = unsafe { started(output, x, i, range) };
        if is_tanh {
            scaled_tanh(context.kernels, y, inner, outer);
        } else {
            y.iter_mut().for_each(|y| *y = outer * (inner * *y));
        }
    });
}

kernel! {
    fn scaled_tanh(y: &mut [f32], inner: f32, outer: f32) {
        for y in y {
            *y = outer * tanh::<L>(inner * *y);
        }
    }
}

/// The function of a gate, with its parameters: of `gated` and of the fused products.
#[derive(Clone, Copy, Debug)]
pub struct GateFunction {
    kind: Gate,
    alpha: f32,
    limit: f32,
}

impl GateFunction {
    /// From the parameter words; the kind was checked when the graph was compiled.
    pub fn new(kind: u32, alpha: f32, limit: f32) -> GateFunction {
        let kind = Gate::from_word(kind).unwrap_or(Gate::Silu);
        GateFunction { kind, alpha, limit }
    }

    /// y = f(g, u) for every pair; `order` tells which of y and the other is g.
    #[inline(always)]
    fn each<L: Lanes>(self, y: &mut [f32], other: &[f32], order: impl Fn(f32, f32) -> (f32, f32)) {
        let GateFunction { kind, alpha, limit } = self;
        match kind {
            Gate::Silu => zip(y, other, order, |g, u| g / (1.0 + exp::<L>(-g)) * u),
            Gate::GeluTanh => zip(y, other, order, |g, u| {
                // ½(1 + tanh z) = 1/(1 + e^−2z), which keeps its digits where z is far below 0.
                let z = 0.797_884_6 * L::fma(0.044_715 * g * g, g, g);
                g / (1.0 + exp::<L>(-2.0 * z)) * u
            }),
            Gate::SwigluOai => zip(y, other, order, |g, u| {
                let (g, u) = (g.min(limit), u.max(-limit).min(limit));
                g / (1.0 + exp::<L>(-alpha * g)) * (u + 1.0)
            }),
        }
    }
}

#[inline(always)]
fn zip(y: &mut [f32], other: &[f32], order: impl Fn(f32, f32) -> (f32, f32), f: impl Fn(f32, f32) -> f32) {
    for (y, &other) in y.iter_mut().zip(other) {
        let (g, u) = order(*y, other);
        *y = f(g, u);
    }
}

kernel! {
    /// g = f(g, u).
    pub fn gate_by(g: &mut [f32], u: &[f32], function: GateFunction) {
        function.each::<L>(g, u, |g, u| (g, u));
    }
}

kernel! {
    /// u = f(g, u).
    pub fn gate_into(u: &mut [f32], g: &[f32], function: GateFunction) {
        function.each::<L>(u, g, |u, g| (g, u));
    }
}

/// The activation of a gate times the up projection.
pub fn gated(context: &Context<'_>, operands: &Operands<'_>) {
    let (g, u, output) = (operands.input(0), operands.input(1), operands.output());
    let function = GateFunction::new(
        operands.word(word::gated::KIND),
        operands.f32(word::gated::ALPHA),
        operands.f32(word::gated::LIMIT),
    );
    let up_stays = u.is_same(output);
    let (kept, other) = if up_stays { (u, g) } else { (g, u) };
    split::pieces(context, output, |i, range| {
        // SAFETY: pieces are disjoint, and what is read of `kept` was copied.
        let y = unsafe { started(output, kept, i, range.clone()) };
        let other = &other.row(i)[range];
        if up_stays {
            gate_into(context.kernels, y, other, function);
        } else {
            gate_by(context.kernels, y, other, function);
        }
    });
}
