//! Blocks of 256 values with scales for every 16 or 32 of them.

#![allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Blocks`
#![allow(non_camel_case_types)] // the names are the format's own

use backend_api::decode::IQ4_VALUES;

use super::{Blocks, Head, Integers, Shifted, Signed, Supers, Unsigned, f16, word};
use crate::product::lanes::{Lanes, Rows, SuperLanes, at};

/// Declares a type of 256 values.
macro_rules! block {
    ($name:ident, $bytes:literal, $coding:ty, $groups:literal, $lanes:ident, integers($block:ident) $integers:expr,
     codes($rows:ident, $sub:ident) $codes:expr, factors($factors:ident) $d:expr, scales($both:ident) $scales:expr,
     parts($whole:ident) $parts:expr) => {
        #[doc = concat!("See [`backend_api::types::Type::", stringify!($name), "`].")]
        pub(in crate::product) struct $name;

        impl Blocks for $name {
            const VALUES: usize = 256;
            const BYTES: usize = $bytes;
            type Codes = $coding;
            type Head = Head<$groups>;

            #[inline(always)]
            unsafe fn head<$lanes: Lanes>($block: *const u8) -> Head<$groups> {
                $integers.head()
            }

            #[inline(always)]
            unsafe fn codes<$lanes: Lanes>($rows: Rows, $sub: usize) -> $lanes::Bytes {
                $codes
            }
        }

        impl Supers for $name {
            #[inline(always)]
            unsafe fn factors<$lanes: SuperLanes>($factors: Rows) -> [$lanes::Floats; 2] {
                $d
            }

            #[inline(always)]
            unsafe fn scales_and_minima<$lanes: SuperLanes>($both: Rows) -> [$lanes::Shorts; 2] {
                $scales
            }

            #[inline(always)]
            unsafe fn parts<$lanes: SuperLanes>($whole: *const u8) -> [$lanes::Bytes; 4] {
                $parts
            }
        }
    };
}

block!(Q2_K, 84, Unsigned, 16, L, integers(b) q2_k_scales::<L>(b), codes(r, sub) two_bits::<L>(at(r, 16), sub),
    factors(r) L::factor_pairs(at(r, 80)), scales(r) L::widened_nibbles(r), parts(b) q2_k_parts::<L>(b));
block!(Q3_K, 110, Shifted<4>, 16, L, integers(b) q3_k_scales::<L>(b), codes(r, sub) q3_k_codes::<L>(r, sub),
    factors(r) alone::<L>(at(r, 108)), scales(r) [L::less(L::sixteen_six_bits(at(r, 96)), 32), L::no_shorts()],
    parts(b) q3_k_parts::<L>(b));
block!(Q4_K, 144, Unsigned, 8, L, integers(b) six_bit_scales::<L>(b), codes(r, sub) nibbles::<L>(at(r, 16), sub),
    factors(r) L::factor_pairs(r), scales(r) [L::six_bits(r); 2], parts(b) nibble_parts::<L>(b.add(16)));
block!(Q5_K, 176, Unsigned, 8, L, integers(b) six_bit_scales::<L>(b), codes(r, sub) q5_k_codes::<L>(r, sub),
    factors(r) L::factor_pairs(r), scales(r) [L::six_bits(r); 2], parts(b) q5_k_parts::<L>(b));
block!(Q6_K, 210, Shifted<32>, 16, L, integers(b) q6_k_scales::<L>(b), codes(r, sub) q6_k_codes::<L>(r, sub),
    factors(r) alone::<L>(at(r, 208)), scales(r) [L::widened(at(r, 192)), L::no_shorts()], parts(b) q6_k_parts::<L>(b));
/// See [`backend_api::types::Type::IQ4_XS`].
pub(in crate::product) struct IQ4_XS;

impl Blocks for IQ4_XS {
    const VALUES: usize = 256;
    const BYTES: usize = 136;
    type Codes = Signed;
    type Head = Head<8>;

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8) -> Head<8> {
        iq4_xs_scales::<L>(block).head()
    }

    #[inline(always)]
    unsafe fn codes<L: Lanes>(rows: Rows, sub: usize) -> L::Bytes {
        L::lookup(&IQ4_VALUES, L::nibbles16(at(rows, 8 + 16 * sub)))
    }
}

impl IQ4_XS {
    /// The eight scales of a block of each row.
    ///
    /// # Safety
    /// As [`Blocks`]. So for the others.
    #[inline(always)]
    pub unsafe fn scales<L: SuperLanes>(blocks: Rows) -> L::Floats {
        L::mul(L::eight_six_bits(at(blocks, 2)), L::factors(blocks))
    }

    /// The codes of the first four times 32 values of a block, or, for `quad` 1, of the last: the first 16 of each, and the
    /// last 16. They are as [`Coding::dots`] of [`Signed`] takes them.
    #[inline(always)]
    pub unsafe fn quad<L: SuperLanes>(block: *const u8, quad: usize) -> [L::Bytes; 2] {
        const RAISED: [i8; 16] = raised(&IQ4_VALUES);
        let table = if L::WHOLE_BYTES { &RAISED } else { &IQ4_VALUES };
        let nibbles = L::row64(block.add(8 + 64 * quad));
        [
            L::lookup(table, L::field(nibbles, 0, 15)),
            L::lookup(table, L::field(nibbles, 4, 15)),
        ]
    }
}

/// The codes 128 above these, without a sign.
const fn raised(codes: &[i8; 16]) -> [i8; 16] {
    let mut raised = *codes;
    let mut i = 0;
    while i < 16 {
        raised[i] = codes[i].wrapping_sub(-128);
        i += 1;
    }
    raised
}

/// The factor of scales where there are no minima.
#[inline(always)]
unsafe fn alone<L: SuperLanes>(rows: Rows) -> [L::Floats; 2] {
    [L::factors(rows), L::zero()]
}

#[inline(always)]
unsafe fn q2_k_parts<L: SuperLanes>(block: *const u8) -> [L::Bytes; 4] {
    let all = L::row64(block.add(16));
    [
        L::field(all, 0, 3),
        L::field(all, 2, 3),
        L::field(all, 4, 3),
        L::field(all, 6, 3),
    ]
}

#[inline(always)]
unsafe fn q3_k_parts<L: SuperLanes>(block: *const u8) -> [L::Bytes; 4] {
    let low = q2_k_parts::<L>(block.add(16));
    let high = L::second_halved(L::both(block));
    [
        L::or(low[0], L::upward(high, 2, 4)),
        L::or(low[1], L::upward(high, 1, 4)),
        L::or(low[2], L::field(high, 0, 4)),
        L::or(low[3], L::field(high, 1, 4)),
    ]
}

/// Nibbles of 128 bytes: the low ones of 32 bytes, the high ones, and so on.
#[inline(always)]
unsafe fn nibble_parts<L: SuperLanes>(from: *const u8) -> [L::Bytes; 4] {
    let a = L::load32([from, from.add(64)]);
    let b = L::load32([from.add(32), from.add(96)]);
    [
        L::field(a, 0, 15),
        L::field(a, 4, 15),
        L::field(b, 0, 15),
        L::field(b, 4, 15),
    ]
}

#[inline(always)]
unsafe fn q5_k_parts<L: SuperLanes>(block: *const u8) -> [L::Bytes; 4] {
    let low = nibble_parts::<L>(block.add(48));
    let high = L::second_halved(L::both(block.add(16)));
    [
        L::or(low[0], L::upward(high, 4, 16)),
        L::or(low[1], L::upward(high, 3, 16)),
        L::or(low[2], L::upward(high, 2, 16)),
        L::or(low[3], L::upward(high, 1, 16)),
    ]
}

#[inline(always)]
unsafe fn q6_k_parts<L: SuperLanes>(block: *const u8) -> [L::Bytes; 4] {
    let [a, c, b, d] = nibble_parts::<L>(block);
    let high = L::row64(block.add(128));
    [
        L::or(a, L::upward(high, 4, 48)),
        L::or(b, L::upward(high, 2, 48)),
        L::or(c, L::field(high, 0, 48)),
        L::or(d, L::field(high, 2, 48)),
    ]
}

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
