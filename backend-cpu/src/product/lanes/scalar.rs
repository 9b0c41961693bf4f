//! Plain Rust, for processors without AVX2.

use super::{Four, Lanes, Rows};

/// An array made in a loop, which the compiler turns into vectors.
macro_rules! each {
    ($zero:expr; $count:literal, $i:ident => $value:expr) => {{
        let mut out = [$zero; $count];
        for $i in 0..$count {
            out[$i] = $value;
        }
        out
    }};
}

/// Sums of two products of 8 bits, for four times 16 codes. Two fit into an i16 where |w·x| ≤ 128·127. Which of the codes
/// go to which of the sums is of no account, since they share a scale.
macro_rules! pairs {
    ($w:expr, $x:expr, $code:ty) => {{
        let mut out = [0; 32];
        let quarters = $w.as_chunks::<16>().0.iter().zip($x.as_chunks::<16>().0);
        for (out, (w, x)) in out.as_chunks_mut::<8>().0.iter_mut().zip(quarters) {
            let low = each!(0; 8, i => i16::from(w[i] as $code) * i16::from(x[i] as i8));
            let high = each!(0; 8, i => i16::from(w[i + 8] as $code) * i16::from(x[i + 8] as i8));
            *out = each!(0; 8, i => low[i] + high[i]);
        }
        out
    }};
}

/// No instruction set in particular.
pub(in super::super) struct Scalar;

// SAFETY of the reads: each method reads what the trait's contract allows it to.
#[allow(unsafe_op_in_unsafe_fn)]
impl Lanes for Scalar {
    type Bytes = [u8; 64];
    type Floats = [f32; 16];
    type Shorts = [i16; 32];
    type Ints = [i32; 16];

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
        each!(0.0; 16, i => if i < count { from.add(i).read_unaligned() } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [f32; 16]) {
        to.cast::<[f32; 16]>().write_unaligned(values);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [f32; 16] {
        let bits = from.cast::<[u16; 16]>().read_unaligned();
        each!(0.0; 16, i => Self::f16(bits[i]))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [f32; 16] {
        let bits = from.cast::<[u16; 16]>().read_unaligned();
        each!(0.0; 16, i => f32::from_bits(u32::from(bits[i]) << 16))
    }

    #[inline(always)]
    unsafe fn f16(bits: u16) -> f32 {
        // The exponent's bias differs by 112; multiplying, not adding, makes numbers of denormals too.
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        let magnitude = u32::from(bits & 0x7fff) << 13;
        let value = (f32::from_bits(magnitude) * REBIAS).to_bits();
        let special = if magnitude >= 0x7c00 << 13 { 0x7f80_0000 } else { 0 };
        f32::from_bits(value | special | u32::from(bits & 0x8000) << 16)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(0.0; 16, i => a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        each!(0.0; 16, i => a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn fnma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        each!(0.0; 16, i => c[i] - a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn row_sums(v: [f32; 16]) -> [f32; 2] {
        [v[..8].iter().sum(), v[8..].iter().sum()]
    }

    #[inline(always)]
    unsafe fn factors(rows: Rows) -> [f32; 16] {
        let [a, b] = rows.map(|row| Self::f16(row.cast::<u16>().read_unaligned()));
        each!(0.0; 16, i => if i < 8 { a } else { b })
    }

    #[inline(always)]
    unsafe fn factor_pairs(rows: Rows) -> [[f32; 16]; 2] {
        [Self::factors(rows), Self::factors(rows.map(|row| row.add(2)))]
    }

    #[inline(always)]
    unsafe fn load32(rows: Rows) -> [u8; 64] {
        let rows = rows.map(|row| row.cast::<[u8; 32]>().read_unaligned());
        let mut out = [0; 64];
        out.as_chunks_mut().0.copy_from_slice(&rows);
        out
    }

    #[inline(always)]
    unsafe fn both(from: *const u8) -> [u8; 64] {
        Self::load32([from, from])
    }

    #[inline(always)]
    unsafe fn nibbles16(rows: Rows) -> [u8; 64] {
        let mut out = [0; 64];
        for (out, row) in out.as_chunks_mut::<32>().0.iter_mut().zip(rows) {
            let bytes = row.cast::<[u8; 16]>().read_unaligned();
            let (low, high) = out.split_at_mut(16);
            low.copy_from_slice(&each!(0; 16, i => bytes[i] & 15));
            high.copy_from_slice(&each!(0; 16, i => bytes[i] >> 4));
        }
        out
    }

    #[inline(always)]
    unsafe fn bits(words: [u32; 2], value: u8) -> [u8; 64] {
        each!(0; 64, i => if words[i / 32] >> (i % 32) & 1 == 1 { value } else { 0 })
    }

    #[inline(always)]
    unsafe fn field(v: [u8; 64], count: u32, mask: u8) -> [u8; 64] {
        each!(0; 64, i => v[i] >> count & mask)
    }

    #[inline(always)]
    unsafe fn shl4(v: [u8; 64]) -> [u8; 64] {
        each!(0; 64, i => v[i] << 4)
    }

    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        each!(0; 64, i => a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn sub(a: [u8; 64], b: u8) -> [u8; 64] {
        each!(0; 64, i => a[i].wrapping_sub(b))
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], v: [u8; 64]) -> [u8; 64] {
        each!(0; 64, i => table[usize::from(v[i] & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, v: [u8; 64]) {
        to.cast::<[u8; 64]>().write_unaligned(v);
    }

    #[inline(always)]
    unsafe fn no_ints() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn shorts(rows: [*const i16; 2]) -> [i16; 32] {
        let rows = rows.map(|row| row.cast::<[i16; 16]>().read_unaligned());
        each!(0; 32, i => rows[i / 16][i % 16])
    }

    #[inline(always)]
    unsafe fn widened(rows: [[i8; 16]; 2]) -> [i16; 32] {
        each!(0; 32, i => i16::from(rows[i / 16][i % 16]))
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> [[i16; 32]; 2] {
        let mut out = [[0; 32]; 2];
        for (r, row) in rows.iter().enumerate() {
            let bytes = row.add(4).cast::<[u8; 12]>().read_unaligned();
            for j in 0..4 {
                let (a, b, c) = (bytes[j], bytes[j + 4], bytes[j + 8]);
                out[0][16 * r + j] = i16::from(a & 63);
                out[0][16 * r + j + 4] = i16::from(c & 15 | a >> 6 << 4);
                out[1][16 * r + j] = i16::from(b & 63);
                out[1][16 * r + j + 4] = i16::from(c >> 4 | b >> 6 << 4);
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn times(a: [i16; 32], b: i16) -> [i16; 32] {
        each!(0; 32, i => a[i].wrapping_mul(b))
    }

    #[inline(always)]
    unsafe fn spread(rows: [i16; 32], group: usize, halves: bool) -> [i16; 32] {
        let [first, second] = if halves { [2 * group, 2 * group + 1] } else { [group; 2] };
        each!(0; 32, i => rows[i / 16 * 16 + if i % 16 < 8 { first } else { second }])
    }

    #[inline(always)]
    unsafe fn pairs_unsigned(w: [u8; 64], x: [u8; 64]) -> [i16; 32] {
        pairs!(w, x, u8)
    }

    #[inline(always)]
    unsafe fn pairs_signed(w: [u8; 64], x: [u8; 64]) -> [i16; 32] {
        pairs!(w, x, i8)
    }

    #[inline(always)]
    unsafe fn add_products(sums: [i32; 16], a: [i16; 32], b: [i16; 32]) -> [i32; 16] {
        let products = each!(0; 32, i => i32::from(a[i]) * i32::from(b[i]));
        each!(0; 16, i => sums[i] + products[i / 8 * 16 + i % 8] + products[i / 8 * 16 + i % 8 + 8])
    }

    #[inline(always)]
    unsafe fn floats(sums: [i32; 16]) -> [f32; 16] {
        each!(0.0; 16, i => sums[i] as f32)
    }

    #[inline(always)]
    unsafe fn load64(from: *const u8) -> [u8; 64] {
        from.cast::<[u8; 64]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn add_dots(sums: [i32; 16], w: [u8; 64], x: [u8; 64], signed: bool) -> [i32; 16] {
        let pairs = if signed {
            Self::pairs_signed(w, x)
        } else {
            Self::pairs_unsigned(w, x)
        };
        each!(0; 16, i => {
            let first = i / 4 * 8 + i % 4;
            sums[i] + i32::from(pairs[first]) + i32::from(pairs[first + 4])
        })
    }

    #[inline(always)]
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(four: Four) -> [u8; 64] {
        let mut out = [0; 64];
        for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            *out = four.block(i, BYTES).add(AT).cast::<[u8; 16]>().read_unaligned();
        }
        out
    }

    #[inline(always)]
    unsafe fn thirty_twos<const BYTES: usize, const AT: usize>(four: Four) -> [[u8; 64]; 2] {
        let next = Four {
            from: four.from.wrapping_add(16),
            ..four
        };
        [Self::sixteens::<BYTES, AT>(four), Self::sixteens::<BYTES, AT>(next)]
    }

    #[inline(always)]
    unsafe fn fifth_bits<const BYTES: usize, const AT: usize>(four: Four) -> [[u8; 64]; 2] {
        let words = each!(0; 4, i => four.block(i, BYTES).add(AT).cast::<u32>().read_unaligned());
        [
            each!(0; 64, i => (words[i / 16] >> (i % 16) & 1) as u8 * 16),
            each!(0; 64, i => (words[i / 16] >> (16 + i % 16) & 1) as u8 * 16),
        ]
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> [f32; 16] {
        each!(0.0; 16, i => {
            let block = fours[i / 8][i / 4 % 2].block(i % 4, BYTES);
            Self::f16(block.add(AT).cast::<u16>().read_unaligned())
        })
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> [f32; 16] {
        each!(0.0; 16, i => {
            let e = u32::from(*fours[i / 8][i / 4 % 2].block(i % 4, BYTES).add(AT));
            f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 })
        })
    }

    #[inline(always)]
    unsafe fn spread_four(v: [f32; 16], row: usize, quad: usize) -> [f32; 16] {
        each!(0.0; 16, i => v[8 * row + 4 * quad + i / 4])
    }

    #[inline(always)]
    unsafe fn folded(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        each!(0.0; 16, i => [a, b][i / 8][i % 8] + [a, b][i / 8][i % 8 + 8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_to_the_same_number() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            // SAFETY: plain Rust has no features to lack.
            let found = unsafe { Scalar::f16(bits) };
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:#x}"
            );
        }
    }
}
