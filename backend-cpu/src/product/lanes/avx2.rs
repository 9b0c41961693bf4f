//! AVX2, FMA and F16C: two registers a vector.

use std::arch::x86_64::*;

use super::{Lanes, PanelLanes, Rows};

/// AVX2, FMA and F16C, with the dot product instructions of AVX-VNNI or without.
pub(in super::super) struct Avx2<const VNNI: bool>;

/// Applies an intrinsic to both registers.
macro_rules! both {
    ($f:ident($($v:expr),+)) => { [$f($($v[0]),+), $f($($v[1]),+)] };
}
pub(super) use both;

/// The sum of all values.
#[inline(always)]
pub(super) unsafe fn sum(v: __m256) -> f32 {
    // SAFETY: callers have AVX2.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// |w|, and x with the sign of each code turned where w's is negative, and 0 where w's is 0.
#[inline(always)]
unsafe fn sign_moved(w: [__m256i; 2], x: [__m256i; 2]) -> ([__m256i; 2], [__m256i; 2]) {
    // SAFETY: callers have AVX2.
    unsafe { (both!(_mm256_abs_epi8(w)), both!(_mm256_sign_epi8(x, w))) }
}

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> Lanes for Avx2<VNNI> {
    type Bytes = [__m256i; 2];
    type Floats = [__m256; 2];
    type Shorts = [__m256i; 2];
    type Ints = [__m256i; 2];
    const WHOLE_BYTES: bool = VNNI;

    #[inline(always)]
    fn prefetch(at: *const u8) {
        // SAFETY: a prefetch takes any address, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_NTA>(at.cast()) };
    }

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        [_mm256_setzero_ps(); 2]
    }

    #[inline(always)]
    unsafe fn splat(a: f32) -> [__m256; 2] {
        [_mm256_set1_ps(a); 2]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        both!(_mm256_loadu_ps([from, from.add(8)]))
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> [__m256; 2] {
        let mut values = [0f32; 16];
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), values.as_mut_ptr().cast(), 4 * count);
        Self::load(values.as_ptr())
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [__m256; 2]) {
        _mm256_storeu_ps(to, values[0]);
        _mm256_storeu_ps(to.add(8), values[1]);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [__m256; 2] {
        let halves = both!(_mm_loadu_si128([from.cast(), from.add(16).cast()]));
        both!(_mm256_cvtph_ps(halves))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [__m256; 2] {
        let halves = both!(_mm_loadu_si128([from.cast(), from.add(16).cast()]));
        let wide = both!(_mm256_cvtepu16_epi32(halves));
        let shifted = [_mm256_slli_epi32(wide[0], 16), _mm256_slli_epi32(wide[1], 16)];
        both!(_mm256_castsi256_ps(shifted))
    }

    #[inline(always)]
    unsafe fn f16(bits: u16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits))))
    }

    #[inline(always)]
    unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    unsafe fn fnma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    unsafe fn row_sums(v: [__m256; 2]) -> [f32; 2] {
        both!(sum(v))
    }

    #[inline(always)]
    unsafe fn load32(rows: Rows) -> [__m256i; 2] {
        both!(_mm256_loadu_si256([rows[0].cast(), rows[1].cast()]))
    }

    #[inline(always)]
    unsafe fn both(from: *const u8) -> [__m256i; 2] {
        [_mm256_loadu_si256(from.cast()); 2]
    }

    #[inline(always)]
    unsafe fn nibbles16(rows: Rows) -> [__m256i; 2] {
        let bytes = both!(_mm_loadu_si128([rows[0].cast(), rows[1].cast()]));
        let twice = both!(_mm256_broadcastsi128_si256(bytes));
        let shift = [_mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4); 2];
        let shifted = both!(_mm256_srlv_epi32(twice, shift));
        both!(_mm256_and_si256(shifted, [_mm256_set1_epi8(15); 2]))
    }

    #[inline(always)]
    unsafe fn bits(words: [u32; 2], value: u8) -> [__m256i; 2] {
        let spread = [_mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0); 2];
        let bit = [_mm256_set1_epi64x(0x8040201008040201u64 as i64); 2];
        let words = both!(_mm256_set1_epi32([words[0] as i32, words[1] as i32]));
        let bytes = both!(_mm256_shuffle_epi8(words, spread));
        let kept = both!(_mm256_and_si256(bytes, bit));
        let set = both!(_mm256_cmpeq_epi8(kept, bit));
        both!(_mm256_and_si256(set, [_mm256_set1_epi8(value as i8); 2]))
    }

    #[inline(always)]
    unsafe fn field(v: [__m256i; 2], count: u32, mask: u8) -> [__m256i; 2] {
        let shifted = both!(_mm256_srl_epi16(v, [_mm_cvtsi32_si128(count as i32); 2]));
        both!(_mm256_and_si256(shifted, [_mm256_set1_epi8(mask as i8); 2]))
    }

    #[inline(always)]
    unsafe fn shl4(v: [__m256i; 2]) -> [__m256i; 2] {
        [_mm256_slli_epi16(v[0], 4), _mm256_slli_epi16(v[1], 4)]
    }

    #[inline(always)]
    unsafe fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    unsafe fn sub(a: [__m256i; 2], b: u8) -> [__m256i; 2] {
        both!(_mm256_sub_epi8(a, [_mm256_set1_epi8(b as i8); 2]))
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], v: [__m256i; 2]) -> [__m256i; 2] {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        both!(_mm256_shuffle_epi8([table; 2], v))
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, v: [__m256i; 2]) {
        _mm256_storeu_si256(to.cast(), v[0]);
        _mm256_storeu_si256(to.add(32).cast(), v[1]);
    }

    #[inline(always)]
    unsafe fn no_ints() -> [__m256i; 2] {
        [_mm256_setzero_si256(); 2]
    }

    #[inline(always)]
    unsafe fn no_shorts() -> [__m256i; 2] {
        [_mm256_setzero_si256(); 2]
    }

    #[inline(always)]
    unsafe fn shorts(rows: [*const i16; 2]) -> [__m256i; 2] {
        both!(_mm256_loadu_si256([rows[0].cast(), rows[1].cast()]))
    }

    #[inline(always)]
    unsafe fn pairs_unsigned(w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        // two products fit into an i16 where |w·x| ≤ 128·127
        both!(_mm256_maddubs_epi16(w, x))
    }

    #[inline(always)]
    unsafe fn pairs_signed(w: [__m256i; 2], x: [__m256i; 2]) -> [__m256i; 2] {
        let (w, x) = sign_moved(w, x);
        Self::pairs_unsigned(w, x)
    }

    #[inline(always)]
    unsafe fn add_products(sums: [__m256i; 2], a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        if VNNI {
            return both!(_mm256_dpwssd_avx_epi32(sums, a, b));
        }
        let products = both!(_mm256_madd_epi16(a, b));
        both!(_mm256_add_epi32(sums, products))
    }

    #[inline(always)]
    unsafe fn floats(sums: [__m256i; 2]) -> [__m256; 2] {
        both!(_mm256_cvtepi32_ps(sums))
    }

    #[inline(always)]
    unsafe fn load64(from: *const u8) -> [__m256i; 2] {
        both!(_mm256_load_si256([from.cast(), from.add(32).cast()]))
    }

    #[inline(always)]
    unsafe fn add_dots(sums: [__m256i; 2], w: [__m256i; 2], x: [__m256i; 2], signed: bool) -> [__m256i; 2] {
        let (w, x) = if signed { sign_moved(w, x) } else { (w, x) };
        if VNNI {
            return both!(_mm256_dpbusd_avx_epi32(sums, w, x));
        }
        Self::add_products(sums, Self::pairs_unsigned(w, x), [_mm256_set1_epi16(1); 2])
    }

    #[inline(always)]
    unsafe fn folded(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        [_mm256_add_ps(a[0], a[1]), _mm256_add_ps(b[0], b[1])]
    }
}

// SAFETY of the intrinsics and reads: as above.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool> PanelLanes for Avx2<VNNI> {
    #[inline(always)]
    unsafe fn four(codes: i32) -> [__m256i; 2] {
        [_mm256_set1_epi32(codes); 2]
    }

    #[inline(always)]
    unsafe fn shifted(a: i32, count: u32) -> [__m256i; 2] {
        [_mm256_sra_epi32(_mm256_set1_epi32(a), _mm_cvtsi32_si128(count as i32)); 2]
    }

    #[inline(always)]
    unsafe fn add_shorts(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_add_epi16(a, b))
    }

    #[inline(always)]
    unsafe fn add_pairs(sums: [__m256i; 2], pairs: [__m256i; 2]) -> [__m256i; 2] {
        Self::add_products(sums, pairs, [_mm256_set1_epi16(1); 2])
    }

    #[inline(always)]
    unsafe fn turned16(rows: &[*const u8; 16]) -> [[__m256i; 2]; 4] {
        let mut v = [[_mm256_setzero_si256(); 2]; 4];
        for (i, v) in v.iter_mut().enumerate() {
            for (half, v) in v.iter_mut().enumerate() {
                let [low, high] = [rows[8 * half + i], rows[8 * half + 4 + i]];
                *v = _mm256_loadu2_m128i(high.cast(), low.cast());
            }
        }
        let a = both!(_mm256_unpacklo_epi32(v[0], v[1]));
        let b = both!(_mm256_unpackhi_epi32(v[0], v[1]));
        let c = both!(_mm256_unpacklo_epi32(v[2], v[3]));
        let d = both!(_mm256_unpackhi_epi32(v[2], v[3]));
        [
            both!(_mm256_unpacklo_epi64(a, c)),
            both!(_mm256_unpackhi_epi64(a, c)),
            both!(_mm256_unpacklo_epi64(b, d)),
            both!(_mm256_unpackhi_epi64(b, d)),
        ]
    }
}
