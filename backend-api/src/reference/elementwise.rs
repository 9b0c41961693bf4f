//! Operations on single elements.

use std::f64::consts::PI;

use super::call::{Call, Write, rows, start};
use crate::{
    error::Result,
    operations::{Gate, UnaryKind, word},
};

/// y = α·(a + β·b).
pub(super) fn add(call: &Call<'_>) -> Result<Vec<f64>> {
    let (alpha, beta) = (call.number(word::add::ALPHA), call.number(word::add::BETA));
    broadcast(call, |a, b| alpha * (a + beta * b))
}

/// y = a·b.
pub(super) fn mul(call: &Call<'_>) -> Result<Vec<f64>> {
    broadcast(call, |a, b| a * b)
}

fn broadcast(call: &Call<'_>, f: impl Fn(f64, f64) -> f64) -> Result<Vec<f64>> {
    let (a, b) = (call.input(0)?, call.input(1)?);
    call.by_row(|j| {
        let pairs = a.row(j)?.into_iter().zip(b.broadcast_row(j)?);
        Ok(pairs.map(|(a, b)| f(a, b)).collect())
    })
}

/// y = out·f(in·x).
pub(super) fn unary(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, inner, outer) = (
        call.input(0)?,
        call.number(word::unary::IN),
        call.number(word::unary::OUT),
    );
    let f = match call.choice(word::unary::KIND, UnaryKind::from_word)? {
        UnaryKind::Identity => |z: f64| z,
        UnaryKind::Tanh => f64::tanh,
    };
    call.by_row(|j| Ok(x.row(j)?.into_iter().map(|x| outer * f(inner * x)).collect()))
}

/// The gate's function of g, times u (for swiglu_oai, of both clamped, times u + 1).
pub(super) fn gated(call: &Call<'_>) -> Result<Vec<f64>> {
    let (g, u, kind) = (
        call.input(0)?,
        call.input(1)?,
        call.choice(word::gated::KIND, Gate::from_word)?,
    );
    let (alpha, limit) = (call.number(word::gated::ALPHA), call.number(word::gated::LIMIT));
    let f = |g: f64, u: f64| match kind {
        Gate::Silu => g / (1.0 + (-g).exp()) * u,
        Gate::GeluTanh => 0.5 * g * (1.0 + ((2.0 / PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh()) * u,
        Gate::SwigluOai => {
            let (g, u) = (g.min(limit), u.max(-limit).min(limit));
            g / (1.0 + (-alpha * g).exp()) * (u + 1.0)
        }
    };
    call.by_row(|j| {
        let pairs = g.row(j)?.into_iter().zip(u.row(j)?);
        Ok(pairs.map(|(g, u)| f(g, u)).collect())
    })
}

/// y = x: the same bits where the types are equal, else converted to nearest even.
pub(super) fn copy(call: &Call<'_>) -> Result<Vec<Write>> {
    let x = call.input(0)?;
    if call.output.ty != x.ty().id() {
        return call.writes(&call.by_row(|j| x.row(j))?);
    }
    let moved = rows(call.dims).map(|row| {
        let elements = (0..call.dims[0]).map(|i| x.block(i, row)).collect::<Result<Vec<_>>>()?;
        Ok(Write {
            offset: start(&call.output, row),
            bytes: elements.concat(),
        })
    });
    moved.collect()
}
