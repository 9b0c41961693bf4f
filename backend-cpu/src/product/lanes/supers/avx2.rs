//! AVX2 on blocks of 256.

use std::arch::x86_64::*;

use super::{
    super::{Avx2, Lanes, Rows, avx2::both},
    SuperLanes,
};

/// The numbers of [`SuperLanes::six_bits`] of a row as bytes. Of its dwords, after the first, a and b have the low bits of the
/// first four numbers of each kind, and the high bits of the last four, whose low bits are the nibbles of c.
#[inline(always)]
pub(super) unsafe fn six_bits(row: __m128i) -> __m128i {
    // SAFETY: callers have AVX2.
    unsafe {
        let low = _mm_srlv_epi32(_mm_shuffle_epi32::<0b11_10_11_01>(row), _mm_setr_epi32(0, 0, 0, 4));
        let low = _mm_and_si128(low, _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
        let high = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b10_10_01_01>(row));
        _mm_or_si128(low, _mm_and_si128(high, _mm_setr_epi32(0, 0x30303030, 0, 0x30303030)))
    }
}

/// The numbers of [`SuperLanes::sixteen_six_bits`] of a row as bytes. Its first 8 bytes have the low nibbles of 16 numbers, its
/// last 4 two more bits of each.
#[inline(always)]
unsafe fn sixteen_six_bits(row: *const u8) -> __m128i {
    // SAFETY: callers have AVX2, and the bytes are readable.
    unsafe {
        let low = _mm_loadl_epi64(row.cast());
        let low = _mm_and_si128(_mm_unpacklo_epi64(low, _mm_srli_epi16::<4>(low)), _mm_set1_epi8(15));
        let high = _mm_set1_epi32(row.add(8).cast::<i32>().read_unaligned());
        let high = _mm_and_si128(_mm_srlv_epi32(high, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
        _mm_or_si128(low, _mm_slli_epi16::<4>(high))
    }
}

/// The numbers of [`SuperLanes::eight_six_bits`] of a row.
#[inline(always)]
unsafe fn eight_six_bits(row: *const u8) -> __m256 {
    // SAFETY: callers have AVX2, and the bytes are readable.
    unsafe {
        let low = _mm256_set1_epi32(row.add(2).cast::<i32>().read_unaligned());
        let low = _mm256_srlv_epi32(low, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        let high = _mm256_set1_epi32(row.cast::<u16>().read_unaligned().into());
        let high = _mm256_srlv_epi32(
            _mm256_slli_epi32::<4>(high),
            _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14),
        );
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let high = _mm256_and_si256(high, _mm256_set1_epi32(48));
        _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32)))
    }
}

/// The low 128 bits, twice.
#[inline(always)]
unsafe fn permuted_low(v: __m256i) -> __m256i {
    // SAFETY: callers have AVX2.
    unsafe { _mm256_permute4x64_epi64::<0x44>(v) }
}

/// The high 128 bits, twice.
#[inline(always)]
unsafe fn permuted_high(v: __m256i) -> __m256i {
    // SAFETY: callers have AVX2.
    unsafe { _mm256_permute4x64_epi64::<0xee>(v) }
}

/// Takes one of eight shorts four times, and another one four times.
#[inline(always)]
fn order(a: usize, b: usize) -> __m128i {
    const FOUR_TIMES: i64 = 0x0001_0001_0001_0001;
    let bytes = |short: usize| (0x0100 + 0x0202 * short as i64) * FOUR_TIMES;
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { _mm_set_epi64x(bytes(b), bytes(a)) }
}

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> SuperLanes for Avx2<VNNI> {
    #[inline(always)]
    unsafe fn factors(rows: Rows) -> [__m256; 2] {
        let [a, b] = [
            rows[0].cast::<u16>().read_unaligned(),
            rows[1].cast::<u16>().read_unaligned(),
        ];
        [_mm256_set1_ps(Self::f16(a)), _mm256_set1_ps(Self::f16(b))]
    }

    #[inline(always)]
    unsafe fn factor_pairs(rows: Rows) -> [[__m256; 2]; 2] {
        let words = both!(_mm_loadu_si32([rows[0], rows[1]]));
        let floats = both!(_mm_cvtph_ps(words));
        let second = both!(_mm_movehdup_ps(floats));
        [
            both!(_mm256_broadcastss_ps(floats)),
            both!(_mm256_broadcastss_ps(second)),
        ]
    }

    #[inline(always)]
    unsafe fn row64(from: *const u8) -> [__m256i; 2] {
        both!(_mm256_loadu_si256([from.cast(), from.add(32).cast()]))
    }

    #[inline(always)]
    unsafe fn upward(v: [__m256i; 2], count: u32, mask: u8) -> [__m256i; 2] {
        let shifted = both!(_mm256_sll_epi16(v, [_mm_cvtsi32_si128(count as i32); 2]));
        both!(_mm256_and_si256(shifted, [_mm256_set1_epi8(mask as i8); 2]))
    }

    #[inline(always)]
    unsafe fn second_halved(v: [__m256i; 2]) -> [__m256i; 2] {
        [v[0], _mm256_srli_epi16::<4>(v[1])]
    }

    #[inline(always)]
    unsafe fn widened(rows: Rows) -> [__m256i; 2] {
        let rows = both!(_mm_loadu_si128([rows[0].cast(), rows[1].cast()]));
        both!(_mm256_cvtepi8_epi16(rows))
    }

    #[inline(always)]
    unsafe fn widened_nibbles(rows: Rows) -> [[__m256i; 2]; 2] {
        let rows = both!(_mm_loadu_si128([rows[0].cast(), rows[1].cast()]));
        let mask = [_mm_set1_epi8(15); 2];
        let low = both!(_mm_and_si128(rows, mask));
        let high = [_mm_srli_epi16::<4>(rows[0]), _mm_srli_epi16::<4>(rows[1])];
        let high = both!(_mm_and_si128(high, mask));
        [both!(_mm256_cvtepu8_epi16(low)), both!(_mm256_cvtepu8_epi16(high))]
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> [__m256i; 2] {
        let rows = both!(_mm_loadu_si128([rows[0].cast(), rows[1].cast()]));
        let bytes = both!(six_bits(rows));
        both!(_mm256_cvtepu8_epi16(bytes))
    }

    #[inline(always)]
    unsafe fn sixteen_six_bits(rows: Rows) -> [__m256i; 2] {
        let rows = [sixteen_six_bits(rows[0]), sixteen_six_bits(rows[1])];
        both!(_mm256_cvtepu8_epi16(rows))
    }

    #[inline(always)]
    unsafe fn eight_six_bits(rows: Rows) -> [__m256; 2] {
        both!(eight_six_bits(rows))
    }

    #[inline(always)]
    unsafe fn less(a: [__m256i; 2], b: i16) -> [__m256i; 2] {
        both!(_mm256_sub_epi16(a, [_mm256_set1_epi16(b); 2]))
    }

    #[inline(always)]
    unsafe fn times(a: [__m256i; 2], b: i16) -> [__m256i; 2] {
        both!(_mm256_mullo_epi16(a, [_mm256_set1_epi16(b); 2]))
    }

    #[inline(always)]
    unsafe fn spread(rows: [__m256i; 2], row: usize, two: usize, halves: bool) -> [[__m256i; 2]; 2] {
        // entries 0 to 7, and 8 to 15, each in both halves of a register
        let low = permuted_low(rows[row]);
        let both_halves = [low, if halves { permuted_high(rows[row]) } else { low }];
        let mut spread = [both_halves; 2];
        for (part, spread) in spread.iter_mut().enumerate() {
            for (half, spread) in spread.iter_mut().enumerate() {
                let first = |part: usize| if halves { 2 * part } else { part + 4 * half };
                let (a, b) = if VNNI {
                    (2 * two, 2 * two + 1)
                } else {
                    (2 * two + part, 2 * two + part)
                };
                let second = usize::from(halves);
                let order = _mm256_set_m128i(order(first(a) + second, first(b) + second), order(first(a), first(b)));
                *spread = _mm256_shuffle_epi8(*spread, order);
            }
        }
        spread
    }

    #[inline(always)]
    unsafe fn add_two(
        sums: [__m256i; 2],
        parts: [[__m256i; 2]; 2],
        x: *const u8,
        scales: [[__m256i; 2]; 2],
    ) -> [__m256i; 2] {
        let x = [Self::load64(x), Self::load64(x.add(64))];
        if VNNI {
            let zero = [_mm256_setzero_si256(); 2];
            let [a, b] = [
                both!(_mm256_dpbusd_avx_epi32(zero, parts[0], x[0])),
                both!(_mm256_dpbusd_avx_epi32(zero, parts[1], x[1])),
            ];
            // sums of four products fit into an i16: 4·63·127 < 2^15
            let packed = both!(_mm256_packs_epi32(a, b));
            return Self::add_products(sums, packed, scales[0]);
        }
        let sums = Self::add_products(sums, Self::pairs_unsigned(parts[0], x[0]), scales[0]);
        Self::add_products(sums, Self::pairs_unsigned(parts[1], x[1]), scales[1])
    }

    #[inline(always)]
    unsafe fn both_eights(from: *const f32) -> [__m256; 2] {
        [_mm256_loadu_ps(from); 2]
    }

    #[inline(always)]
    unsafe fn spread_four(v: [__m256; 2], row: usize, quad: usize) -> [__m256; 2] {
        let first = _mm256_set1_epi32(4 * quad as i32);
        let orders = [
            _mm256_add_epi32(first, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_add_epi32(first, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
        ];
        both!(_mm256_permutevar8x32_ps([v[row]; 2], orders))
    }

    #[inline(always)]
    unsafe fn folded_ints(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        [_mm256_add_epi32(a[0], a[1]), _mm256_add_epi32(b[0], b[1])]
    }
}
