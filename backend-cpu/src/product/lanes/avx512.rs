//! AVX-512 F, BW, VL and DQ, with or without VNNI: one register a vector.

use std::arch::{asm, x86_64::*};

use super::{
    Four, Lanes, PanelLanes, Rows,
    avx2::{self, sum},
};

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

impl Four {
    /// 64 bytes from [`first_at`] and 64 that end where four blocks do, with zeros for what is missing.
    #[inline(always)]
    unsafe fn loaded<const BYTES: usize>(self) -> [__m512i; 2] {
        let end = (self.count * BYTES) as isize;
        // SAFETY: callers have AVX-512; bytes that are masked out are not read.
        unsafe {
            [
                load_between(self.from, first_at(BYTES), end),
                load_between(self.from, second_at(BYTES), end),
            ]
        }
    }
}

/// 64 bytes from `from` + `at`, those before `from` and from `from` + `end` on as zeros, unread.
#[inline(always)]
unsafe fn load_between(from: *const u8, at: isize, end: isize) -> __m512i {
    let (before, there) = ((-at).max(0) as u32, (end - at).clamp(0, 64) as u32);
    let from = from.wrapping_offset(at);
    // SAFETY: the caller's promise.
    unsafe {
        if before == 0 && there == 64 {
            return _mm512_loadu_si512(from.cast());
        }
        let mask = u64::MAX.checked_shr(64 - there).unwrap_or(0) & u64::MAX << before;
        _mm512_maskz_loadu_epi8(mask, from.cast())
    }
}

/// Where the first load of [`Four::loaded`] begins. It must have every second block of an odd length at even places: words
/// are picked from it.
const fn first_at(bytes: usize) -> isize {
    -((bytes % 2) as isize)
}

/// Where the second one begins.
const fn second_at(bytes: usize) -> isize {
    4 * bytes as isize - 64
}

/// Numbers of words, or shifts of them.
#[repr(align(64))]
struct Words([u16; 32]);

impl Words {
    #[inline(always)]
    unsafe fn load(&self) -> __m512i {
        // SAFETY: callers have AVX-512.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// What is picked of blocks of `BYTES` bytes that [`Four::loaded`] has loaded, from byte `AT` of each.
struct Picked<const BYTES: usize, const AT: usize>;

impl<const BYTES: usize, const AT: usize> Picked<BYTES, AT> {
    /// 16 bytes of each block.
    const SIXTEENS: Words = Self::words(8, 8, 16);
    /// Four bytes of each block, four times.
    const WORDS: Words = Self::words(8, 2, 4);
    /// The two bytes that have the byte, or both, of each block in turn.
    const SHORTS: Words = Self::words(1, 1, 1);
    /// How far the byte is from the low end of these.
    const SHIFTS: Words = {
        let mut shifts = [0; 32];
        let mut i = 0;
        while i < 32 {
            shifts[i] = (Self::at(i % 4) - first_at(BYTES)) as u16 % 2 * 8;
            i += 1;
        }
        Words(shifts)
    };

    /// The place of a block's byte.
    const fn at(block: usize) -> isize {
        (block * BYTES + AT) as isize
    }

    /// `each` words of each block in turn, the same ones after `period`; `bytes` of them must be there.
    const fn words(each: usize, period: usize, bytes: isize) -> Words {
        let mut words = [0; 32];
        // of longer blocks nothing is picked: two loads do not have four of them
        let mut i = if BYTES > 32 { 32 } else { 0 };
        while i < 32 {
            let at = Self::at(i / each % 4);
            let (first, second) = (at - first_at(BYTES), at - second_at(BYTES));
            let whole = bytes == 1 || first % 2 == 0;
            let word = if whole && first + bytes <= 64 {
                first / 2
            } else {
                assert!(second >= 0 && second + bytes <= 64 && (bytes == 1 || second % 2 == 0));
                32 + second / 2
            };
            words[i] = word as u16 + (i % each % period) as u16;
            i += 1;
        }
        Words(words)
    }

    /// Whether all of [`Picked::SHORTS`] are in the first load.
    const SHORTS_IN_FIRST: bool = Self::SHORTS.0[3] < 32;
}

/// The two bytes at, or around, byte `AT` of each of eight blocks of `BYTES` bytes, in two rows.
#[inline(always)]
unsafe fn shorts<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> __m256i {
    // SAFETY: callers have AVX-512, and the blocks are readable.
    unsafe {
        let order = Picked::<BYTES, AT>::SHORTS.load();
        let mut all = _mm512_setzero_si512();
        for (i, four) in fours.as_flattened().iter().enumerate() {
            let [a, b] = four.loaded::<BYTES>();
            let four = if Picked::<BYTES, AT>::SHORTS_IN_FIRST {
                _mm512_permutexvar_epi16(order, a)
            } else {
                _mm512_permutex2var_epi16(a, order, b)
            };
            all = _mm512_mask_mov_epi16(all, 15 << (4 * i), four);
        }
        _mm512_castsi512_si256(all)
    }
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
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
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
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(four: Four) -> __m512i {
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
        let shifts = Picked::<BYTES, AT>::SHIFTS.load();
        let shorts = _mm256_srlv_epi16(shorts::<BYTES, AT>(fours), _mm512_castsi512_si256(shifts));
        let e = _mm512_cvtepu16_epi32(_mm256_and_si256(shorts, _mm256_set1_epi16(0xff)));
        let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
        let tiny = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
        let power = _mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x0020_0000), e);
        _mm512_castsi512_ps(power)
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
