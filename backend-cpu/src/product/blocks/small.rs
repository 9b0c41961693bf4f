//! Blocks of 32 values with one scale.

#![allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Blocks`
#![allow(non_camel_case_types)] // the names are the format's own

use backend_api::decode::{IQ4_VALUES, MXFP4_DOUBLED};

use super::{Blocks, Head, Shifted, Signed, Small, Unsigned, f16, word};
use crate::product::lanes::{Four, Lanes, Rows, at};

/// The codes of MXFP4 are doubled, and this much above their value.
const ABOVE: u8 = 12;

const MXFP4_CODES: [i8; 16] = {
    let mut codes = MXFP4_DOUBLED;
    let mut i = 0;
    while i < 16 {
        codes[i] += ABOVE as i8;
        i += 1;
    }
    codes
};

/// Declares a type of 32 values with one head.
macro_rules! block {
    ($name:ident, $bytes:literal, $coding:ty, $lanes:ident, $numbers:ident, codes($rows:ident) $codes:expr,
     scales($fours:ident) $scales:expr $(, minima $minima:expr)?, four($four:ident) $four_codes:expr
     $(, nibbles($at:literal, $nibbles:ident) $nibble_codes:expr)?) => {
        #[doc = concat!("See [`backend_api::types::Type::", stringify!($name), "`].")]
        pub(in crate::product) struct $name;

        impl Blocks for $name {
            const VALUES: usize = 32;
            const BYTES: usize = $bytes;
            type Codes = $coding;
            type Head = Head<1>;

            #[inline(always)]
            unsafe fn head<$lanes: Lanes>(block: *const u8) -> Head<1> {
                $numbers::head::<$lanes>(block)
            }

            #[inline(always)]
            unsafe fn bits(block: *const u8) -> [u16; 2] {
                $numbers::bits(block)
            }

            #[inline(always)]
            fn scale_bits(bits: &mut [u16; 32]) {
                $numbers::scale_bits(bits);
            }

            #[inline(always)]
            unsafe fn of_bits<$lanes: Lanes>(scales: *const u8, minima: *const u8) -> [$lanes::Floats; 2] {
                $numbers::of_bits::<$lanes>(scales, minima)
            }

            #[inline(always)]
            unsafe fn codes<$lanes: Lanes>($rows: Rows, _: usize) -> $lanes::Bytes {
                $codes
            }

            $(
                const NIBBLES: Option<usize> = Some($at);

                #[inline(always)]
                unsafe fn of_nibbles<$lanes: Lanes>($nibbles: $lanes::Bytes) -> $lanes::Bytes {
                    $nibble_codes
                }
            )?
        }

        impl Small for $name {
            #[inline(always)]
            unsafe fn codes_of_four<$lanes: Lanes>($four: Four) -> [$lanes::Bytes; 2] {
                $four_codes
            }

            #[inline(always)]
            unsafe fn scales<$lanes: Lanes>($fours: &[[Four; 2]; 2]) -> $lanes::Floats {
                $scales
            }
            $(
                #[inline(always)]
                unsafe fn minima<$lanes: Lanes>($fours: &[[Four; 2]; 2]) -> $lanes::Floats {
                    $minima
                }
            )?
        }
    };
}

block!(Q8_0, 34, Signed, L, scale, codes(r) L::load32(at(r, 2)),
    scales(f) L::halves::<34, 0>(f), four(f) L::thirty_twos::<34, 2>(f));
block!(Q4_0, 18, Shifted<8>, L, scale, codes(r) L::nibbles16(at(r, 2)),
    scales(f) L::halves::<18, 0>(f), four(f) nibbles::<L, 18, 2>(f), nibbles(2, n) n);
block!(Q4_1, 20, Unsigned, L, scale_and_min, codes(r) L::nibbles16(at(r, 4)),
    scales(f) L::halves::<20, 0>(f), minima L::halves::<20, 2>(f), four(f) nibbles::<L, 20, 4>(f), nibbles(4, n) n);
block!(Q5_0, 22, Shifted<16>, L, scale, codes(r) five_bits::<L>(at(r, 2)),
    scales(f) L::halves::<22, 0>(f), four(f) fives::<L, 22, 2, 6>(f));
block!(Q5_1, 24, Unsigned, L, scale_and_min, codes(r) five_bits::<L>(at(r, 4)),
    scales(f) L::halves::<24, 0>(f), minima L::halves::<24, 2>(f), four(f) fives::<L, 24, 4, 8>(f));
block!(IQ4_NL, 18, Signed, L, scale, codes(r) L::lookup(&IQ4_VALUES, L::nibbles16(at(r, 2))),
    scales(f) L::halves::<18, 0>(f), four(f) L::lookup_both(&IQ4_VALUES, L::sixteens::<18, 2>(f)),
    nibbles(2, n) L::lookup(&IQ4_VALUES, n));
block!(MXFP4, 17, Shifted<ABOVE>, L, exponent, codes(r) L::lookup(&MXFP4_CODES, L::nibbles16(at(r, 1))),
    scales(f) L::powers::<17, 0>(f), four(f) L::lookup_both(&MXFP4_CODES, L::sixteens::<17, 1>(f)),
    nibbles(1, n) L::lookup(&MXFP4_CODES, n));

/// Nibbles from byte `AT` of blocks of so many bytes.
#[inline(always)]
unsafe fn nibbles<L: Lanes, const BYTES: usize, const AT: usize>(four: Four) -> [L::Bytes; 2] {
    let both = L::sixteens::<BYTES, AT>(four);
    [L::field(both, 0, 15), L::field(both, 4, 15)]
}

/// 32 fifth bits from byte `HIGH`, and nibbles from byte `LOW`.
#[inline(always)]
unsafe fn fives<L: Lanes, const BYTES: usize, const HIGH: usize, const LOW: usize>(four: Four) -> [L::Bytes; 2] {
    let [first, last] = nibbles::<L, BYTES, LOW>(four);
    let fifth = L::fifth_bits::<BYTES, HIGH>(four);
    [L::or(first, fifth[0]), L::or(last, fifth[1])]
}

/// A scale in f16.
mod scale {
    use super::*;

    #[inline(always)]
    pub unsafe fn head<L: Lanes>(block: *const u8) -> Head<1> {
        Head::scales([f16::<L>(block)])
    }

    #[inline(always)]
    pub unsafe fn bits(block: *const u8) -> [u16; 2] {
        [block.cast::<u16>().read_unaligned(), 0]
    }

    pub fn scale_bits(_: &mut [u16; 32]) {}

    #[inline(always)]
    pub unsafe fn of_bits<L: Lanes>(scales: *const u8, _: *const u8) -> [L::Floats; 2] {
        [L::load_f16(scales), L::zero()]
    }
}

/// A scale and a minimum in f16, which the file adds.
mod scale_and_min {
    use super::*;

    #[inline(always)]
    pub unsafe fn head<L: Lanes>(block: *const u8) -> Head<1> {
        Head {
            scale: [f16::<L>(block)],
            min: [-f16::<L>(block.add(2))],
        }
    }

    #[inline(always)]
    pub unsafe fn bits(block: *const u8) -> [u16; 2] {
        block.cast::<[u16; 2]>().read_unaligned()
    }

    pub fn scale_bits(_: &mut [u16; 32]) {}

    #[inline(always)]
    pub unsafe fn of_bits<L: Lanes>(scales: *const u8, minima: *const u8) -> [L::Floats; 2] {
        [L::load_f16(scales), L::mul(L::load_f16(minima), L::splat(-1.0))]
    }
}

/// A scale that is a power of two; half of it, since the codes are doubled.
mod exponent {
    use super::*;

    #[inline(always)]
    pub unsafe fn head<L: Lanes>(block: *const u8) -> Head<1> {
        Head::scales([half_e8m0(*block)])
    }

    #[inline(always)]
    pub unsafe fn bits(block: *const u8) -> [u16; 2] {
        [(*block).into(), 0]
    }

    /// A bf16 has room for it: see [`half_e8m0`].
    #[inline(always)]
    pub fn scale_bits(bits: &mut [u16; 32]) {
        for bits in bits {
            let normal = bits.wrapping_sub(1) << 7;
            let small = if *bits == 0 { 0x20 } else { 0x40 };
            *bits = if *bits < 2 { small } else { normal };
        }
    }

    #[inline(always)]
    pub unsafe fn of_bits<L: Lanes>(scales: *const u8, _: *const u8) -> [L::Floats; 2] {
        [L::load_bf16(scales), L::zero()]
    }
}

/// 32 fifth bits, then 16 bytes of nibbles.
#[inline(always)]
unsafe fn five_bits<L: Lanes>(rows: Rows) -> L::Bytes {
    let high = L::bits([word(rows[0]), word(rows[1])], 16);
    L::or(L::nibbles16(at(rows, 4)), high)
}

/// Half of 2^(e − 127), exactly: the codes are doubled.
#[inline(always)]
fn half_e8m0(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
}
