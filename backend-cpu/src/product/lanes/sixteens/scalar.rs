//! Plain Rust.

use super::{Fours, SixteenLanes};
use crate::product::lanes::{Lanes, Scalar};

/// Where block `i` of the sixteen lies.
#[inline(always)]
fn block<const BYTES: usize>(fours: &Fours, i: usize) -> *const u8 {
    fours.fours[i % 4].block(i / 4, BYTES)
}

// SAFETY of the reads: each method reads what the trait's contract allows it to.
#[allow(unsafe_op_in_unsafe_fn)]
impl SixteenLanes for Scalar {
    #[inline(always)]
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(fours: &Fours) -> [[u8; 64]; 4] {
        let mut out = [[0; 64]; 4];
        for i in 0..16 {
            let bytes = block::<BYTES>(fours, i).add(AT).cast::<[[u8; 4]; 4]>().read_unaligned();
            for (out, bytes) in out.iter_mut().zip(bytes) {
                out.as_chunks_mut().0[i] = bytes;
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn with_fifth_bits<const BYTES: usize, const AT: usize>(
        mut codes: [[u8; 64]; 8],
        fours: &Fours,
    ) -> [[u8; 64]; 8] {
        for i in 0..16 {
            let word = block::<BYTES>(fours, i).add(AT).cast::<u32>().read_unaligned();
            for (j, codes) in codes.iter_mut().enumerate() {
                for (k, code) in codes[4 * i..4 * i + 4].iter_mut().enumerate() {
                    *code |= ((word >> (4 * j + k) & 1) as u8) << 4;
                }
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &Fours) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            *out = Self::f16(block::<BYTES>(fours, i).add(AT).cast::<u16>().read_unaligned());
        }
        out
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &Fours) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            let e = u32::from(*block::<BYTES>(fours, i).add(AT));
            *out = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
        }
        out
    }

    #[inline(always)]
    unsafe fn dots<const SIGNED: bool>(codes: &[[u8; 64]; 8], x: *const u8, _: u8) -> [i32; 16] {
        let mut sums = [0; 16];
        for (j, codes) in codes.iter().enumerate() {
            let x = x.add(64 * j).cast::<[i8; 64]>().read();
            for (i, sum) in sums.iter_mut().enumerate() {
                for k in 4 * i..4 * i + 4 {
                    let code = if SIGNED {
                        i16::from(codes[k] as i8)
                    } else {
                        i16::from(codes[k])
                    };
                    *sum += i32::from(code * i16::from(x[k]));
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn totals(rows: [[f32; 16]; 4], rest: [f32; 16]) -> [f32; 4] {
        let mut out = [0.0; 4];
        for (r, (out, row)) in out.iter_mut().zip(&rows).enumerate() {
            *out = row.iter().sum::<f32>() + (rest[r] + rest[4 + r]) + (rest[8 + r] + rest[12 + r]);
        }
        out
    }
}
