//! The instruction sets of x86-64.

use std::arch::x86_64::*;

use super::{EXP, Lanes, ROUND, WIDTH};

/// [`KernelSet::Avx2`](crate::kernel_set::KernelSet). Its functions are called from its kernels alone.
#[derive(Clone, Copy)]
pub struct Avx2;

// SAFETY, of all blocks in here: kernels of a set run only where the set was detected, and arrays have 16 entries.

impl Lanes for Avx2 {
    type V = [__m256; 2];

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn splat(x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(x: Self::V) -> [f32; WIDTH] {
        // SAFETY: two registers of 8 numbers, in memory as an array of 16.
        unsafe { std::mem::transmute(x) }
    }

    #[inline(always)]
    fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn total(x: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn widen(x: &[u16; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(8).cast())),
            ]
        }
    }

    #[inline(always)]
    fn narrow(x: Self::V) -> [u16; WIDTH] {
        let mut halves = [0; WIDTH];
        // SAFETY: see above; each half has eight numbers.
        unsafe {
            for (to, x) in halves.as_chunks_mut::<8>().0.iter_mut().zip(x) {
                _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
            }
        }
        halves
    }

    #[inline(always)]
    fn splat_half(x: u16) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_cvtph_ps(_mm_set1_epi16(x as i16)); 2] }
    }

    #[inline(always)]
    fn bytes(x: &[u8; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe { to_numbers(_mm_loadu_si128(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn nibbles(x: &[u8; WIDTH], upper: bool) -> Self::V {
        // SAFETY: see above.
        unsafe { to_numbers(less_8(x, upper)) }
    }

    #[inline(always)]
    fn max(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn largest(x: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe {
            let x = _mm256_max_ps(x[0], x[1]);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn fold([a, b, c, d]: [Self::V; 4]) -> Self::V {
        // SAFETY: see above.
        unsafe { [fold_half(a[0], b[0], c[0], d[0]), fold_half(a[1], b[1], c[1], d[1])] }
    }

    #[inline(always)]
    fn totals([a, b, c, d]: [Self::V; 4]) -> Self::V {
        // SAFETY: see above.
        unsafe { [total_pair(a, b), total_pair(c, d)] }
    }

    const ROOMY: bool = false;
}

/// The lower, or the upper, four bits of bytes, less 8, in bytes.
#[inline(always)]
unsafe fn less_8(x: &[u8; WIDTH], upper: bool) -> __m128i {
    // SAFETY: see above.
    unsafe {
        let x = _mm_loadu_si128(x.as_ptr().cast());
        let x = if upper { _mm_srli_epi16::<4>(x) } else { x };
        _mm_sub_epi8(_mm_and_si128(x, _mm_set1_epi8(15)), _mm_set1_epi8(8))
    }
}

/// Signed bytes as numbers.
#[inline(always)]
unsafe fn to_numbers(x: __m128i) -> [__m256; 2] {
    // SAFETY: see above.
    unsafe {
        let upper = _mm_unpackhi_epi64(x, x);
        [
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper)),
        ]
    }
}

#[inline(always)]
unsafe fn fold_half(a: __m256, b: __m256, c: __m256, d: __m256) -> __m256 {
    // SAFETY: see above.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let [ab, cd] = [_mm256_castps_pd(ab), _mm256_castps_pd(cd)];
        let [low, high] = [_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd)];
        _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
    }
}

#[inline(always)]
unsafe fn total_pair(a: [__m256; 2], b: [__m256; 2]) -> __m256 {
    // SAFETY: see above.
    unsafe {
        let (a, b) = (_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1]));
        let [low, high] = [
            _mm256_permute2f128_ps::<0x20>(a, b),
            _mm256_permute2f128_ps::<0x31>(a, b),
        ];
        _mm256_add_ps(low, high)
    }
}

/// [`KernelSet::Avx512`](crate::kernel_set::KernelSet). Its functions are called from its kernels alone.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Lanes for Avx512 {
    type V = __m512;

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn splat(x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(x: Self::V) -> [f32; WIDTH] {
        // SAFETY: a register of 16 numbers, in memory as an array of 16.
        unsafe { std::mem::transmute(x) }
    }

    #[inline(always)]
    fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn total(x: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(x) }
    }

    #[inline(always)]
    fn widen(x: &[u16; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn narrow(x: Self::V) -> [u16; WIDTH] {
        let mut halves = [0; WIDTH];
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_si256(
                halves.as_mut_ptr().cast(),
                _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x),
            );
        }
        halves
    }

    #[inline(always)]
    fn splat_half(x: u16) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(x as i16)) }
    }

    #[inline(always)]
    fn bytes(x: &[u8; WIDTH]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn nibbles(x: &[u8; WIDTH], upper: bool) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(less_8(x, upper))) }
    }

    #[inline(always)]
    fn max(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn largest(x: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    fn exp(x: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let round = _mm512_set1_ps(ROUND);
            let shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E), round);
            let n = _mm512_sub_ps(shifted, round);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-EXP[0]), x);
            let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-EXP[1]), r);
            let mut p = _mm512_set1_ps(EXP[2]);
            for c in &EXP[3..] {
                p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
            }
            let p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0));
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            let y = _mm512_add_epi32(_mm512_castps_si512(p), power);
            let seen = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(-87.3));
            let large = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_set1_ps(88.0));
            let y = _mm512_castsi512_ps(_mm512_maskz_mov_epi32(seen, y));
            _mm512_mask_mov_ps(y, large, _mm512_set1_ps(f32::INFINITY))
        }
    }

    #[inline(always)]
    fn fold([a, b, c, d]: [Self::V; 4]) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let [ab, cd] = [_mm512_castps_pd(ab), _mm512_castps_pd(cd)];
            let [low, high] = [_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd)];
            _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
        }
    }

    #[inline(always)]
    fn totals([a, b, c, d]: [Self::V; 4]) -> Self::V {
        // SAFETY: see above.
        unsafe { add_halves(add_halves(a, b), add_halves(c, d)) }
    }

    const ROOMY: bool = true;
}

/// Of each vector, the sums of its first and of its last two quarters.
#[inline(always)]
unsafe fn add_halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: see above.
    unsafe {
        let [even, odd] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)];
        _mm512_add_ps(even, odd)
    }
}
