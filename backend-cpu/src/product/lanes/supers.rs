//! What products of blocks of 256 values ask of an instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use super::{Lanes, Rows};

/// What [`super::super::supers`] and [`super::super::quads`] ask of an instruction set beside [`Lanes`]. To them a vector of
/// codes is 64 bytes of one row.
///
/// # Safety
/// As there.
pub(in super::super) trait SuperLanes: Lanes {
    /// Eight times the f16 of the first row, eight times that of the second.
    unsafe fn factors(rows: Rows) -> Self::Floats;
    /// The same of two neighbouring f16.
    unsafe fn factor_pairs(rows: Rows) -> [Self::Floats; 2];
    /// 64 bytes that need no alignment.
    unsafe fn row64(from: *const u8) -> Self::Bytes;
    /// Every byte shifted left by `count`, cut to `mask`, which has none of the bits that come from a neighbour.
    unsafe fn upward(v: Self::Bytes, count: u32, mask: u8) -> Self::Bytes;
    /// The second half's bytes shifted right by 4; their high nibbles mean nothing then.
    unsafe fn second_halved(v: Self::Bytes) -> Self::Bytes;
    /// 16 signed bytes of each row.
    unsafe fn widened(rows: Rows) -> Self::Shorts;
    /// The low nibbles of 16 bytes of each row, and the high ones.
    unsafe fn widened_nibbles(rows: Rows) -> [Self::Shorts; 2];
    /// Two times 8 numbers of 6 bits that each row has in its 12 bytes from `rows` + 4 on, as Q4_K packs scales and minima.
    unsafe fn six_bits(rows: Rows) -> Self::Shorts;
    /// 16 numbers of 6 bits that each row has in its 12 bytes, as Q3_K packs scales.
    unsafe fn sixteen_six_bits(rows: Rows) -> Self::Shorts;
    /// Eight numbers of 6 bits of each row, less 32: the low nibbles in its bytes 2 to 5, two more bits in bytes 0 and 1, as
    /// IQ4_XS packs scales.
    unsafe fn eight_six_bits(rows: Rows) -> Self::Floats;
    /// a less `b`.
    unsafe fn less(a: Self::Shorts, b: i16) -> Self::Shorts;
    /// a times `b`.
    unsafe fn times(a: Self::Shorts, b: i16) -> Self::Shorts;
    /// What [`SuperLanes::add_two`] takes for parts 2·`two` and 2·`two` + 1 of a row. A part's first half has entry `part` < 4 of the
    /// row, its second half the one 4 after it; with `halves`, each 16 have their own: 2·`part`, the one after it, and the
    /// two 8 after these.
    unsafe fn spread(rows: Self::Shorts, row: usize, two: usize, halves: bool) -> [Self::Shorts; 2];
    /// sums + the products of two parts, each in codes from 0 to 63, and as many aligned activations, times their scales.
    unsafe fn add_two(sums: Self::Ints, parts: [Self::Bytes; 2], x: *const u8, scales: [Self::Shorts; 2])
    -> Self::Ints;
    /// The same eight values for both rows.
    unsafe fn both_eights(from: *const f32) -> Self::Floats;
    /// Four times each of the first four values of row `row`, or, for `quad` 1, of the last four.
    unsafe fn spread_four(v: Self::Floats, row: usize, quad: usize) -> Self::Floats;
    /// The sums of a's first and last eight, then of b's.
    unsafe fn folded_ints(a: Self::Ints, b: Self::Ints) -> Self::Ints;
}
