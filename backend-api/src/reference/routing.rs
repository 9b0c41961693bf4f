//! Choosing entries, weighing them, and combining vectors with weights.

use std::cmp::Ordering;

use super::call::Call;
use crate::{
    error::{BackendError, Result},
    operations::{PickMode, word},
};

/// The indices of the k largest of each column, descending; of equals the lower index first, NaN below everything.
pub(super) fn top_k(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, k) = (call.input(0)?, call.dims[0]);
    call.by_row(|t| {
        let x = x.row(t)?;
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|&a, &b| descending(x[a], x[b]));
        Ok(order[..k].iter().map(|&i| i as f64).collect())
    })
}

/// Larger first, NaN last; a stable sort then leaves equals in the order of their indices.
fn descending(a: f64, b: f64) -> Ordering {
    let by_value = b.partial_cmp(&a);
    by_value.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// v_i = x(ids_i): scale·v, scale·softmax over the picked, or scale·e^v / Σ_n e^x.
pub(super) fn pick(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, ids, scale) = (call.input(0)?, call.input(1)?, call.number(word::pick::SCALE));
    let mode = call.choice(word::pick::MODE, PickMode::from_word)?;
    call.by_row(|t| {
        let x = x.row(t)?;
        let picked = ids
            .ids(t)?
            .into_iter()
            .map(|id| at(&x, id))
            .collect::<Result<Vec<f64>>>()?;
        let over = match mode {
            PickMode::Scale => return Ok(picked.iter().map(|v| scale * v).collect()),
            PickMode::SoftmaxPicked => &picked,
            PickMode::SoftmaxAll => &x,
        };
        let largest = over.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = over.iter().map(|v| (v - largest).exp()).sum();
        Ok(picked.iter().map(|v| scale * (v - largest).exp() / total).collect())
    })
}

fn at(x: &[f64], id: i32) -> Result<f64> {
    let value = usize::try_from(id).ok().and_then(|id| x.get(id));
    value
        .copied()
        .ok_or_else(|| BackendError::invalid(format!("id {id} is none of {} entries", x.len())))
}

/// y(:, j, t) = base(:, j, t) + Σ_i (C(i, j, t) + c₀)·x(:, i, t); without C all coefficients are c₀, without base it is 0.
pub(super) fn combine(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, c0) = (call.input(0)?, call.number(word::combine::C0));
    call.by_row(|[j, t, _]| {
        let mut y = match call.optional(2) {
            Some(base) => base.row([j, t, 0])?,
            None => vec![0.0; call.dims[0]],
        };
        let coefficients = match call.optional(1) {
            Some(c) => c.row([j, t, 0])?.into_iter().map(|c| c + c0).collect(),
            None => vec![c0; x.dims[1]],
        };
        for (i, c) in coefficients.into_iter().enumerate() {
            y.iter_mut().zip(x.row([i, t, 0])?).for_each(|(y, x)| *y += c * x);
        }
        Ok(y)
    })
}
