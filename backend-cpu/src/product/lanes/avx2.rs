//! AVX2, FMA and F16C: two registers a vector.

use std::arch::x86_64::*;

use super::{Four, Lanes, PanelLanes, Rows};

/// AVX2, FMA and F16C, with the dot product instructions of AVX-VNNI or without.
pub(in super::super) struct Avx2<const VNNI: bool>;

/// Applies an intrinsic to both registers.
macro_rules! both {
    ($f:ident($($v:expr),+)) => { [$f($($v[0]),+), $f($($v[1]),+)] };
}

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

/// The numbers of [`Lanes::six_bits`] of a row as bytes. Of its dwords, after the first, a and b have the low bits of the
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

/// 16 bytes from byte `at` of a block.
#[inline(always)]
unsafe fn sixteen(block: *const u8, at: usize) -> __m128i {
    // SAFETY: callers have AVX2, and the bytes are readable.
    unsafe { _mm_loadu_si128(block.add(at).cast()) }
}

/// Puts what lies at byte `at` of blocks into places of a vector, one by one.
macro_rules! gathered {
    ($insert:ident, $as:ty, $at:expr, $($i:literal $block:expr),*) => {{
        let v = _mm_setzero_si128();
        $(let v = $insert::<$i>(v, $block.add($at).cast::<$as>().read_unaligned() as i32);)*
        v
    }};
}

/// The word at byte `at` of each of four blocks of `bytes` bytes.
#[inline(always)]
unsafe fn words(four: Four, bytes: usize, at: usize) -> __m128i {
    // SAFETY: callers have AVX2, and the bytes are readable. So for the others.
    unsafe {
        gathered!(_mm_insert_epi32, i32, at, 0 four.block(0, bytes), 1 four.block(1, bytes), 2 four.block(2, bytes),
            3 four.block(3, bytes))
    }
}

/// The 16 bits at byte `at` of each of eight blocks of `bytes` bytes.
#[inline(always)]
pub(super) unsafe fn shorts(fours: &[Four; 2], bytes: usize, at: usize) -> __m128i {
    let [a, b] = fours;
    // SAFETY: as above.
    unsafe {
        gathered!(_mm_insert_epi16, u16, at, 0 a.block(0, bytes), 1 a.block(1, bytes), 2 a.block(2, bytes),
            3 a.block(3, bytes), 4 b.block(0, bytes), 5 b.block(1, bytes), 6 b.block(2, bytes), 7 b.block(3, bytes))
    }
}

/// The byte at byte `at` of each of eight blocks of `bytes` bytes, then zeros.
#[inline(always)]
unsafe fn eight_bytes(fours: &[Four; 2], bytes: usize, at: usize) -> __m128i {
    let [a, b] = fours;
    // SAFETY: as above.
    unsafe {
        gathered!(_mm_insert_epi8, u8, at, 0 a.block(0, bytes), 1 a.block(1, bytes), 2 a.block(2, bytes),
            3 a.block(3, bytes), 4 b.block(0, bytes), 5 b.block(1, bytes), 6 b.block(2, bytes), 7 b.block(3, bytes))
    }
}

/// The high 128 bits, then zeros.
#[inline(always)]
unsafe fn upper_alone(v: __m256i) -> __m256i {
    // SAFETY: callers have AVX2.
    unsafe { _mm256_permute2x128_si256::<0x81>(v, v) }
}

/// The low 128 bits of both.
#[inline(always)]
unsafe fn low_halves(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: callers have AVX2.
    unsafe { _mm256_permute2x128_si256::<0x20>(a, b) }
}

/// The high 128 bits of both.
#[inline(always)]
unsafe fn high_halves(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: callers have AVX2.
    unsafe { _mm256_permute2x128_si256::<0x31>(a, b) }
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
    unsafe fn shorts(rows: [*const i16; 2]) -> [__m256i; 2] {
        both!(_mm256_loadu_si256([rows[0].cast(), rows[1].cast()]))
    }

    #[inline(always)]
    unsafe fn widened(rows: [[i8; 16]; 2]) -> [__m256i; 2] {
        let rows = both!(_mm_loadu_si128([rows[0].as_ptr().cast(), rows[1].as_ptr().cast()]));
        both!(_mm256_cvtepi8_epi16(rows))
    }

    #[inline(always)]
    unsafe fn six_bits(rows: Rows) -> [[__m256i; 2]; 2] {
        let rows = both!(_mm_loadu_si128([rows[0].cast(), rows[1].cast()]));
        let bytes = both!(six_bits(rows));
        let all = both!(_mm256_cvtepu8_epi16(bytes));
        [all, both!(upper_alone(all))]
    }

    #[inline(always)]
    unsafe fn times(a: [__m256i; 2], b: i16) -> [__m256i; 2] {
        both!(_mm256_mullo_epi16(a, [_mm256_set1_epi16(b); 2]))
    }

    #[inline(always)]
    unsafe fn spread(rows: [__m256i; 2], group: usize, halves: bool) -> [__m256i; 2] {
        // entries 0 to 7 of 8 groups, or those of four groups of two, in both halves of a register
        let quarter = if halves && group >= 4 {
            both!(permuted_high(rows))
        } else {
            both!(permuted_low(rows))
        };
        let [first, second] = if halves { [2 * group, 2 * group + 1] } else { [group; 2] };
        let byte = |entry: usize| 2 * (entry as i16 % 8);
        let order = _mm256_set_m128i(
            _mm_set1_epi16(byte(second) | (byte(second) + 1) << 8),
            _mm_set1_epi16(byte(first) | (byte(first) + 1) << 8),
        );
        both!(_mm256_shuffle_epi8(quarter, [order; 2]))
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
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(four: Four) -> [__m256i; 2] {
        let [a, b] = [sixteen(four.block(0, BYTES), AT), sixteen(four.block(1, BYTES), AT)];
        let [c, d] = [sixteen(four.block(2, BYTES), AT), sixteen(four.block(3, BYTES), AT)];
        [_mm256_set_m128i(b, a), _mm256_set_m128i(d, c)]
    }

    #[inline(always)]
    unsafe fn thirty_twos<const BYTES: usize, const AT: usize>(four: Four) -> [[__m256i; 2]; 2] {
        let first = Self::load32([four.block(0, BYTES).add(AT), four.block(2, BYTES).add(AT)]);
        let second = Self::load32([four.block(1, BYTES).add(AT), four.block(3, BYTES).add(AT)]);
        [both!(low_halves(first, second)), both!(high_halves(first, second))]
    }

    #[inline(always)]
    unsafe fn fifth_bits<const BYTES: usize, const AT: usize>(four: Four) -> [[__m256i; 2]; 2] {
        let words = _mm256_castsi128_si256(words(four, BYTES, AT));
        let each = [
            _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1)),
            _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3)),
        ];
        let low = [_mm256_set_epi64x(0x0101010101010101, 0, 0x0101010101010101, 0); 2];
        let high = _mm256_set_epi64x(
            0x0303030303030303,
            0x0202020202020202,
            0x0303030303030303,
            0x0202020202020202,
        );
        let bit = [_mm256_set1_epi64x(0x8040201008040201u64 as i64); 2];
        let sixteen = [_mm256_set1_epi8(16); 2];
        let low = both!(_mm256_and_si256(both!(_mm256_shuffle_epi8(each, low)), bit));
        let high = both!(_mm256_and_si256(both!(_mm256_shuffle_epi8(each, [high; 2])), bit));
        [
            both!(_mm256_and_si256(both!(_mm256_cmpeq_epi8(low, bit)), sixteen)),
            both!(_mm256_and_si256(both!(_mm256_cmpeq_epi8(high, bit)), sixteen)),
        ]
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> [__m256; 2] {
        let halves = [shorts(&fours[0], BYTES, AT), shorts(&fours[1], BYTES, AT)];
        both!(_mm256_cvtph_ps(halves))
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> [__m256; 2] {
        let bytes = [eight_bytes(&fours[0], BYTES, AT), eight_bytes(&fours[1], BYTES, AT)];
        let e = both!(_mm256_cvtepu8_epi32(bytes));
        let less = both!(_mm256_sub_epi32(e, [_mm256_set1_epi32(1); 2]));
        let normal = [_mm256_slli_epi32::<23>(less[0]), _mm256_slli_epi32::<23>(less[1])];
        let small = both!(_mm256_sllv_epi32([_mm256_set1_epi32(0x0020_0000); 2], e));
        let tiny = both!(_mm256_cmpgt_epi32([_mm256_set1_epi32(2); 2], e));
        let power = both!(_mm256_blendv_epi8(normal, small, tiny));
        both!(_mm256_castsi256_ps(power))
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
    unsafe fn no_shorts() -> [__m256i; 2] {
        [_mm256_setzero_si256(); 2]
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
