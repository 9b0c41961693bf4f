//! AVX2.

use std::arch::x86_64::*;

use super::{Fours, SixteenLanes, chained};
use crate::product::lanes::Avx2;

/// Applies an intrinsic to both registers.
macro_rules! both {
    ($f:ident($($v:expr),+)) => { [$f($($v[0]),+), $f($($v[1]),+)] };
}

/// Puts what lies at byte `AT` of eight neighbouring lanes' blocks into places of a vector.
macro_rules! gathered {
    ($insert:ident, $as:ty, $fours:ident, $first:expr, $($i:literal)*) => {{
        let v = _mm_setzero_si128();
        $(let v = $insert::<$i>(v, {
            let block = $fours.fours[$i % 4].block($first + $i / 4, BYTES);
            block.add(AT).cast::<$as>().read_unaligned() as i32
        });)*
        v
    }};
}

/// 16 bits for each lane of a half.
#[inline(always)]
unsafe fn shorts<const BYTES: usize, const AT: usize>(fours: &Fours, half: usize) -> __m128i {
    // SAFETY: callers have AVX2, and the blocks are readable. So for the others.
    unsafe { gathered!(_mm_insert_epi16, u16, fours, 2 * half, 0 1 2 3 4 5 6 7) }
}

/// A byte for each lane of a half, then zeros.
#[inline(always)]
unsafe fn bytes<const BYTES: usize, const AT: usize>(fours: &Fours, half: usize) -> __m128i {
    // SAFETY: as above.
    unsafe { gathered!(_mm_insert_epi8, u8, fours, 2 * half, 0 1 2 3 4 5 6 7) }
}

/// Four bytes for each lane of a quarter.
#[inline(always)]
unsafe fn dwords<const BYTES: usize, const AT: usize>(fours: &Fours, quarter: usize) -> __m128i {
    // SAFETY: as above.
    unsafe { gathered!(_mm_insert_epi32, i32, fours, quarter, 0 1 2 3) }
}

/// Lane r of each quarter of `rows[q]` goes to lane q of that quarter of result r.
#[inline(always)]
unsafe fn turned(rows: [__m256i; 4]) -> [__m256i; 4] {
    let [a, b, c, d] = rows;
    // SAFETY: callers have AVX2.
    unsafe {
        let [e, f] = [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)];
        let [g, h] = [_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d)];
        [
            _mm256_unpacklo_epi64(e, g),
            _mm256_unpackhi_epi64(e, g),
            _mm256_unpacklo_epi64(f, h),
            _mm256_unpackhi_epi64(f, h),
        ]
    }
}

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> SixteenLanes for Avx2<VNNI> {
    #[inline(always)]
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(fours: &Fours) -> [[__m256i; 2]; 4] {
        let mut out = [[_mm256_setzero_si256(); 2]; 4];
        for half in 0..2 {
            let mut v = [_mm256_setzero_si256(); 4];
            for (v, four) in v.iter_mut().zip(&fours.fours) {
                let [a, b] = [
                    four.block(2 * half, BYTES).add(AT),
                    four.block(2 * half + 1, BYTES).add(AT),
                ];
                *v = _mm256_loadu2_m128i(b.cast(), a.cast());
            }
            for (out, v) in out.iter_mut().zip(turned(v)) {
                out[half] = v;
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn with_fifth_bits<const BYTES: usize, const AT: usize>(
        mut codes: [[__m256i; 2]; 8],
        fours: &Fours,
    ) -> [[__m256i; 2]; 8] {
        let bit = _mm256_set1_epi32(0x0804_0201);
        let sixteen = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 16, 16, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0));
        for half in 0..2 {
            let [low, high] = [
                dwords::<BYTES, AT>(fours, 2 * half),
                dwords::<BYTES, AT>(fours, 2 * half + 1),
            ];
            let words = _mm256_set_m128i(high, low);
            let nibbles = [words, _mm256_srli_epi32::<4>(words)];
            for (j, codes) in codes.iter_mut().enumerate() {
                let lane = |i: i32| 0x0101_0101 * (4 * i + j as i32 / 2);
                let order = _mm256_broadcastsi128_si256(_mm_setr_epi32(lane(0), lane(1), lane(2), lane(3)));
                let own = _mm256_and_si256(_mm256_shuffle_epi8(nibbles[j % 2], order), bit);
                codes[half] = _mm256_or_si256(codes[half], _mm256_shuffle_epi8(sixteen, own));
            }
        }
        codes
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &Fours) -> [__m256; 2] {
        let halves = [shorts::<BYTES, AT>(fours, 0), shorts::<BYTES, AT>(fours, 1)];
        both!(_mm256_cvtph_ps(halves))
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &Fours) -> [__m256; 2] {
        let bytes = [bytes::<BYTES, AT>(fours, 0), bytes::<BYTES, AT>(fours, 1)];
        let e = both!(_mm256_cvtepu8_epi32(bytes));
        let less = both!(_mm256_sub_epi32(e, [_mm256_set1_epi32(1); 2]));
        let normal = [_mm256_slli_epi32::<23>(less[0]), _mm256_slli_epi32::<23>(less[1])];
        let small = both!(_mm256_sllv_epi32([_mm256_set1_epi32(0x0020_0000); 2], e));
        let tiny = both!(_mm256_cmpgt_epi32([_mm256_set1_epi32(2); 2], e));
        let power = both!(_mm256_blendv_epi8(normal, small, tiny));
        both!(_mm256_castsi256_ps(power))
    }

    #[inline(always)]
    unsafe fn dots<const SIGNED: bool>(codes: &[[__m256i; 2]; 8], x: *const u8, largest: u8) -> [__m256i; 2] {
        let mut sums = [_mm256_setzero_si256(); 2];
        for half in 0..2 {
            let mut pairs = _mm256_setzero_si256();
            for (j, codes) in codes.iter().enumerate() {
                let w = codes[half];
                let x = _mm256_load_si256(x.add(64 * j + 32 * half).cast());
                let (w, x) = if SIGNED {
                    (_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
                } else {
                    (w, x)
                };
                if VNNI {
                    sums[half] = _mm256_dpbusd_avx_epi32(sums[half], w, x);
                    continue;
                }
                pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, x));
                if (j + 1) % chained(largest) == 0 {
                    let products = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                    sums[half] = _mm256_add_epi32(sums[half], products);
                    pairs = _mm256_setzero_si256();
                }
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn totals(rows: [[__m256; 2]; 4], rest: [__m256; 2]) -> [f32; 4] {
        let mut sums = [_mm256_setzero_si256(); 4];
        for (sums, row) in sums.iter_mut().zip(rows) {
            *sums = _mm256_castps_si256(_mm256_add_ps(row[0], row[1]));
        }
        let mut all = _mm256_add_ps(rest[0], rest[1]);
        for sums in turned(sums) {
            all = _mm256_add_ps(all, _mm256_castsi256_ps(sums));
        }
        let four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), four);
        out
    }
}
