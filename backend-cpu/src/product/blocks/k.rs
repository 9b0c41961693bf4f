//! Blocks of 256 values with scales for every 16 or 32 of them.

#![allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Blocks`
#![allow(non_camel_case_types)] // the names are the format's own

use backend_api::decode::IQ4_VALUES;

use super::{Blocks, Head, Integers, Shifted, Signed, Supers, Unsigned, f16, word};
use crate::product::lanes::{Lanes, Rows, at};

/// Declares a type of 256 values.
macro_rules! block {
    ($name:ident, $bytes:literal, $coding:ty, $groups:literal, $lanes:ident, integers($block:ident) $integers:expr,
     factors($factors:ident) $d:expr $(, together($both:ident) $together:expr)?, codes($rows:ident, $sub:ident) $codes:expr) => {
        #[doc = concat!("See [`backend_api::types::Type::", stringify!($name), "`].")]
        pub(in crate::product) struct $name;

        impl Blocks for $name {
            const VALUES: usize = 256;
            const BYTES: usize = $bytes;
            type Codes = $coding;
            type Head = Head<$groups>;

            #[inline(always)]
            unsafe fn head<$lanes: Lanes>(block: *const u8) -> Head<$groups> {
                Self::integers::<$lanes>(block).head()
            }

            #[inline(always)]
            unsafe fn codes<$lanes: Lanes>($rows: Rows, $sub: usize) -> $lanes::Bytes {
                $codes
            }
        }

        impl Supers for $name {
            type Whole = Integers<$groups>;

            #[inline(always)]
            unsafe fn integers<$lanes: Lanes>($block: *const u8) -> Integers<$groups> {
                $integers
            }

            #[inline(always)]
            unsafe fn factors<$lanes: Lanes>($factors: Rows) -> [$lanes::Floats; 2] {
                $d
            }
            $(
                #[inline(always)]
                unsafe fn scales_and_minima<$lanes: Lanes>($both: Rows) -> [$lanes::Shorts; 2] {
                    $together
                }
            )?
        }
    };
}

block!(Q2_K, 84, Unsigned, 16, L, integers(b) q2_k_scales::<L>(b), factors(r) L::factor_pairs(at(r, 80)),
    codes(r, sub) two_bits::<L>(at(r, 16), sub));
block!(Q3_K, 110, Shifted<4>, 16, L, integers(b) q3_k_scales::<L>(b), factors(r) [L::factors(at(r, 108)), L::zero()],
    codes(r, sub) q3_k_codes::<L>(r, sub));
block!(Q4_K, 144, Unsigned, 8, L, integers(b) six_bit_scales::<L>(b),
    factors(r) L::factor_pairs(r), together(r) L::six_bits(r), codes(r, sub) nibbles::<L>(at(r, 16), sub));
block!(Q5_K, 176, Unsigned, 8, L, integers(b) six_bit_scales::<L>(b),
    factors(r) L::factor_pairs(r), together(r) L::six_bits(r), codes(r, sub) q5_k_codes::<L>(r, sub));
block!(Q6_K, 210, Shifted<32>, 16, L, integers(b) q6_k_scales::<L>(b), factors(r) [L::factors(at(r, 208)), L::zero()],
    codes(r, sub) q6_k_codes::<L>(r, sub));
block!(IQ4_XS, 136, Signed, 8, L, integers(b) iq4_xs_scales::<L>(b), factors(r) [L::factors(r), L::zero()],
    codes(r, sub) L::lookup(&IQ4_VALUES, L::nibbles16(at(r, 8 + 16 * sub))));

/// Each 32 bytes hold 64 values, the low nibbles first.
#[inline(always)]
unsafe fn nibbles<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
    L::field(L::load32(at(rows, sub / 2 * 32)), 4 * (sub as u32 % 2), 15)
}

/// Each 32 bytes hold 128 values, the lowest bits first.
#[inline(always)]
unsafe fn two_bits<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
    L::field(L::load32(at(rows, sub / 4 * 32)), 2 * (sub as u32 % 4), 3)
}

#[inline(always)]
unsafe fn q3_k_codes<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
    // The bit's place is 2 of the code: moved there in two steps, since bytes have no shift of their own.
    let high = L::field(L::load32(rows), sub as u32, 1);
    let low = two_bits::<L>(at(rows, 32), sub);
    L::or(low, L::field(L::shl4(high), 2, 4))
}

#[inline(always)]
unsafe fn q5_k_codes<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
    let high = L::field(L::load32(at(rows, 16)), sub as u32, 1);
    L::or(nibbles::<L>(at(rows, 48), sub), L::shl4(high))
}

#[inline(always)]
unsafe fn q6_k_codes<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
    let (half, part) = (sub / 4, sub % 4);
    let low = L::load32(at(rows, 64 * half + 32 * (part % 2)));
    let low = L::field(low, 4 * (part as u32 / 2), 15);
    L::or(low, L::shl4(two_bits::<L>(at(rows, 128), 4 * half + part)))
}

/// Scales without minima.
#[inline(always)]
fn scales<const N: usize>(scale: [i8; N], d: f32) -> Integers<N> {
    Integers {
        scale,
        min: [0; N],
        d,
        dmin: 0.0,
    }
}

#[inline(always)]
unsafe fn q2_k_scales<L: Lanes>(block: *const u8) -> Integers<16> {
    let words = block.cast::<[u32; 4]>().read_unaligned();
    let scale = bytes(words.map(|w| w & 0x0f0f0f0f));
    let min = bytes(words.map(|w| w >> 4 & 0x0f0f0f0f));
    Integers {
        scale,
        min,
        d: f16::<L>(block.add(80)),
        dmin: f16::<L>(block.add(82)),
    }
}

#[inline(always)]
unsafe fn q3_k_scales<L: Lanes>(block: *const u8) -> Integers<16> {
    let low = [word(block.add(96)), word(block.add(100))];
    let high = word(block.add(104));
    let four = |j: usize| (low[j % 2] >> (4 * (j / 2)) & 0x0f0f0f0f) | (high >> (2 * j) & 0x03030303) << 4;
    let mut codes: [i8; 16] = bytes([four(0), four(1), four(2), four(3)]);
    codes.iter_mut().for_each(|c| *c -= 32);
    scales(codes, f16::<L>(block.add(108)))
}

#[inline(always)]
unsafe fn q6_k_scales<L: Lanes>(block: *const u8) -> Integers<16> {
    let codes = block.add(192).cast::<[i8; 16]>().read_unaligned();
    scales(codes, f16::<L>(block.add(208)))
}

/// Those of Q4_K and Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes.
#[inline(always)]
unsafe fn six_bit_scales<L: Lanes>(block: *const u8) -> Integers<8> {
    let [a, b, c] = [word(block.add(4)), word(block.add(8)), word(block.add(12))];
    let top = |low: u32| (low >> 6 & 0x03030303) << 4;
    let scale = bytes([a & 0x3f3f3f3f, c & 0x0f0f0f0f | top(a)]);
    let min = bytes([b & 0x3f3f3f3f, c >> 4 & 0x0f0f0f0f | top(b)]);
    Integers {
        scale,
        min,
        d: f16::<L>(block),
        dmin: f16::<L>(block.add(2)),
    }
}

#[inline(always)]
unsafe fn iq4_xs_scales<L: Lanes>(block: *const u8) -> Integers<8> {
    let high = u32::from(block.add(2).cast::<u16>().read_unaligned());
    let low = word(block.add(4));
    let mut codes = [0i8; 8];
    for (g, code) in (0u32..).zip(&mut codes) {
        *code = (low >> (4 * g) & 15 | (high >> (2 * g) & 3) << 4) as i8 - 32;
    }
    scales(codes, f16::<L>(block))
}

/// The bytes of words, the lowest first.
#[inline(always)]
fn bytes<const W: usize, const N: usize>(words: [u32; W]) -> [i8; N] {
    const { assert!(N == 4 * W) };
    let mut bytes = [0; N];
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes().map(|byte| byte as i8);
    }
    bytes
}
