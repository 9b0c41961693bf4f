//! Plain Rust, for processors without AVX2.

use std::array::from_fn;

use super::{Lanes, Rows};

/// No instruction set in particular.
pub(in super::super) struct Scalar;

// SAFETY of the reads: each method reads what the trait's contract allows it to.
#[allow(unsafe_op_in_unsafe_fn)]
impl Lanes for Scalar {
    type Bytes = [u8; 64];
    type Floats = [f32; 16];

    #[inline(always)]
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn splat(a: f32) -> [f32; 16] {
        [a; 16]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 16] {
        from.cast::<[f32; 16]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> [f32; 16] {
        from_fn(|i| if i < count { from.add(i).read_unaligned() } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [f32; 16]) {
        to.cast::<[f32; 16]>().write_unaligned(values);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [f32; 16] {
        from.cast::<[u16; 16]>().read_unaligned().map(|b| Self::f16(b))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [f32; 16] {
        let bits = from.cast::<[u16; 16]>().read_unaligned();
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }

    #[inline(always)]
    unsafe fn f16(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32_const()
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn fnma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        from_fn(|i| c[i] - a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn row_sums(v: [f32; 16]) -> [f32; 2] {
        [v[..8].iter().sum(), v[8..].iter().sum()]
    }

    #[inline(always)]
    unsafe fn pair(a: f32, b: f32) -> [f32; 16] {
        Self::alternate([a, a], [b, b])
    }

    #[inline(always)]
    unsafe fn alternate(a: [f32; 2], b: [f32; 2]) -> [f32; 16] {
        from_fn(|i| [a, b][i / 8][i % 2])
    }

    #[inline(always)]
    unsafe fn quarters(a: [f32; 2], b: [f32; 2]) -> [f32; 16] {
        from_fn(|i| [a, b][i / 8][i / 4 % 2])
    }

    #[inline(always)]
    unsafe fn load32(rows: Rows) -> [u8; 64] {
        from_fn(|i| *rows[i / 32].add(i % 32))
    }

    #[inline(always)]
    unsafe fn both(from: *const u8) -> [u8; 64] {
        Self::load32([from, from])
    }

    #[inline(always)]
    unsafe fn nibbles16(rows: Rows) -> [u8; 64] {
        from_fn(|i| *rows[i / 32].add(i % 16) >> (4 * (i / 16 % 2)) & 15)
    }

    #[inline(always)]
    unsafe fn bits(words: [u32; 2], value: u8) -> [u8; 64] {
        from_fn(|i| if words[i / 32] >> (i % 32) & 1 == 1 { value } else { 0 })
    }

    #[inline(always)]
    unsafe fn field(v: [u8; 64], count: u32, mask: u8) -> [u8; 64] {
        v.map(|b| b >> count & mask)
    }

    #[inline(always)]
    unsafe fn shl4(v: [u8; 64]) -> [u8; 64] {
        v.map(|b| b << 4)
    }

    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn sub(a: [u8; 64], b: u8) -> [u8; 64] {
        a.map(|a| a.wrapping_sub(b))
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], v: [u8; 64]) -> [u8; 64] {
        v.map(|b| table[usize::from(b & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, v: [u8; 64]) {
        to.cast::<[u8; 64]>().write_unaligned(v);
    }

    #[inline(always)]
    unsafe fn dot_unsigned(w: [u8; 64], x: [u8; 64]) -> [f32; 16] {
        from_fn(|i| {
            let product = |j: usize| i32::from(w[j]) * i32::from(x[j] as i8);
            (4 * i..4 * i + 4).map(product).sum::<i32>() as f32
        })
    }

    #[inline(always)]
    unsafe fn dot_signed(w: [u8; 64], x: [u8; 64]) -> [f32; 16] {
        from_fn(|i| {
            let product = |j: usize| i32::from(w[j] as i8) * i32::from(x[j] as i8);
            (4 * i..4 * i + 4).map(product).sum::<i32>() as f32
        })
    }
}
