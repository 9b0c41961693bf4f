//! AVX-512 F, BW, VL and DQ, with or without VNNI: one register a vector.

use std::arch::{asm, x86_64::*};

use super::{Lanes, PanelLanes, Rows, avx2::sum};

/// AVX-512, with the dot product instructions of VNNI or without.
pub(in super::super) struct Avx512<const VNNI: bool>;

/// The lanes of the second row.
pub(super) const SECOND: __mmask16 = 0xff00;

/// |w|, and x with the sign of each code turned where w's is negative.
#[inline(always)]
unsafe fn sign_moved(w: __m512i, x: __m512i) -> (__m512i, __m512i) {
    // SAFETY: callers have AVX-512.
    unsafe {
        let negative = _mm512_movepi8_mask(w);
        let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
        (_mm512_abs_epi8(w), x)
    }
}

/// sums + a·b, two neighbours to a sum. By its name: for the intrinsic, the compiler puts a product and a sum, which makes
/// chains shorter, but here the number of instructions is what counts.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn dpwssd(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the features are enabled; registers are all that it touches.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) sums, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> Lanes for Avx512<VNNI> {
    type Bytes = __m512i;
    type Floats = __m512;
    type Shorts = __m512i;
    type Ints = __m512i;
    const WHOLE_BYTES: bool = VNNI;

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a prefetch takes any address, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline(always)]
    unsafe fn splat(a: f32) -> __m512 {
        _mm512_set1_ps(a)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> __m512 {
        _mm512_maskz_loadu_ps((1 << count) - 1, from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: __m512) {
        _mm512_storeu_ps(to, values);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))
    }

    #[inline(always)]
    unsafe fn f16(bits: u16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fnmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn row_sums(v: __m512) -> [f32; 2] {
        [sum(_mm512_castps512_ps256(v)), sum(_mm512_extractf32x8_ps(v, 1))]
    }

    #[inline(always)]
    unsafe fn load32(rows: Rows) -> __m512i {
        let first = _mm512_castsi256_si512(_mm256_loadu_si256(rows[0].cast()));
        _mm512_inserti64x4(first, _mm256_loadu_si256(rows[1].cast()), 1)
    }

    #[inline(always)]
    unsafe fn both(from: *const u8) -> __m512i {
        _mm512_broadcast_i64x4(_mm256_loadu_si256(from.cast()))
    }

    #[inline(always)]
    unsafe fn nibbles16(rows: Rows) -> __m512i {
        let first = _mm512_broadcast_i32x4(_mm_loadu_si128(rows[0].cast()));
        let all = _mm512_mask_broadcast_i32x4(first, SECOND, _mm_loadu_si128(rows[1].cast()));
        let shift = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
        _mm512_and_si512(_mm512_srlv_epi32(all, shift), _mm512_set1_epi8(15))
    }

    #[inline(always)]
    unsafe fn bits(words: [u32; 2], value: u8) -> __m512i {
        let mask = u64::from(words[0]) | u64::from(words[1]) << 32;
        _mm512_maskz_set1_epi8(mask, value as i8)
    }

    #[inline(always)]
    unsafe fn field(v: __m512i, count: u32, mask: u8) -> __m512i {
        let shifted = _mm512_srl_epi16(v, _mm_cvtsi32_si128(count as i32));
        _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn shl4(v: __m512i) -> __m512i {
        _mm512_slli_epi16(v, 4)
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: __m512i, b: u8) -> __m512i {
        _mm512_sub_epi8(a, _mm512_set1_epi8(b as i8))
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], v: __m512i) -> __m512i {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        _mm512_shuffle_epi8(table, v)
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, v: __m512i) {
        _mm512_storeu_si512(to.cast(), v);
    }

    #[inline(always)]
    unsafe fn no_ints() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline(always)]
    unsafe fn no_shorts() -> __m512i {
        _mm512_setzero_si512()
    }

    #[inline(always)]
    unsafe fn shorts(rows: [*const i16; 2]) -> __m512i {
        Self::load32(rows.map(|row| row.cast()))
    }

    #[inline(always)]
    unsafe fn pairs_unsigned(w: __m512i, x: __m512i) -> __m512i {
        _mm512_maddubs_epi16(w, x)
    }

    #[inline(always)]
    unsafe fn pairs_signed(w: __m512i, x: __m512i) -> __m512i {
        let (w, x) = sign_moved(w, x);
        Self::pairs_unsigned(w, x)
    }

    #[inline(always)]
    unsafe fn add_products(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        if VNNI {
            dpwssd(sums, a, b)
        } else {
            _mm512_add_epi32(sums, _mm512_madd_epi16(a, b))
        }
    }

    #[inline(always)]
    unsafe fn floats(sums: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(sums)
    }

    #[inline(always)]
    unsafe fn load64(from: *const u8) -> __m512i {
        _mm512_load_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn add_dots(sums: __m512i, w: __m512i, x: __m512i, signed: bool) -> __m512i {
        let (w, x) = if signed { sign_moved(w, x) } else { (w, x) };
        if VNNI {
            _mm512_dpbusd_epi32(sums, w, x)
        } else {
            Self::add_products(sums, Self::pairs_unsigned(w, x), _mm512_set1_epi16(1))
        }
    }

    #[inline(always)]
    unsafe fn folded(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
    }
}

// SAFETY of the intrinsics and reads: as above.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> PanelLanes for Avx512<VNNI> {
    #[inline(always)]
    unsafe fn shifted(a: i32, count: u32) -> __m512i {
        _mm512_sra_epi32(_mm512_set1_epi32(a), _mm_cvtsi32_si128(count as i32))
    }

    #[inline(always)]
    unsafe fn add_shorts(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi16(a, b)
    }

    #[inline(always)]
    unsafe fn add_pairs(sums: __m512i, pairs: __m512i) -> __m512i {
        Self::add_products(sums, pairs, _mm512_set1_epi16(1))
    }

    #[inline(always)]
    unsafe fn turned16(rows: &[*const u8; 16]) -> [__m512i; 4] {
        let mut v = [_mm512_setzero_si512(); 4];
        for (i, v) in v.iter_mut().enumerate() {
            let low = _mm512_castsi128_si512(_mm_loadu_si128(rows[i].cast()));
            let low = _mm512_inserti32x4::<1>(low, _mm_loadu_si128(rows[4 + i].cast()));
            let low = _mm512_inserti32x4::<2>(low, _mm_loadu_si128(rows[8 + i].cast()));
            *v = _mm512_inserti32x4::<3>(low, _mm_loadu_si128(rows[12 + i].cast()));
        }
        let [a, b] = [_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1])];
        let [c, d] = [_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3])];
        [
            _mm512_unpacklo_epi64(a, c),
            _mm512_unpackhi_epi64(a, c),
            _mm512_unpacklo_epi64(b, d),
            _mm512_unpackhi_epi64(b, d),
        ]
    }

    #[inline(always)]
    unsafe fn four(codes: i32) -> __m512i {
        _mm512_set1_epi32(codes)
    }

    /// The bits of a vector's number change places with those of a dword's.
    #[inline(always)]
    unsafe fn turned(rows: &[[u8; 64]; 8]) -> [__m512i; 8] {
        let mut v = [_mm512_setzero_si512(); 8];
        for (v, row) in v.iter_mut().zip(rows) {
            *v = _mm512_loadu_si512(row.as_ptr().cast());
        }
        for bit in 0..3 {
            let d = 1 << bit;
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let distance = _mm512_set1_epi32(d);
            let upper = _mm512_test_epi32_mask(lanes, distance);
            // lanes of the second operand are numbered from 16 on
            let low = _mm512_mask_add_epi32(lanes, upper, lanes, _mm512_set1_epi32(16 - d));
            let high = _mm512_mask_add_epi32(_mm512_add_epi32(lanes, distance), upper, lanes, _mm512_set1_epi32(16));
            for i in (0..8).filter(|i| i & d as usize == 0) {
                let (a, b) = (v[i], v[i + d as usize]);
                v[i] = _mm512_permutex2var_epi32(a, low, b);
                v[i + d as usize] = _mm512_permutex2var_epi32(a, high, b);
            }
        }
        v
    }
}
