//! What the products of blocks of 32 values ask of an instruction set: sixteen blocks at a time, one to a lane.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use super::{Four, Lanes};

/// Sixteen blocks: block b of `fours[q]` is the one of lane 4·b + q.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Fours {
    pub fours: [Four; 4],
    /// Whether they are sixteen neighbours, none of them missing.
    pub neighbours: bool,
}

/// What [`super::super::sixteens`] asks of an instruction set beside [`Lanes`]. A lane of bytes is four neighbouring codes of
/// its block.
///
/// # Safety
/// As there.
pub(in super::super) trait SixteenLanes: Lanes {
    /// Whether there are registers for two times sixteen blocks.
    const TWO_ROWS: bool = false;

    /// Byte `AT` and the next 15 of blocks of `BYTES` bytes: the first four of each block, the next four, and so on.
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(fours: &Fours) -> [Self::Bytes; 4];

    /// Byte `AT` and the next 31 of blocks of `BYTES` bytes, in the same way.
    #[inline(always)]
    unsafe fn thirty_twos<const BYTES: usize, const AT: usize>(fours: &Fours) -> [Self::Bytes; 8] {
        let mut next = *fours;
        for four in &mut next.fours {
            four.from = four.from.wrapping_add(16);
        }
        // SAFETY: the caller's promise.
        let halves = unsafe { [Self::sixteens::<BYTES, AT>(fours), Self::sixteens::<BYTES, AT>(&next)] };
        let [[a, b, c, d], [e, f, g, h]] = halves;
        [a, b, c, d, e, f, g, h]
    }

    /// Codes with 16 added for every bit of the word at byte `AT` of its block of `BYTES` bytes.
    unsafe fn with_fifth_bits<const BYTES: usize, const AT: usize>(
        codes: [Self::Bytes; 8],
        fours: &Fours,
    ) -> [Self::Bytes; 8];

    /// The f16 at byte `AT` of each block of `BYTES` bytes.
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &Fours) -> Self::Floats;

    /// 2^(e − 128), exactly, for the byte e at byte `AT` of each block of `BYTES` bytes.
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &Fours) -> Self::Floats;

    /// Sums of w·x over the 32 codes of each block; x is eight times 64 bytes, aligned, from −127 to 127. Codes are at most
    /// `largest`, or 255 with [`Lanes::WHOLE_BYTES`], and not signed unless `SIGNED`: then from −128.
    unsafe fn dots<const SIGNED: bool>(codes: &[Self::Bytes; 8], x: *const u8, largest: u8) -> Self::Ints;

    /// For each of four rows the sum of its sixteen values, and of those that `rest` has for it: in lanes r, 4 + r, 8 + r and
    /// 12 + r.
    unsafe fn totals(rows: [Self::Floats; 4], rest: Self::Floats) -> [f32; 4];
}

/// How many sums of two products of codes up to `largest` with activations fit into 16 bits: 1, 2, 4 or 8.
pub(super) const fn chained(largest: u8) -> usize {
    let most = 32767 / (2 * 127 * largest as usize);
    match most {
        8.. => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}
