//! Writing to the key/value cache, and attention over it.

use super::{
    call::{Call, Operand, Write, start},
    products::dot,
};
use crate::{
    encode::encode_row,
    error::{BackendError, Result},
    operations::{Window, word},
};

/// pool(:, s mod P, h, s div P) = encode(x(:, h, t)), s = slots_t; s < 0 or ≥ P·pages is skipped.
pub(super) fn cache_store(call: &Call<'_>) -> Result<Vec<Write>> {
    let (x, slots) = (call.input(0)?, call.input(1)?);
    let ([width, page, heads, pages], pool) = (call.dims, &call.output);
    let ty = pool
        .kind()
        .ok_or_else(|| BackendError::invalid("the pool's type is not known"))?;
    let row_bytes = width / ty.block_values() * ty.block_bytes();
    let mut writes = Vec::new();
    for t in 0..x.dims[2] {
        let slot = usize::try_from(slots.id(t, [0; 3])?).ok();
        let Some(slot) = slot.filter(|&s| s < page * pages) else {
            continue;
        };
        for h in 0..heads {
            let mut bytes = vec![0; row_bytes];
            encode_row(ty, &x.row_f32([h, t, 0])?, &mut bytes)?;
            let offset = start(pool, [slot % page, h, slot / page]);
            writes.push(Write { offset, bytes });
        }
    }
    Ok(writes)
}

/// Row t of sequence s at position p sees the positions i from lo to p of its sequence, in cell i mod P of page
/// table(i div P, s). z_i = scale·(1 + β·ln(1 + ⌊p/span⌋))·(q_h·k_i), with a cap c > 0: c·tanh(z/c);
/// y = Σ e^(z_i − μ)·v_i / (Σ e^(z_i − μ) + e^(sink_h − μ)), the sink's term only with sinks. Query head h reads head
/// ⌊h·Hkv/H⌋ of the cache.
pub(super) fn attention(call: &Call<'_>) -> Result<Vec<f64>> {
    let (q, positions, starts) = (call.input(0)?, call.input(3)?, call.input(4)?.ids([0; 3])?);
    let cache = Cache {
        k: call.input(1)?,
        v: call.input(2)?,
        table: call.input(5)?,
    };
    let sinks = call.optional(6).map(|s| s.row([0; 3])).transpose()?;
    let kv_heads = cache.k.dims[2];
    call.by_row(|[h, t, _]| {
        let p = u32::try_from(positions.id(t, [0; 3])?)
            .map_err(|_| BackendError::invalid(format!("column {t} is at a negative position")))?;
        let sequence = sequence_of(&starts, t)?;
        let cells = (first_visible(call, p)?..=p)
            .map(|i| cache.cell(i as usize, sequence))
            .collect::<Result<Vec<_>>>()?;
        let (head, query) = (h * kv_heads / q.dims[1], q.row([h, t, 0])?);
        let score = |&[cell, page]: &[usize; 2]| {
            Ok(capped(
                call,
                scale(call, p) * dot(&query, &cache.k.row([cell, head, page])?),
            ))
        };
        let scores = cells.iter().map(score).collect::<Result<Vec<f64>>>()?;
        let values = cells
            .iter()
            .map(|&[cell, page]| cache.v.row([cell, head, page]))
            .collect::<Result<Vec<_>>>()?;
        Ok(weighted(&scores, &values, sinks.as_ref().map(|s| s[h]), call.dims[0]))
    })
}

struct Cache<'a> {
    k: &'a Operand<'a>,
    v: &'a Operand<'a>,
    table: &'a Operand<'a>,
}

impl Cache<'_> {
    /// The cell and the page of position `i`.
    fn cell(&self, i: usize, sequence: usize) -> Result<[usize; 2]> {
        let [_, size, _, pages] = self.k.dims;
        let entry = i / size;
        if entry >= self.table.dims[0] {
            let message = format!(
                "position {i} lies beyond the {} pages of a sequence",
                self.table.dims[0]
            );
            return Err(BackendError::invalid(message));
        }
        let page = self.table.id(entry, [sequence, 0, 0])?;
        match usize::try_from(page) {
            Ok(page) if page < pages => Ok([i % size, page]),
            _ => Err(BackendError::invalid(format!(
                "position {i} of sequence {sequence} is in page {page} of {pages}"
            ))),
        }
    }
}

/// The sequence whose columns include `t`.
fn sequence_of(starts: &[i32], t: usize) -> Result<usize> {
    let holds = |w: &[i32]| i64::from(w[0]) <= t as i64 && (t as i64) < i64::from(w[1]);
    let found = starts.windows(2).position(holds);
    found.ok_or_else(|| BackendError::invalid(format!("column {t} is in no sequence: starts are {starts:?}")))
}

/// The first position that position `p` sees.
fn first_visible(call: &Call<'_>, p: u32) -> Result<u32> {
    let w = call.count(word::attention::WINDOW);
    Ok(match call.choice(word::attention::WINDOW_KIND, Window::from_word)? {
        Window::Full => 0,
        Window::Sliding => (p + 1).saturating_sub(w),
        Window::Chunked => p - p % w,
    })
}

fn scale(call: &Call<'_>, p: u32) -> f64 {
    let (scale, beta) = (call.number(word::attention::SCALE), call.number(word::attention::BETA));
    if beta == 0.0 {
        return scale;
    }
    let spans = p / call.count(word::attention::SPAN);
    scale * (1.0 + beta * (1.0 + f64::from(spans)).ln())
}

fn capped(call: &Call<'_>, z: f64) -> f64 {
    let c = call.number(word::attention::SOFTCAP);
    if c > 0.0 { c * (z / c).tanh() } else { z }
}

/// The mean of the values, weighted by softmax of the scores and the sink.
fn weighted(scores: &[f64], values: &[Vec<f64>], sink: Option<f64>, width: usize) -> Vec<f64> {
    let largest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|z| (z - largest).exp()).collect();
    let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |s| (s - largest).exp());
    let sum = |d: usize| weights.iter().zip(values).map(|(w, v)| w * v[d]).sum::<f64>();
    (0..width).map(|d| sum(d) / total).collect()
}
