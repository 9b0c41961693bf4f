//! Activations in 8 bits: what the integer kernels take as columns.
//!
//! A column of K values has K codes, then for every 32 of them a [`Record`]. Codes are x/scale to nearest, even where it
//! is a tie, and go from −127 to 127. The sums let a product take its weights' minima into account:
//! Σ (s·w − m)·x = s·Σ w·x − m·Σ x.

use super::lanes::Lanes;

/// The scale of 32 codes, and scale/4 times the sum of the first 16 and of the last 16: a quarter, because
/// [`Lanes::alternate`] has each of a pair four times.
pub(super) type Record = [f32; 3];

/// Bytes of a column of `values` values, a multiple of 32, in an array of columns.
pub(super) const fn column_bytes(values: usize) -> usize {
    (values + values / 32 * size_of::<Record>()).next_multiple_of(64)
}

/// A block whose largest magnitude is below this counts as zeros: its reciprocal would not be finite.
const TINY: f32 = 1e-30;

/// Quantizes a column of K values, K a multiple of 32, to [`column_bytes`] bytes.
///
/// # Safety
/// `to` has that many bytes, aligned for f32.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    let (blocks, _) = x.as_chunks::<32>();
    for (i, block) in blocks.iter().enumerate() {
        let mut codes = [0i8; 32];
        let record = quantize_block(block, &mut codes);
        // SAFETY: block i's codes and record lie in the column; K is a multiple of 4, so that records are aligned.
        unsafe {
            to.add(32 * i).cast::<[i8; 32]>().write(codes);
            to.add(x.len()).cast::<Record>().add(i).write(record);
        }
    }
}

#[inline(always)]
fn quantize_block(x: &[f32; 32], codes: &mut [i8; 32]) -> Record {
    // 1.5·2^23: adding it leaves the nearest whole number in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let largest = largest(x);
    if largest < TINY {
        return [0.0; 3];
    }
    let (scale, inverse) = (largest / 127.0, 127.0 / largest);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + MAGIC).to_bits() as i8;
    }
    let sum = |half: &[i8]| half.iter().map(|&c| i32::from(c)).sum::<i32>() as f32;
    let quarter = scale * 0.25;
    [scale, quarter * sum(&codes[..16]), quarter * sum(&codes[16..])]
}

/// The largest magnitude. Bits of magnitudes are ordered as these, and above them infinity and NaN, which so show in the
/// product.
#[inline(always)]
fn largest(x: &[f32; 32]) -> f32 {
    let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    f32::from_bits(x.iter().map(magnitude).fold(0, u32::max))
}

/// 32 values of a column.
pub(super) struct Block<L: Lanes> {
    /// The codes, for both rows.
    pub codes: L::Bytes,
    /// Their scale.
    pub scale: L::Floats,
    record: *const Record,
}

impl<L: Lanes> Block<L> {
    /// Block `i` of a column of `values` values.
    ///
    /// # Safety
    /// As [`Lanes`]; the column is whole.
    #[inline(always)]
    pub unsafe fn load(column: *const u8, values: usize, i: usize) -> Block<L> {
        // SAFETY: the caller's promise.
        unsafe {
            let record = column.add(values).cast::<Record>().add(i);
            Block {
                codes: L::both(column.add(32 * i)),
                scale: L::splat((*record)[0]),
                record,
            }
        }
    }

    /// The quartered sums of its halves, in alternation.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    pub unsafe fn sums(&self) -> L::Floats {
        // SAFETY: the record was readable when the block was loaded, and the column stays.
        unsafe {
            let [_, a, b] = *self.record;
            L::alternate([a, b], [a, b])
        }
    }
}
