//! Activations in 8 bits: what panels take as columns.
//!
//! A column of K values is K/32 [`Block`]s. Codes are x/scale to nearest, even where it is a tie, and go from −127 to 127.
//! The sums let a product take its weights' minima into account: Σ (s·w − m)·x = s·Σ w·x − m·Σ x.

/// 32 values. Codes and scale lie side by side, so that a kernel needs one address a column.
#[repr(C)]
pub(super) struct Block {
    codes: [i8; 32],
    scale: f32,
    /// scale/4 times the sum of the first 16 codes and of the last 16: a quarter, because [`Lanes::alternate`] has each
    /// of a pair four times.
    sums: [f32; 2],
    /// All of them together.
    sum: f32,
}

/// Bytes of a column of `values` values, a multiple of 32, in an array of columns.
pub(super) const fn column_bytes(values: usize) -> usize {
    (values / 32 * size_of::<Block>()).next_multiple_of(64)
}

/// A block whose largest magnitude is below this counts as zeros: its reciprocal would not be finite.
const TINY: f32 = 1e-30;

/// Quantizes a column of K values, K a multiple of 32, to [`column_bytes`] bytes.
///
/// # Safety
/// `to` has that many bytes, aligned for f32.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    for (i, block) in x.as_chunks::<32>().0.iter().enumerate() {
        // SAFETY: block i lies in the column.
        unsafe { to.cast::<Block>().add(i).write(Block::of(block)) };
    }
}

impl Block {
    #[inline(always)]
    fn of(x: &[f32; 32]) -> Block {
        let (codes, scale) = codes(x);
        let sum = |half: &[i8]| half.iter().map(|&c| i32::from(c)).sum::<i32>() as f32;
        let quarter = scale * 0.25;
        Block {
            codes,
            scale,
            sums: [quarter * sum(&codes[..16]), quarter * sum(&codes[16..])],
            sum: quarter * sum(&codes),
        }
    }

    /// Codes 4·i to 4·i + 3, as they lie.
    ///
    /// # Safety
    /// The block is readable, and i < 8. So for the others.
    #[inline(always)]
    pub unsafe fn four(block: *const Block, i: usize) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { (&raw const (*block).codes).cast::<i32>().add(i).read() }
    }

    /// The scale.
    ///
    /// # Safety
    /// The block is readable.
    #[inline(always)]
    pub unsafe fn scale(block: *const Block) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { (*block).scale }
    }

    /// The quartered sum of a half, or of all values.
    ///
    /// # Safety
    /// The block is readable.
    #[inline(always)]
    pub unsafe fn quarter_sum(block: *const Block, half: Option<usize>) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { half.map_or((*block).sum, |half| (*block).sums[half]) }
    }
}

/// Codes of 8 bits for values, and the scale that they share.
#[inline(always)]
pub(super) fn codes<const N: usize>(x: &[f32; N]) -> ([i8; N], f32) {
    // 1.5·2^23: adding it leaves the nearest whole number in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let largest = largest(x);
    let (scale, inverse) = if largest < TINY {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut codes = [0; N];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse + MAGIC).to_bits() as i8;
    }
    (codes, scale)
}

/// The largest magnitude. Bits of magnitudes are ordered as these, and above them infinity and NaN, which so show in the
/// product.
#[inline(always)]
fn largest<const N: usize>(x: &[f32; N]) -> f32 {
    let magnitude = |x: &f32| x.to_bits() & (u32::MAX >> 1);
    f32::from_bits(x.iter().map(magnitude).fold(0, u32::max))
}
