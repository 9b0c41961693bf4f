//! AVX-512.

use std::arch::x86_64::*;

use super::{Fours, SixteenLanes, chained};
use crate::product::lanes::{Avx512, Four, Lanes};

/// 64 bytes from byte `at` of four blocks of `bytes` bytes, with zeros for what lies before them or beyond them, unread.
#[inline(always)]
unsafe fn load(four: Four, bytes: usize, at: isize) -> __m512i {
    let end = (four.count * bytes) as isize;
    let (before, there) = ((-at).max(0) as u32, (end - at).clamp(0, 64) as u32);
    let from = four.from.wrapping_offset(at);
    // SAFETY: callers have AVX-512; bytes that are masked out are not read.
    unsafe {
        if before == 0 && there == 64 {
            return _mm512_loadu_si512(from.cast());
        }
        let mask = u64::MAX.checked_shr(64 - there).unwrap_or(0) & u64::MAX << before;
        _mm512_maskz_loadu_epi8(mask, from.cast())
    }
}

/// Where the first of two loads begins that four blocks fit into. It must have every second block of an odd length at even
/// places: words are picked from it.
const fn first_at(bytes: usize) -> isize {
    -((bytes % 2) as isize)
}

/// Where the second one begins.
const fn second_at(bytes: usize) -> isize {
    4 * bytes as isize - 64
}

/// Four blocks of no more than 32 bytes.
#[inline(always)]
unsafe fn loaded(four: Four, bytes: usize) -> [__m512i; 2] {
    // SAFETY: callers have AVX-512.
    unsafe { [load(four, bytes, first_at(bytes)), load(four, bytes, second_at(bytes))] }
}

/// Numbers of words of two vectors, or shifts of words.
#[repr(align(64))]
struct Words([u16; 32]);

impl Words {
    #[inline(always)]
    unsafe fn load(&self) -> __m512i {
        // SAFETY: callers have AVX-512.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// What is picked of blocks of `BYTES` bytes that are [`loaded`], from byte `AT` of each.
struct Picked<const BYTES: usize, const AT: usize>;

impl<const BYTES: usize, const AT: usize> Picked<BYTES, AT> {
    /// 16 bytes of each block.
    const SIXTEENS: Words = {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 32 {
            words[i] = Self::word(i / 8, 16) + i as u16 % 8;
            i += 1;
        }
        Words(words)
    };
    /// Four bytes of each block, in the first lane of each quarter.
    const DWORDS: Words = {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 32 {
            words[i] = Self::word(i / 8, 4) + i as u16 % 2;
            i += 1;
        }
        Words(words)
    };
    /// Of two times four blocks, of which the first loads are enough, the two bytes that have the byte: in words 4·b + q and
    /// 4·b + q + 2 for block b of the q-th four.
    const SHORTS: Words = {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 32 {
            words[i] = Self::word(i / 4 % 4, 1) + 32 * (i as u16 % 2);
            i += 1;
        }
        Words(words)
    };
    /// Whether the first loads are enough for these.
    const NEAR: bool = BYTES <= 32 && Self::word(3, 1) < 32;
    /// How far the byte is from the low end of these.
    const SHIFTS: Words = {
        let mut shifts = [0; 32];
        let mut i = 0;
        while i < 32 {
            shifts[i] = (((i / 4 % 4) * BYTES + AT) as isize - first_at(BYTES)) as u16 % 2 * 8;
            i += 1;
        }
        Words(shifts)
    };

    /// The first of the words that have so many bytes of a block.
    const fn word(block: usize, bytes: isize) -> u16 {
        if BYTES > 32 {
            // of such blocks nothing is picked: two loads do not have four of them
            return 0;
        }
        let at = (block * BYTES + AT) as isize;
        let (first, second) = (at - first_at(BYTES), at - second_at(BYTES));
        let whole = bytes == 1 || first % 2 == 0;
        if whole && first + bytes <= 64 {
            return first as u16 / 2;
        }
        assert!(second >= 0 && second + bytes <= 64 && (bytes == 1 || second % 2 == 0));
        32 + second as u16 / 2
    }
}

/// The same of sixteen neighbours that [`row`] has loaded.
struct PickedOfRow<const BYTES: usize, const AT: usize>;

impl<const BYTES: usize, const AT: usize> PickedOfRow<BYTES, AT> {
    /// Whether each four are in two neighbouring vectors.
    const FITS: bool = BYTES.is_multiple_of(2) && 16 * BYTES > 256 && 16 * BYTES <= 320;
    /// 16 bytes of each block of the q-th four, from vector q and the next one.
    const SIXTEENS: [Words; 4] = [
        Self::sixteens(0),
        Self::sixteens(1),
        Self::sixteens(2),
        Self::sixteens(3),
    ];
    /// The word of each block, if it is in the first two vectors, in the next two, or in the last one.
    const SHORTS: [Words; 3] = [Self::shorts(0), Self::shorts(1), Self::shorts(2)];
    /// Which are in the next two, and which in the last one.
    const LATER: [__mmask32; 2] = [Self::in_pair(1), Self::in_pair(2)];

    const fn sixteens(q: usize) -> Words {
        let mut words = [0; 32];
        let mut i = if Self::FITS { 0 } else { 32 };
        while i < 32 {
            let at = (4 * q + i / 8) * BYTES + AT + i % 8 * 2;
            let [this, next] = [64 * q, if q == 3 { 16 * BYTES - 64 } else { 64 * q + 64 }];
            words[i] = if at < this + 64 { at - this } else { 64 + at - next } as u16 / 2;
            i += 1;
        }
        Words(words)
    }

    /// Where the byte of lane `i` lies.
    const fn at(i: usize) -> usize {
        (i % 4 * 4 + i / 4) * BYTES + AT
    }

    const fn shorts(pair: usize) -> Words {
        let mut words = [0; 32];
        let mut i = if Self::FITS { 0 } else { 16 };
        while i < 16 {
            if Self::at(i) / 128 == pair {
                let start = if pair == 2 { 16 * BYTES - 64 } else { 128 * pair };
                words[i] = ((Self::at(i) - start) / 2) as u16;
            }
            i += 1;
        }
        Words(words)
    }

    const fn in_pair(pair: usize) -> __mmask32 {
        let (mut mask, mut i) = (0, 0);
        while i < 16 {
            if Self::at(i) / 128 == pair {
                mask |= 1 << i;
            }
            i += 1;
        }
        mask
    }
}

/// Sixteen neighbours of `bytes` bytes, from 256 to 320 in all: five vectors side by side, of which the last one ends with
/// them. Fewer loads than four times two.
#[inline(always)]
unsafe fn row(fours: &Fours, bytes: usize) -> [__m512i; 5] {
    let from = fours.fours[0].from;
    // SAFETY: callers have AVX-512, and the blocks are readable. So for the others.
    unsafe {
        [
            _mm512_loadu_si512(from.cast()),
            _mm512_loadu_si512(from.add(64).cast()),
            _mm512_loadu_si512(from.add(128).cast()),
            _mm512_loadu_si512(from.add(192).cast()),
            _mm512_loadu_si512(from.add(16 * bytes - 64).cast()),
        ]
    }
}

/// The two bytes from byte `AT` of each of sixteen neighbours.
#[inline(always)]
unsafe fn shorts_of_row<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let v = row(fours, BYTES);
        let [first, next, last] = &PickedOfRow::<BYTES, AT>::SHORTS;
        let [in_next, in_last] = PickedOfRow::<BYTES, AT>::LATER;
        let all = _mm512_permutex2var_epi16(v[0], first.load(), v[1]);
        let all = _mm512_mask_mov_epi16(all, in_next, _mm512_permutex2var_epi16(v[2], next.load(), v[3]));
        let all = _mm512_mask_mov_epi16(all, in_last, _mm512_permutexvar_epi16(last.load(), v[4]));
        _mm512_castsi512_si256(all)
    }
}

/// Words 4·b + q with q ≥ 2.
const LAST_FOURS: __mmask32 = 0xcccc;

/// The two bytes that have byte `AT` of each block.
#[inline(always)]
unsafe fn shorts<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m256i {
    // SAFETY: callers have AVX-512, and the blocks are readable. So for the others.
    unsafe {
        let order = Picked::<BYTES, AT>::SHORTS.load();
        let [a, b] = [
            load(fours.fours[0], BYTES, first_at(BYTES)),
            load(fours.fours[1], BYTES, first_at(BYTES)),
        ];
        let [c, d] = [
            load(fours.fours[2], BYTES, first_at(BYTES)),
            load(fours.fours[3], BYTES, first_at(BYTES)),
        ];
        let first = _mm512_permutex2var_epi16(a, order, b);
        let last = _mm512_permutex2var_epi16(c, order, d);
        _mm512_castsi512_si256(_mm512_mask_mov_epi16(first, LAST_FOURS, last))
    }
}

/// Lane r of each quarter of `rows[q]` goes to lane q of that quarter of result r.
#[inline(always)]
unsafe fn turned(rows: [__m512i; 4]) -> [__m512i; 4] {
    let [a, b, c, d] = rows;
    // SAFETY: callers have AVX-512.
    unsafe {
        let [e, f] = [_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)];
        let [g, h] = [_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d)];
        [
            _mm512_unpacklo_epi64(e, g),
            _mm512_unpackhi_epi64(e, g),
            _mm512_unpacklo_epi64(f, h),
            _mm512_unpackhi_epi64(f, h),
        ]
    }
}

/// Four bytes from byte `AT` of each block.
#[inline(always)]
unsafe fn dwords<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m512i {
    // SAFETY: as above.
    unsafe {
        let mut v = [_mm512_setzero_si512(); 4];
        for (v, four) in v.iter_mut().zip(&fours.fours) {
            let [a, b] = loaded(*four, BYTES);
            *v = _mm512_permutex2var_epi16(a, Picked::<BYTES, AT>::DWORDS.load(), b);
        }
        turned(v)[0]
    }
}

/// Bit k of a lane's number is 16 in byte k.
#[inline(always)]
unsafe fn spread_bits() -> __m512i {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut i = 0;
        while i < 64 {
            table[i / 4] |= ((((i / 4) >> (i % 4)) & 1) << (8 * (i % 4) + 4)) as u32;
            i += 1;
        }
        table
    };
    // SAFETY: callers have AVX-512.
    unsafe { _mm512_loadu_si512(TABLE.as_ptr().cast()) }
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
impl<const VNNI: bool> SixteenLanes for Avx512<VNNI> {
    const TWO_ROWS: bool = true;

    #[inline(always)]
    unsafe fn sixteens<const BYTES: usize, const AT: usize>(fours: &Fours) -> [__m512i; 4] {
        let mut v = [_mm512_setzero_si512(); 4];
        if fours.neighbours && PickedOfRow::<BYTES, AT>::FITS {
            let row = row(fours, BYTES);
            for (q, v) in v.iter_mut().enumerate() {
                let order = PickedOfRow::<BYTES, AT>::SIXTEENS[q].load();
                *v = _mm512_permutex2var_epi16(row[q], order, row[q + 1]);
            }
            return turned(v);
        }
        for (v, four) in v.iter_mut().zip(&fours.fours) {
            let [a, b] = loaded(*four, BYTES);
            *v = _mm512_permutex2var_epi16(a, Picked::<BYTES, AT>::SIXTEENS.load(), b);
        }
        turned(v)
    }

    #[inline(always)]
    unsafe fn thirty_twos<const BYTES: usize, const AT: usize>(fours: &Fours) -> [__m512i; 8] {
        let mut v = [[_mm512_setzero_si512(); 4]; 2];
        for (q, four) in fours.fours.iter().enumerate() {
            let [a, b] = [four.block(0, BYTES).add(AT), four.block(1, BYTES).add(AT)];
            let [c, d] = [four.block(2, BYTES).add(AT), four.block(3, BYTES).add(AT)];
            let [first, second] = [Self::load32([a, b]), Self::load32([c, d])];
            v[0][q] = _mm512_shuffle_i64x2::<0b10_00_10_00>(first, second);
            v[1][q] = _mm512_shuffle_i64x2::<0b11_01_11_01>(first, second);
        }
        let [[a, b, c, d], [e, f, g, h]] = [turned(v[0]), turned(v[1])];
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    unsafe fn with_fifth_bits<const BYTES: usize, const AT: usize>(
        mut codes: [__m512i; 8],
        fours: &Fours,
    ) -> [__m512i; 8] {
        let (words, spread) = (dwords::<BYTES, AT>(fours), spread_bits());
        macro_rules! add {
            ($($j:literal)*) => {$({
                // of a lane's number, bits beyond the fourth are of no account
                let bits = _mm512_permutexvar_epi32(_mm512_srli_epi32::<{ 4 * $j }>(words), spread);
                codes[$j] = _mm512_or_si512(codes[$j], bits);
            })*};
        }
        add!(0 1 2 3 4 5 6 7);
        codes
    }

    #[inline(always)]
    unsafe fn halves<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m512 {
        if fours.neighbours && PickedOfRow::<BYTES, AT>::FITS {
            _mm512_cvtph_ps(shorts_of_row::<BYTES, AT>(fours))
        } else if Picked::<BYTES, AT>::NEAR {
            _mm512_cvtph_ps(shorts::<BYTES, AT>(fours))
        } else if BYTES <= 32 {
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(dwords::<BYTES, AT>(fours)))
        } else {
            _mm512_cvtph_ps(distant_shorts::<BYTES, AT>(fours))
        }
    }

    #[inline(always)]
    unsafe fn powers<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m512 {
        let shifts = Picked::<BYTES, AT>::SHIFTS.load();
        let shorts = _mm256_srlv_epi16(shorts::<BYTES, AT>(fours), _mm512_castsi512_si256(shifts));
        let e = _mm512_cvtepu16_epi32(_mm256_and_si256(shorts, _mm256_set1_epi16(0xff)));
        let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
        let tiny = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
        let power = _mm512_mask_sllv_epi32(normal, tiny, _mm512_set1_epi32(0x0020_0000), e);
        _mm512_castsi512_ps(power)
    }

    #[inline(always)]
    unsafe fn dots<const SIGNED: bool>(codes: &[__m512i; 8], x: *const u8, largest: u8) -> __m512i {
        let mut sums = [_mm512_setzero_si512(); 2];
        let mut pairs = _mm512_setzero_si512();
        for (j, &w) in codes.iter().enumerate() {
            let x = Self::load64(x.add(64 * j));
            let (w, x) = if SIGNED { sign_moved(w, x) } else { (w, x) };
            if VNNI {
                sums[j % 2] = _mm512_dpbusd_epi32(sums[j % 2], w, x);
                continue;
            }
            pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w, x));
            if (j + 1) % chained(largest) == 0 {
                sums[0] = Self::add_products(sums[0], pairs, _mm512_set1_epi16(1));
                pairs = _mm512_setzero_si512();
            }
        }
        _mm512_add_epi32(sums[0], sums[1])
    }

    #[inline(always)]
    unsafe fn totals(rows: [__m512; 4], rest: __m512) -> [f32; 4] {
        let mut ints = [_mm512_setzero_si512(); 4];
        for (ints, row) in ints.iter_mut().zip(rows) {
            *ints = _mm512_castps_si512(row);
        }
        let mut v = [rest; 4];
        for (v, ints) in v.iter_mut().zip(turned(ints)) {
            *v = _mm512_castsi512_ps(ints);
        }
        let all = _mm512_add_ps(_mm512_add_ps(v[0], v[1]), _mm512_add_ps(v[2], v[3]));
        let all = _mm512_add_ps(all, rest);
        let eight = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let mut out = [0.0; 4];
        _mm_storeu_ps(out.as_mut_ptr(), four);
        out
    }
}

/// The two bytes from byte `AT` of each block of `BYTES` bytes, of which two are no more than 64 bytes apart.
#[inline(always)]
unsafe fn distant_shorts<const BYTES: usize, const AT: usize>(fours: &Fours) -> __m256i {
    let order = const {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 16 {
            words[i] = (i / 4 / 2 * 32 + (i / 4 % 2 * BYTES + AT) / 2) as u16;
            i += 1;
        }
        Words(words)
    };
    // SAFETY: callers have AVX-512, and the blocks are readable.
    unsafe {
        let order = order.load();
        let mut all = _mm512_setzero_si512();
        for (q, four) in fours.fours.iter().enumerate() {
            let [a, b] = [load(*four, BYTES, 0), load(*four, BYTES, 2 * BYTES as isize)];
            let picked = _mm512_permutex2var_epi16(a, order, b);
            all = _mm512_mask_mov_epi16(all, 0x1111 << q, picked);
        }
        _mm512_castsi512_si256(all)
    }
}
