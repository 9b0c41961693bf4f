//! Rows of tables and products with weights.

use super::call::{Call, Operand, Row};
use crate::{error::Result, operations::word};

/// y(:, i) = scale · table(:, ids_i); an id < 0 or ≥ n takes row 0, n being the rows of this step.
pub(super) fn rows(call: &Call<'_>) -> Result<Vec<f64>> {
    let (table, ids) = (call.input(0)?, call.input(1)?);
    let scale = call.number(word::rows::SCALE);
    call.by_row(|[a, b, c]| {
        let id = usize::try_from(ids.id(a, [b, c, 0])?)
            .ok()
            .filter(|&id| id < table.dims[1]);
        let row = table.row([id.unwrap_or(0), 0, 0])?;
        Ok(row.into_iter().map(|v| scale * v).collect())
    })
}

/// y(m, t) = Σ_k W(k, m) · x(k, t).
pub(super) fn product(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let weights = matrix(w, 0)?;
    call.by_row(|t| times(&weights, &x.row(t)?))
}

/// y(:, s, t) = W(:, :, e) · x(:, s or 0, t), e = ids(s, t); e out of range gives zeros.
pub(super) fn expert_product(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, w, ids) = (call.input(0)?, call.input(1)?, call.input(2)?);
    call.by_row(|[s, t, _]: Row| {
        let expert = usize::try_from(ids.id(s, [t, 0, 0])?).ok().filter(|&e| e < w.dims[2]);
        let Some(expert) = expert else {
            return Ok(vec![0.0; call.dims[0]]);
        };
        let slot = if x.dims[1] == 1 { 0 } else { s };
        times(&matrix(w, expert)?, &x.row([slot, t, 0])?)
    })
}

/// The rows W(:, m, expert).
fn matrix(w: &Operand<'_>, expert: usize) -> Result<Vec<Vec<f64>>> {
    (0..w.dims[1]).map(|m| w.row([m, expert, 0])).collect()
}

fn times(weights: &[Vec<f64>], x: &[f64]) -> Result<Vec<f64>> {
    Ok(weights.iter().map(|row| dot(row, x)).collect())
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
