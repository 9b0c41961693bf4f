//! Blocks of 32 values with one scale.

#![allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Blocks`
#![allow(non_camel_case_types)] // the names are the format's own

use backend_api::decode::{IQ4_VALUES, MXFP4_DOUBLED};

use super::{Blocks, Head, Shifted, Signed, Unsigned, f16, word};
use crate::product::lanes::{Lanes, Rows, at};

/// Declares a type of 32 values with one head.
macro_rules! block {
    ($name:ident, $bytes:literal, $coding:ty, $lanes:ident, head($block:ident) $head:expr, codes($rows:ident) $codes:expr) => {
        #[doc = concat!("See [`backend_api::types::Type::", stringify!($name), "`].")]
        pub(in crate::product) struct $name;

        impl Blocks for $name {
            const VALUES: usize = 32;
            const BYTES: usize = $bytes;
            type Codes = $coding;
            type Head = Head<1>;

            #[inline(always)]
            unsafe fn head<$lanes: Lanes>($block: *const u8) -> Head<1> {
                $head
            }

            #[inline(always)]
            unsafe fn codes<$lanes: Lanes>($rows: Rows, _: usize) -> $lanes::Bytes {
                $codes
            }
        }
    };
}

block!(Q8_0, 34, Signed, L, head(b) scale::<L>(b), codes(r) L::load32(at(r, 2)));
block!(Q4_0, 18, Shifted<8>, L, head(b) scale::<L>(b), codes(r) L::nibbles16(at(r, 2)));
block!(Q4_1, 20, Unsigned, L, head(b) scale_and_min::<L>(b), codes(r) L::nibbles16(at(r, 4)));
block!(Q5_0, 22, Shifted<16>, L, head(b) scale::<L>(b), codes(r) five_bits::<L>(at(r, 2)));
block!(Q5_1, 24, Unsigned, L, head(b) scale_and_min::<L>(b), codes(r) five_bits::<L>(at(r, 4)));
block!(IQ4_NL, 18, Signed, L, head(b) scale::<L>(b), codes(r) L::lookup(&IQ4_VALUES, L::nibbles16(at(r, 2))));
block!(MXFP4, 17, Signed, L, head(b) Head::scales([half_e8m0(*b)]), codes(r) L::lookup(&MXFP4_DOUBLED, L::nibbles16(at(r, 1))));

#[inline(always)]
unsafe fn scale<L: Lanes>(block: *const u8) -> Head<1> {
    Head::scales([f16::<L>(block)])
}

#[inline(always)]
unsafe fn scale_and_min<L: Lanes>(block: *const u8) -> Head<1> {
    Head {
        scale: [f16::<L>(block)],
        min: [-f16::<L>(block.add(2))],
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
