//! AVX-512 F, BW, VL and DQ, with or without VNNI and VBMI: one register a vector.

mod picked;

use std::arch::x86_64::*;

use self::picked::{Picked, shorts, single_bytes};
use super::{
    Four, Lanes, PanelLanes, Rows,
    avx2::{self, sum},
};

/// AVX-512, with the dot product instructions of VNNI or without, and with VBMI's permutations of bytes or without.
pub(in super::super) struct Avx512<const VNNI: bool, const VBMI: bool = false>;

/// The lanes of the second row.
const SECOND: __mmask16 = 0xff00;

/// Where [`Lanes::spread`] takes the shorts of each group from: one for 32 codes, or one for 16.
static WHOLES: [[u16; 32]; 8] = orders(false);
static HALVES: [[u16; 32]; 8] = orders(true);

const fn orders(halves: bool) -> [[u16; 32]; 8] {
    let mut orders = [[0; 32]; 8];
    let mut i = 0;
    while i < 8 * 32 {
        let (group, lane) = (i / 32, i % 32);
        let entry = if halves { 2 * group + lane % 16 / 8 } else { group };
        orders[group][lane] = (lane / 16 * 16 + entry) as u16;
        i += 1;
    }
    orders
}

/// Eight times one of the values, eight times another.
#[inline(always)]
unsafe fn spread(v: __m128, first: i32, second: i32) -> __m512 {
    // SAFETY: callers have AVX-512.
    unsafe {
        let order = _mm512_mask_set1_epi32(_mm512_set1_epi32(first), SECOND, second);
        _mm512_permutexvar_ps(order, _mm512_castps128_ps512(v))
    }
}

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

// SAFETY of the intrinsics and reads: the trait's contract gives the features and the bytes.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool, const VBMI: bool> Lanes for Avx512<VNNI, VBMI> {
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
    unsafe fn factors(rows: Rows) -> __m512 {
        let first = _mm_loadu_si16(rows[0]);
        let both = _mm_insert_epi16::<1>(first, rows[1].cast::<u16>().read_unaligned().into());
        spread(_mm_cvtph_ps(both), 0, 1)
    }

    #[inline(always)]
    unsafe fn factor_pairs(rows: Rows) -> [__m512; 2] {
        let first = _mm_loadu_si32(rows[0]);
        let both = _mm_cvtph_ps(_mm_insert_epi32::<1>(first, rows[1].cast::<i32>().read_unaligned()));
        [spread(both, 0, 2), spread(both, 1, 3)]
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
    unsafe fn lookup_both(table: &[i8; 16], v: __m512i) -> [__m512i; 2] {
        let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
        let high = _mm512_srli_epi16::<4>(v);
        if VBMI {
            // six bits of a byte choose among four tables that are the same
            [_mm512_permutexvar_epi8(v, table), _mm512_permutexvar_epi8(high, table)]
        } else {
            let nibble = _mm512_set1_epi8(15);
            [
                _mm512_shuffle_epi8(table, _mm512_and_si512(v, nibble)),
                _mm512_shuffle_epi8(table, _mm512_and_si512(high, nibble)),
            ]
        }
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
    unsafe fn shorts(rows: [*const i16; 2]) -> __m512i {
        Self::load32(rows.map(|row| row.cast()))
    }

    #[inline(always)]
    unsafe fn widened(rows: [[i8; 16]; 2]) -> __m512i {
        let [a, b] = [
            _mm_loadu_si128(rows[0].as_ptr().cast()),
            _mm_loadu_si128(rows[1].as_ptr().cast()),
        ];
        _mm512_cvtepi8_epi16(_mm256_set_m128i(b, a))
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> [__m512i; 2] {
        let [a, b] = [_mm_loadu_si128(rows[0].cast()), _mm_loadu_si128(rows[1].cast())];
        let bytes = _mm256_set_m128i(avx2::six_bits(b), avx2::six_bits(a));
        let both = _mm512_cvtepu8_epi16(bytes);
        let upper = _mm512_setr_epi64(2, 3, 0, 0, 6, 7, 0, 0);
        [both, _mm512_maskz_permutexvar_epi64(0x33, upper, both)]
    }

    #[inline(always)]
    unsafe fn times(a: __m512i, b: i16) -> __m512i {
        _mm512_mullo_epi16(a, _mm512_set1_epi16(b))
    }

    #[inline(always)]
    unsafe fn spread(rows: __m512i, group: usize, halves: bool) -> __m512i {
        let order = if halves { &HALVES[group % 8] } else { &WHOLES[group % 8] };
        _mm512_permutexvar_epi16(_mm512_loadu_si512(order.as_ptr().cast()), rows)
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
            _mm512_dpwssd_epi32(sums, a, b)
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
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(four: Four) -> __m512i {
        if VBMI {
            let [a, b] = four.loaded_from::<BYTES>(0);
            return _mm512_permutex2var_epi8(a, Picked::<BYTES, AT>::SIXTEENS_OF_BYTES.load(), b);
        }
        let [a, b] = four.loaded::<BYTES>();
        _mm512_permutex2var_epi16(a, Picked::<BYTES, AT>::SIXTEENS.load(), b)
    }

    #[inline(always)]
    unsafe fn thirty_twos<const BYTES: usize, const AT: usize>(four: Four) -> [__m512i; 2] {
        let [a, b] = [four.block(0, BYTES).add(AT), four.block(1, BYTES).add(AT)];
        let [c, d] = [four.block(2, BYTES).add(AT), four.block(3, BYTES).add(AT)];
        let [first, second] = [Self::load32([a, b]), Self::load32([c, d])];
        [
            _mm512_shuffle_i64x2::<0b10_00_10_00>(first, second),
            _mm512_shuffle_i64x2::<0b11_01_11_01>(first, second),
        ]
    }

    #[inline(always)]
    unsafe fn fifth_bits<const BYTES: usize, const AT: usize>(four: Four) -> [__m512i; 2] {
        let [a, b] = four.loaded::<BYTES>();
        let words = _mm512_permutex2var_epi16(a, Picked::<BYTES, AT>::WORDS.load(), b);
        let first = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0101010101010101, 0));
        let last = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0303030303030303, 0x0202020202020202));
        let bit = _mm512_set1_epi64(0x8040201008040201u64 as i64);
        let first = _mm512_test_epi8_mask(_mm512_shuffle_epi8(words, first), bit);
        let last = _mm512_test_epi8_mask(_mm512_shuffle_epi8(words, last), bit);
        [_mm512_maskz_set1_epi8(first, 16), _mm512_maskz_set1_epi8(last, 16)]
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> __m512 {
        if BYTES > 32 {
            let [a, b] = [avx2::shorts(&fours[0], BYTES, AT), avx2::shorts(&fours[1], BYTES, AT)];
            return _mm512_cvtph_ps(_mm256_set_m128i(b, a));
        }
        _mm512_cvtph_ps(shorts::<BYTES, AT>(fours))
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> __m512 {
        let e = if VBMI {
            single_bytes::<BYTES, AT>(fours)
        } else {
            let shifts = Picked::<BYTES, AT>::SHIFTS.load();
            let shorts = _mm256_srlv_epi16(shorts::<BYTES, AT>(fours), _mm512_castsi512_si256(shifts));
            _mm512_cvtepu16_epi32(_mm256_and_si256(shorts, _mm256_set1_epi16(0xff)))
        };
        let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
        let tiny = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
        let power = _mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x0020_0000), e);
        _mm512_castsi512_ps(power)
    }

    #[inline(always)]
    unsafe fn spread_four(v: __m512, row: usize, quad: usize) -> __m512 {
        let first = _mm512_set1_epi32((8 * row + 4 * quad) as i32);
        let order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(_mm512_add_epi32(order, first), v)
    }

    #[inline(always)]
    unsafe fn folded(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
    }
}

// SAFETY of the intrinsics and reads: as above.
#[allow(unsafe_op_in_unsafe_fn)]
impl<const VNNI: bool, const VBMI: bool> PanelLanes for Avx512<VNNI, VBMI> {
    #[inline(always)]
    unsafe fn shifted(a: i32, count: u32) -> __m512i {
        _mm512_sra_epi32(_mm512_set1_epi32(a), _mm_cvtsi32_si128(count as i32))
    }

    #[inline(always)]
    unsafe fn no_shorts() -> __m512i {
        _mm512_setzero_si512()
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
