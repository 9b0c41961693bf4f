//! Four neighbouring blocks in two registers, and what is picked of them.

use std::arch::x86_64::*;

use crate::product::lanes::Four;

impl Four {
    /// 64 bytes from [`first_at`] and 64 that end where four blocks do, with zeros for what is missing.
    #[inline(always)]
    pub(super) unsafe fn loaded<const BYTES: usize>(self) -> [__m512i; 2] {
        // SAFETY: the caller's promise.
        unsafe { self.loaded_from::<BYTES>(first_at(BYTES)) }
    }

    /// As [`Four::loaded`], the first load from another place.
    #[inline(always)]
    pub(super) unsafe fn loaded_from<const BYTES: usize>(self, first: isize) -> [__m512i; 2] {
        let end = (self.count * BYTES) as isize;
        // SAFETY: callers have AVX-512; bytes that are masked out are not read.
        unsafe {
            [
                load_between(self.from, first, end),
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
pub(super) struct Words([u16; 32]);

impl Words {
    #[inline(always)]
    pub(super) unsafe fn load(&self) -> __m512i {
        // SAFETY: callers have AVX-512.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// Numbers of bytes.
#[repr(align(64))]
pub(super) struct Bytes([u8; 64]);

impl Bytes {
    #[inline(always)]
    pub(super) unsafe fn load(&self) -> __m512i {
        // SAFETY: callers have AVX-512.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// What is picked of blocks of `BYTES` bytes that [`Four::loaded`] has loaded, from byte `AT` of each.
pub(super) struct Picked<const BYTES: usize, const AT: usize>;

impl<const BYTES: usize, const AT: usize> Picked<BYTES, AT> {
    /// 16 bytes of each block.
    pub(super) const SIXTEENS: Words = Self::words(8, 8, 16);
    /// Four bytes of each block, four times.
    pub(super) const WORDS: Words = Self::words(8, 2, 4);
    /// The two bytes that have the byte, or both, of each block in turn.
    const SHORTS: Words = Self::words(1, 1, 1);
    /// How far the byte is from the low end of these.
    pub(super) const SHIFTS: Words = {
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

    /// Bytes of two loads, from the first block on and as [`second_at`] says: 16 of each block.
    pub(super) const SIXTEENS_OF_BYTES: Bytes = {
        let mut bytes = [0; 64];
        let mut i = if BYTES > 32 { 64 } else { 0 };
        while i < 64 {
            let at = Self::at(i / 16);
            let from = if at + 16 <= 64 { at } else { 64 + at - second_at(BYTES) };
            bytes[i] = (from as usize + i % 16) as u8;
            i += 1;
        }
        Bytes(bytes)
    };
    /// Of the first of these loads the byte of each block in turn, four times.
    const SINGLES: Bytes = {
        let mut bytes = [0; 64];
        let mut i = if BYTES > 20 { 64 } else { 0 };
        while i < 64 {
            bytes[i] = Self::at(i / 4 % 4) as u8;
            i += 1;
        }
        Bytes(bytes)
    };

    /// Whether all of [`Picked::SHORTS`] are in the first load.
    const SHORTS_IN_FIRST: bool = Self::SHORTS.0[3] < 32;
}

/// The two bytes at, or around, byte `AT` of each of four times four blocks of `BYTES` bytes.
#[inline(always)]
pub(super) unsafe fn shorts<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> __m256i {
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

/// Byte `AT` of each of four times four blocks of `BYTES` bytes.
#[inline(always)]
pub(super) unsafe fn single_bytes<const BYTES: usize, const AT: usize>(fours: &[[Four; 2]; 2]) -> __m512i {
    // SAFETY: callers have AVX-512 with VBMI, and the blocks are readable.
    unsafe {
        let order = Picked::<BYTES, AT>::SINGLES.load();
        let mut all = _mm512_setzero_si512();
        for (i, four) in fours.as_flattened().iter().enumerate() {
            let [first, _] = four.loaded_from::<BYTES>(0);
            all = _mm512_mask_permutexvar_epi8(all, 0x8888 << (16 * i), order, first);
        }
        _mm512_srli_epi32::<24>(all)
    }
}
