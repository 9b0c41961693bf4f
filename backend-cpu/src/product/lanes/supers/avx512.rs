//! AVX-512 on blocks of 256.

use std::arch::x86_64::*;

use super::{
    super::{
        Avx512, Lanes, Rows,
        avx512::{SECOND, dpwssd},
    },
    SuperLanes,
};

/// Where [`SuperLanes::spread`] takes the shorts of each row's parts from: a part's sums of two products, or four sums of four
/// products of one part, four of the next one, and so on.
static ORDERS: [[[[u16; 32]; 4]; 2]; 2] = [orders(false, false), orders(true, false)];
static TWO_ORDERS: [[[[u16; 32]; 4]; 2]; 2] = [orders(false, true), orders(true, true)];

const fn orders(halves: bool, two: bool) -> [[[u16; 32]; 4]; 2] {
    let mut orders = [[[0; 32]; 4]; 2];
    let mut i = 0;
    while i < 2 * 4 * 32 {
        let (row, number, lane) = (i / 128, i / 32 % 4, i % 32);
        let part = if two { 2 * (number % 2) + lane / 4 % 2 } else { number };
        let entry = if halves {
            lane / 16 * 8 + 2 * part + lane / 8 % 2
        } else {
            lane / 16 * 4 + part
        };
        orders[row][number][lane] = (row * 16 + entry) as u16;
        i += 1;
    }
    orders
}

/// 16 bytes of each row.
#[inline(always)]
unsafe fn sixteens(rows: Rows) -> __m256i {
    // SAFETY: callers have AVX-512, and the bytes are readable.
    unsafe { _mm256_loadu2_m128i(rows[1].cast(), rows[0].cast()) }
}

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> SuperLanes for Avx512<VNNI> {
    #[inline(always)]
    unsafe fn factors(rows: Rows) -> __m512 {
        let [a, b] = [rows[0].cast::<i16>(), rows[1].cast::<i16>()];
        let first = _mm256_set1_epi16(a.read_unaligned());
        _mm512_cvtph_ps(_mm256_mask_set1_epi16(first, SECOND, b.read_unaligned()))
    }

    #[inline(always)]
    unsafe fn factor_pairs(rows: Rows) -> [__m512; 2] {
        let [a, b] = [rows[0].cast::<i32>(), rows[1].cast::<i32>()];
        let first = _mm256_set1_epi32(a.read_unaligned());
        let all = _mm512_cvtph_ps(_mm256_mask_set1_epi32(first, 0xf0, b.read_unaligned()));
        [_mm512_moveldup_ps(all), _mm512_movehdup_ps(all)]
    }

    #[inline(always)]
    unsafe fn row64(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn upward(v: __m512i, count: u32, mask: u8) -> __m512i {
        let shifted = _mm512_sll_epi16(v, _mm_cvtsi32_si128(count as i32));
        _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn second_halved(v: __m512i) -> __m512i {
        _mm512_mask_srli_epi16::<4>(v, 0xffff_0000, v)
    }

    #[inline(always)]
    unsafe fn widened(rows: Rows) -> __m512i {
        _mm512_cvtepi8_epi16(sixteens(rows))
    }

    #[inline(always)]
    unsafe fn widened_nibbles(rows: Rows) -> [__m512i; 2] {
        let (both, low) = (sixteens(rows), _mm256_set1_epi8(15));
        [
            _mm512_cvtepu8_epi16(_mm256_and_si256(both, low)),
            _mm512_cvtepu8_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(both), low)),
        ]
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> __m512i {
        let both = sixteens(rows);
        let low = _mm256_srlv_epi32(
            _mm256_shuffle_epi32::<0b11_10_11_01>(both),
            _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4),
        );
        let mask = _mm256_broadcastsi128_si256(_mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
        let high = _mm256_srli_epi32::<2>(_mm256_shuffle_epi32::<0b10_10_01_01>(both));
        let high = _mm256_and_si256(high, _mm256_set1_epi64x(0x30303030_00000000));
        _mm512_cvtepu8_epi16(_mm256_or_si256(_mm256_and_si256(low, mask), high))
    }

    #[inline(always)]
    unsafe fn sixteen_six_bits(rows: Rows) -> __m512i {
        let low = _mm256_set1_epi64x(rows[0].cast::<i64>().read_unaligned());
        let low = _mm256_mask_set1_epi64(low, 12, rows[1].cast::<i64>().read_unaligned());
        let high = _mm256_set1_epi32(rows[0].add(8).cast::<i32>().read_unaligned());
        let high = _mm256_mask_set1_epi32(high, 0xf0, rows[1].add(8).cast::<i32>().read_unaligned());
        let low = _mm256_srlv_epi64(low, _mm256_setr_epi64x(0, 4, 0, 4));
        // to the left by 4, 2, 0 and −2
        let high = _mm256_rolv_epi32(high, _mm256_setr_epi32(4, 2, 0, 30, 4, 2, 0, 30));
        let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
        let high = _mm256_and_si256(high, _mm256_set1_epi8(48));
        _mm512_cvtepu8_epi16(_mm256_or_si256(low, high))
    }

    #[inline(always)]
    unsafe fn eight_six_bits(rows: Rows) -> __m512 {
        let word = |at: *const u8| at.cast::<i32>().read_unaligned();
        let low = _mm512_mask_set1_epi32(_mm512_set1_epi32(word(rows[0].add(2))), SECOND, word(rows[1].add(2)));
        let high = _mm512_mask_set1_epi32(_mm512_set1_epi32(word(rows[0])), SECOND, word(rows[1]));
        let low = _mm512_srlv_epi32(
            low,
            _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28),
        );
        // to the left by 4, 2, 0, −2 and so on
        let turns = _mm512_setr_epi32(4, 2, 0, 30, 28, 26, 24, 22, 4, 2, 0, 30, 28, 26, 24, 22);
        let high = _mm512_and_si512(_mm512_rolv_epi32(high, turns), _mm512_set1_epi32(48));
        let number = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(15)), high);
        _mm512_cvtepi32_ps(_mm512_sub_epi32(number, _mm512_set1_epi32(32)))
    }

    #[inline(always)]
    unsafe fn less(a: __m512i, b: i16) -> __m512i {
        _mm512_sub_epi16(a, _mm512_set1_epi16(b))
    }

    #[inline(always)]
    unsafe fn times(a: __m512i, b: i16) -> __m512i {
        _mm512_mullo_epi16(a, _mm512_set1_epi16(b))
    }

    #[inline(always)]
    unsafe fn spread(rows: __m512i, row: usize, two: usize, halves: bool) -> [__m512i; 2] {
        if VNNI {
            let order = _mm512_loadu_si512(TWO_ORDERS[halves as usize][row % 2][two % 2].as_ptr().cast());
            return [_mm512_permutexvar_epi16(order, rows); 2];
        }
        let orders = &ORDERS[halves as usize][row % 2];
        let first = _mm512_loadu_si512(orders[2 * two % 4].as_ptr().cast());
        let second = _mm512_loadu_si512(orders[(2 * two + 1) % 4].as_ptr().cast());
        [
            _mm512_permutexvar_epi16(first, rows),
            _mm512_permutexvar_epi16(second, rows),
        ]
    }

    #[inline(always)]
    unsafe fn add_two(sums: __m512i, parts: [__m512i; 2], x: *const u8, scales: [__m512i; 2]) -> __m512i {
        let x = [Self::load64(x), Self::load64(x.add(64))];
        if VNNI {
            let zero = _mm512_setzero_si512();
            let a = _mm512_dpbusd_epi32(zero, parts[0], x[0]);
            let b = _mm512_dpbusd_epi32(zero, parts[1], x[1]);
            // sums of four products fit into an i16: 4·63·127 < 2^15
            return dpwssd(sums, _mm512_packs_epi32(a, b), scales[0]);
        }
        let sums = Self::add_products(sums, _mm512_maddubs_epi16(parts[0], x[0]), scales[0]);
        Self::add_products(sums, _mm512_maddubs_epi16(parts[1], x[1]), scales[1])
    }

    #[inline(always)]
    unsafe fn both_eights(from: *const f32) -> __m512 {
        _mm512_broadcast_f32x8(_mm256_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn spread_four(v: __m512, row: usize, quad: usize) -> __m512 {
        let first = _mm512_set1_epi32((8 * row + 4 * quad) as i32);
        let order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(_mm512_add_epi32(order, first), v)
    }

    #[inline(always)]
    unsafe fn folded_ints(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b))
    }
}
