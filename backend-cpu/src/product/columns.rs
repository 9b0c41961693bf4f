//! Activations in 8 bits. Codes are x/scale to nearest, even where it is a tie, and go from −127 to 127.

/// A block whose largest magnitude is below this counts as zeros: its reciprocal would not be finite.
const TINY: f32 = 1e-30;

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
