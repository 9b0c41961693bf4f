//! Plain Rust on blocks of 256.

use super::{
    super::{Lanes, Rows, Scalar, scalar::each},
    SuperLanes,
};

// SAFETY of the reads: each method reads what the trait's contract allows it to.
#[allow(unsafe_op_in_unsafe_fn)]
impl SuperLanes for Scalar {
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
    unsafe fn row64(from: *const u8) -> [u8; 64] {
        from.cast::<[u8; 64]>().read_unaligned()
    }

    #[inline(always)]
    unsafe fn upward(v: [u8; 64], count: u32, mask: u8) -> [u8; 64] {
        each!(0; 64, i => v[i] << count & mask)
    }

    #[inline(always)]
    unsafe fn second_halved(v: [u8; 64]) -> [u8; 64] {
        each!(0; 64, i => v[i] >> (i / 32 * 4))
    }

    #[inline(always)]
    unsafe fn widened(rows: Rows) -> [i16; 32] {
        let rows = rows.map(|row| row.cast::<[i8; 16]>().read_unaligned());
        each!(0; 32, i => i16::from(rows[i / 16][i % 16]))
    }

    #[inline(always)]
    unsafe fn widened_nibbles(rows: Rows) -> [[i16; 32]; 2] {
        let rows = rows.map(|row| row.cast::<[u8; 16]>().read_unaligned());
        [
            each!(0; 32, i => i16::from(rows[i / 16][i % 16] & 15)),
            each!(0; 32, i => i16::from(rows[i / 16][i % 16] >> 4)),
        ]
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> [i16; 32] {
        let mut out = [0; 32];
        for (r, row) in rows.iter().enumerate() {
            let bytes = row.add(4).cast::<[u8; 12]>().read_unaligned();
            for j in 0..4 {
                let (a, b, c) = (bytes[j], bytes[j + 4], bytes[j + 8]);
                out[16 * r + j] = i16::from(a & 63);
                out[16 * r + j + 4] = i16::from(c & 15 | a >> 6 << 4);
                out[16 * r + 8 + j] = i16::from(b & 63);
                out[16 * r + 8 + j + 4] = i16::from(c >> 4 | b >> 6 << 4);
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn sixteen_six_bits(rows: Rows) -> [i16; 32] {
        let rows = rows.map(|row| row.cast::<[u8; 12]>().read_unaligned());
        each!(0; 32, i => {
            let (row, number) = (&rows[i / 16], i % 16);
            let low = row[number % 8] >> (number / 8 * 4) & 15;
            let high = row[8 + number % 4] >> (number / 4 * 2) & 3;
            i16::from(low | high << 4)
        })
    }

    #[inline(always)]
    unsafe fn eight_six_bits(rows: Rows) -> [f32; 16] {
        let high = rows.map(|row| row.cast::<u16>().read_unaligned());
        let low = rows.map(|row| row.add(2).cast::<u32>().read_unaligned());
        each!(0.0; 16, i => {
            let (row, number) = (i / 8, i % 8);
            let low = (low[row] >> (4 * number) & 15) as i16;
            f32::from(low + (high[row] >> (2 * number) & 3) as i16 * 16 - 32)
        })
    }

    #[inline(always)]
    unsafe fn less(a: [i16; 32], b: i16) -> [i16; 32] {
        each!(0; 32, i => a[i].wrapping_sub(b))
    }

    #[inline(always)]
    unsafe fn times(a: [i16; 32], b: i16) -> [i16; 32] {
        each!(0; 32, i => a[i].wrapping_mul(b))
    }

    #[inline(always)]
    unsafe fn spread(rows: [i16; 32], row: usize, two: usize, halves: bool) -> [[i16; 32]; 2] {
        let entry = |part: usize, i: usize| {
            let own = if halves {
                i / 16 * 8 + 2 * part + i / 8 % 2
            } else {
                i / 16 * 4 + part
            };
            rows[16 * row + own]
        };
        [
            each!(0; 32, i => entry(2 * two, i)),
            each!(0; 32, i => entry(2 * two + 1, i)),
        ]
    }

    #[inline(always)]
    unsafe fn add_two(sums: [i32; 16], parts: [[u8; 64]; 2], x: *const u8, scales: [[i16; 32]; 2]) -> [i32; 16] {
        let [a, b] = [Self::load64(x), Self::load64(x.add(64))];
        let sums = Self::add_products(sums, Self::pairs_unsigned(parts[0], a), scales[0]);
        Self::add_products(sums, Self::pairs_unsigned(parts[1], b), scales[1])
    }

    #[inline(always)]
    unsafe fn both_eights(from: *const f32) -> [f32; 16] {
        each!(0.0; 16, i => from.add(i % 8).read_unaligned())
    }

    #[inline(always)]
    unsafe fn spread_four(v: [f32; 16], row: usize, quad: usize) -> [f32; 16] {
        each!(0.0; 16, i => v[8 * row + 4 * quad + i / 4])
    }

    #[inline(always)]
    unsafe fn folded_ints(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        each!(0; 16, i => [a, b][i / 8][i % 8] + [a, b][i / 8][i % 8 + 8])
    }
}
