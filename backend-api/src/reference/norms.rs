//! What normalizes or selects by the statistics of dimension 0.

use super::call::Call;
use crate::{error::Result, operations::word};

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

fn mean_square(x: &[f64]) -> f64 {
    mean(x.iter().map(|v| v * v))
}

/// y = (x·r)·w, r = 1/√(mean(x²) + ε); without w, y = x·r.
pub(super) fn rms_norm(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, epsilon) = (call.input(0)?, call.number(word::rms_norm::EPSILON));
    let w = call.optional(1).map(|w| w.row([0; 3])).transpose()?;
    call.by_row(|j| {
        let x = x.row(j)?;
        let r = 1.0 / (mean_square(&x) + epsilon).sqrt();
        let normed = x.iter().map(|v| v * r);
        Ok(match &w {
            Some(w) => normed.zip(w).map(|(v, w)| v * w).collect(),
            None => normed.collect(),
        })
    })
}

/// y(:, m, t) = x · √(mean ref²) / √(max(mean x², floor)), ref being `ref(:, 0, t)`.
pub(super) fn rms_match(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, reference, floor) = (call.input(0)?, call.input(1)?, call.number(word::rms_match::FLOOR));
    call.by_row(|[m, t, _]| {
        let x = x.row([m, t, 0])?;
        let factor = mean_square(&reference.row([0, t, 0])?).sqrt() / mean_square(&x).max(floor).sqrt();
        Ok(x.iter().map(|v| v * factor).collect())
    })
}

/// y = max(x − (μ + s·σ), 0), μ and σ = √(mean (x − μ)²) over dimension 0.
pub(super) fn sparsify(call: &Call<'_>) -> Result<Vec<f64>> {
    let (x, s) = (call.input(0)?, call.number(word::sparsify::S));
    call.by_row(|t| {
        let x = x.row(t)?;
        let mu = mean(x.iter().copied());
        let sigma = mean(x.iter().map(|v| (v - mu).powi(2))).sqrt();
        Ok(x.iter().map(|v| (v - (mu + s * sigma)).max(0.0)).collect())
    })
}
