//! Comparing what a backend left in memory with what the reference did.

use half::{bf16, f16};

use super::{
    case::{Accuracy, Case},
    image::{blocks, f32_of_bytes},
};
use crate::{
    decode::decode_row,
    graph::{Step, Tensor},
    types::Type,
};

/// Memory of all buffers of a graph.
pub(super) type Images = [Vec<u8>];

/// Memory before a run, after the reference's and after the backend's.
pub(super) struct Runs<'a> {
    pub before: &'a Images,
    pub expected: &'a Images,
    pub got: &'a Images,
}

/// Errors of a case: the largest relative to its bound, and that bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Errors {
    pub error: f64,
    pub bound: f64,
}

impl Errors {
    pub fn take(&mut self, other: Errors) {
        let relative = |e: &Errors| if e.bound > 0.0 { e.error / e.bound } else { 0.0 };
        if self.bound == 0.0 || relative(&other) > relative(self) {
            *self = other;
        }
    }
}

/// Compares every output and every other byte.
pub(super) fn compare(case: &Case, step: &Step, runs: &Runs) -> Result<Errors, String> {
    untouched(case, step, runs)?;
    let mut worst = Errors::default();
    for &(output, accuracy) in &case.outputs {
        let tensor = case.tensor(output);
        worst.take(output_errors(case, tensor, accuracy, step, runs)?);
    }
    Ok(worst)
}

/// No byte that is no output element of some node may have changed.
fn untouched(case: &Case, step: &Step, runs: &Runs) -> Result<(), String> {
    let mut free: Vec<Vec<bool>> = runs.before.iter().map(|b| vec![false; b.len()]).collect();
    for node in &case.draft.nodes {
        let tensor = case.tensor(node.output);
        let size = tensor.kind().map_or(0, Type::block_bytes);
        for (_, at) in blocks(tensor, step) {
            free[tensor.buffer as usize][at..at + size].fill(true);
        }
    }
    for (i, free) in free.iter().enumerate() {
        let changed = |&at: &usize| !free[at] && runs.got[i][at] != runs.before[i][at];
        if let Some(at) = (0..free.len()).find(changed) {
            return Err(format!(
                "byte {at} of buffer {i} ({} bytes) was changed; it is no output element of the step (T′ = {}, R′ = {})",
                free.len(),
                step.tokens,
                step.rows
            ));
        }
    }
    Ok(())
}

fn output_errors(case: &Case, tensor: &Tensor, accuracy: Accuracy, step: &Step, runs: &Runs) -> Result<Errors, String> {
    let of = |images: &Images| gather(tensor, step, &images[tensor.buffer as usize]);
    let (expected, got) = (of(runs.expected), of(runs.got));
    let at_step = |message| format!("{message} (T′ = {}, R′ = {})", step.tokens, step.rows);
    match accuracy {
        Accuracy::Exact => exact(tensor.kind(), &expected, &got),
        Accuracy::Within(bound) => within(bound * scatter(tensor, step), &expected, &got),
        Accuracy::Stored => stored(tensor.kind(), &of(runs.before), &expected, &got),
        Accuracy::Indices(x) => {
            let x = case.tensor(x);
            let values = gather(x, step, &runs.before[x.buffer as usize]);
            indices(&f32_of_bytes(&values), [x.dims[0], tensor.dims[0]], &expected, &got)
        }
    }
    .map_err(at_step)
}

/// The blocks of a step, side by side.
pub(super) fn gather(tensor: &Tensor, step: &Step, image: &[u8]) -> Vec<u8> {
    let size = tensor.kind().map_or(0, Type::block_bytes);
    let all = blocks(tensor, step);
    all.iter().flat_map(|&(_, at)| image[at..at + size].to_vec()).collect()
}

fn exact(ty: Option<Type>, expected: &[u8], got: &[u8]) -> Result<Errors, String> {
    let size = ty.map_or(1, Type::block_bytes);
    let pairs = expected.chunks(size).zip(got.chunks(size));
    for (i, (a, b)) in pairs.enumerate() {
        if a != b && !(is_nan(ty, a) && is_nan(ty, b)) {
            return Err(format!("element {i} has bytes {b:02x?}, expected exactly {a:02x?}"));
        }
    }
    Ok(Errors::default())
}

fn is_nan(ty: Option<Type>, bytes: &[u8]) -> bool {
    match (ty, bytes) {
        (Some(Type::F32), &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).is_nan(),
        (Some(Type::F16), &[a, b]) => f16::from_le_bytes([a, b]).is_nan(),
        (Some(Type::BF16), &[a, b]) => bf16::from_le_bytes([a, b]).is_nan(),
        _ => false,
    }
}

/// The normalized mean squared error of f32 values: Σ(y − ŷ)² / Σŷ², ŷ the reference's.
fn within(bound: f64, expected: &[u8], got: &[u8]) -> Result<Errors, String> {
    let (mut wrong, mut size) = (0.0, 0.0);
    for (i, (a, b)) in f32_of_bytes(expected).into_iter().zip(f32_of_bytes(got)).enumerate() {
        if !b.is_finite() && a.is_finite() {
            return Err(format!("element {i} is {b}, expected {a}"));
        }
        if a.is_finite() {
            wrong += (f64::from(a) - f64::from(b)).powi(2);
            size += f64::from(a).powi(2);
        }
    }
    let error = if wrong == 0.0 { 0.0 } else { wrong / size };
    if error > bound {
        return Err(format!(
            "normalized mean squared error {error:.2e}, at most {bound:.1e} allowed; {}",
            worst_element(expected, got)
        ));
    }
    Ok(Errors { error, bound })
}

/// What few values add to a bound that is stated for many: both sums of squares scatter. With half of the bound as the
/// mean error, a ratio of sums of n squares (the F distribution) passes this once in some thousand cases. Values of one
/// column share what its activations lost: where weights have a mean, they are wrong together.
fn scatter(tensor: &Tensor, step: &Step) -> f64 {
    let dims = tensor.dims_in(step).map(f64::from);
    let columns = dims[1..].iter().product::<f64>().max(1.0);
    let n = (dims[0] * columns).max(1.0);
    1.0 + (8.0 / n.sqrt()).max(2.0 / columns.sqrt()) + 256.0 / (n * n)
}

fn worst_element(expected: &[u8], got: &[u8]) -> String {
    let pairs = f32_of_bytes(expected).into_iter().zip(f32_of_bytes(got)).enumerate();
    let worst = pairs.max_by(|x, y| (x.1.0 - x.1.1).abs().total_cmp(&(y.1.0 - y.1.1).abs()));
    worst.map_or_else(String::new, |(i, (a, b))| format!("element {i} is {b}, expected {a}"))
}

/// Share of a cache's codes that may differ: ties and products with 1/d are rarer, no rounding at all is not.
const CODES_OFF: f64 = 0.01;

/// Cells of a cache: blocks that the reference left alone are untouched, the others hold its values, whose codes may
/// differ by 1 where the type has codes.
fn stored(ty: Option<Type>, before: &[u8], expected: &[u8], got: &[u8]) -> Result<Errors, String> {
    let ty = ty.ok_or("a cache of unknown type")?;
    let size = ty.block_bytes();
    let (mut off, mut count) = (0, 0);
    for (i, (b, (e, g))) in (before.chunks(size).zip(expected.chunks(size).zip(got.chunks(size)))).enumerate() {
        if b == e || !ty.is_quantized() {
            if e != g {
                let what = if b == e { "was changed" } else { "is wrong" };
                return Err(format!("block {i} of the cache {what}: {g:02x?}, expected {e:02x?}"));
            }
            continue;
        }
        off += codes_off(ty, e, g).map_err(|m| format!("block {i} of the cache {m}"))?;
        count += ty.block_values();
    }
    let (error, bound) = (off as f64 / (count as f64).max(1.0), CODES_OFF);
    if off > 2 && error > bound {
        return Err(format!(
            "{off} of {count} codes differ by 1: that is no rounding to nearest"
        ));
    }
    Ok(Errors { error, bound })
}

/// How many codes of a block differ; an error where one differs by more than 1.
fn codes_off(ty: Type, expected: &[u8], got: &[u8]) -> Result<usize, String> {
    let (mut a, mut b) = (vec![0.0; ty.block_values()], vec![0.0; ty.block_values()]);
    decode_row(ty, expected, &mut a).map_err(|e| e.to_string())?;
    decode_row(ty, got, &mut b).map_err(|e| e.to_string())?;
    let step = f16::from_le_bytes([expected[0], expected[1]]).to_f32().abs();
    let mut off = 0;
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let difference = (a - b).abs();
        // The scale itself may be off by a unit of f16's last place: 2^-10 of up to 127 steps.
        if difference.is_nan() || difference > 1.13 * step {
            return Err(format!("decodes to {b} at {i}, expected {a} ± {step}"));
        }
        off += usize::from(difference > 0.5 * step);
    }
    Ok(off)
}

/// Indices of the k largest of n: different, in range, and the reference's, but for the order among NaN.
fn indices(x: &[f32], [n, k]: [u32; 2], expected: &[u8], got: &[u8]) -> Result<Errors, String> {
    let ids = |bytes: &[u8]| -> Vec<u32> { f32_of_bytes(bytes).iter().map(|w| w.to_bits()).collect() };
    let (expected, got) = (ids(expected), ids(got));
    let columns = x
        .chunks(n as usize)
        .zip(expected.chunks(k as usize).zip(got.chunks(k as usize)));
    for (t, (x, (expected, got))) in columns.enumerate() {
        for (i, (&a, &b)) in expected.iter().zip(got).enumerate() {
            let repeated = got[..i].contains(&b);
            let alike = a == b || x.get(b as usize).is_some_and(|v| v.is_nan()) && x[a as usize].is_nan();
            if repeated || b >= n || !alike {
                return Err(format!("column {t} has index {} at {i}, expected {a}", b as i32));
            }
        }
    }
    Ok(Errors::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::image::{bytes_of_f32, bytes_of_i32};

    #[test]
    fn errors_are_normalized_by_the_expected_values() {
        let expected = bytes_of_f32(&[3.0, 4.0].repeat(5000));
        let got = bytes_of_f32(&[3.0, 4.5].repeat(5000));
        assert!((within(0.01, &expected, &got).unwrap().error - 0.01).abs() < 1e-12);
        assert!(within(0.009, &expected, &got).is_err());
        assert!(within(1.0, &expected, &bytes_of_f32(&[3.0, f32::NAN])).is_err());
        assert!(within(1.0, &bytes_of_f32(&[0.0]), &bytes_of_f32(&[1e-9])).is_err());
    }

    #[test]
    fn the_order_among_nan_is_free_and_nothing_else() {
        let x = [f32::NAN, 2.0, f32::NAN, 2.0];
        let ids = |ids: [i32; 3]| indices(&x, [4, 3], &bytes_of_i32(&[1, 3, 0]), &bytes_of_i32(&ids));
        assert!(ids([1, 3, 0]).is_ok() && ids([1, 3, 2]).is_ok());
        for wrong in [[3, 1, 0], [1, 3, 3], [1, 3, 4], [1, 3, -1], [1, 0, 3]] {
            assert!(ids(wrong).is_err(), "{wrong:?}");
        }
    }
}
