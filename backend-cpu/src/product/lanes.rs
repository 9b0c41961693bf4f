//! The vector operations that the kernels are written in, once for all instruction sets.
//!
//! In every set a vector has 64 bytes, or 16 f32. The integer kernels see it as two rows of 32 codes, and of 8 partial
//! sums; the exact ones as 16 values of a row. AVX2 holds it in two registers, AVX-512 in one.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
mod sixteens;
mod supers;

pub(super) use sixteens::{Fours, SixteenLanes};
#[cfg(target_arch = "x86_64")]
pub(super) use {avx2::Avx2, avx512::Avx512};
pub(super) use {scalar::Scalar, supers::SuperLanes};

/// Where two rows' bytes lie.
pub(super) type Rows = [*const u8; 2];

/// `rows`, `bytes` further on.
///
/// # Safety
/// Both rows have that many bytes.
#[inline(always)]
pub(super) unsafe fn at(rows: Rows, bytes: usize) -> Rows {
    // SAFETY: the caller's promise.
    unsafe { [rows[0].add(bytes), rows[1].add(bytes)] }
}

/// Four neighbouring blocks of a row, of which some may be missing at the row's end: nothing beyond it is read, and what
/// stands for a missing block is any finite one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Four {
    /// The first block.
    pub from: *const u8,
    /// How many there are, from 1.
    pub count: usize,
}

impl Four {
    /// Block `i` of `bytes` bytes, the last one for those that are missing.
    #[inline(always)]
    fn block(self, i: usize, bytes: usize) -> *const u8 {
        self.from.wrapping_add(i.min(self.count - 1) * bytes)
    }
}

/// An instruction set.
///
/// # Safety
/// All methods may be called only where the processor has the set's features, and inlined into a function that enables
/// them. Pointers are readable for as many values as the method names, and need no alignment.
pub(super) trait Lanes {
    /// Two rows of 32 codes.
    type Bytes: Copy;
    /// Two rows of 8 sums, or 16 values.
    type Floats: Copy;
    /// Two rows of 16 products, or of factors of them.
    type Shorts: Copy;
    /// Two rows of 8 whole sums.
    type Ints: Copy;
    /// Whether [`Lanes::add_dots`] takes unsigned codes up to 255 rather than up to 127.
    const WHOLE_BYTES: bool = false;

    /// Asks for the cache line at an address, which need not be readable, for one use: weights come again when all others have
    /// been read, and need not drive out what the second cache holds.
    fn prefetch(_at: *const u8) {}
    /// Sixteen zeros.
    unsafe fn zero() -> Self::Floats;
    /// Sixteen times `a`.
    unsafe fn splat(a: f32) -> Self::Floats;
    /// Sixteen values.
    unsafe fn load(from: *const f32) -> Self::Floats;
    /// `count` < 16 values, then zeros.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::Floats;
    /// Stores sixteen values.
    unsafe fn store(to: *mut f32, values: Self::Floats);
    /// Sixteen f16 values.
    unsafe fn load_f16(from: *const u8) -> Self::Floats;
    /// Sixteen bf16 values.
    unsafe fn load_bf16(from: *const u8) -> Self::Floats;
    /// One f16 value.
    unsafe fn f16(bits: u16) -> f32;
    /// a·b.
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// a·b + c.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// c − a·b.
    unsafe fn fnma(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The sum of the first row's 8 and of the second row's.
    unsafe fn row_sums(v: Self::Floats) -> [f32; 2];

    /// 32 bytes of each row.
    unsafe fn load32(rows: Rows) -> Self::Bytes;
    /// The same 32 bytes for both rows.
    unsafe fn both(from: *const u8) -> Self::Bytes;
    /// The low nibbles of 16 bytes of each row, then their high nibbles.
    unsafe fn nibbles16(rows: Rows) -> Self::Bytes;
    /// `value` where a row's word has a bit, 0 elsewhere; bit j is byte j.
    unsafe fn bits(words: [u32; 2], value: u8) -> Self::Bytes;
    /// Every byte shifted right by `count`, cut to `mask`.
    unsafe fn field(v: Self::Bytes, count: u32, mask: u8) -> Self::Bytes;
    /// Every byte, below 16, shifted left by 4.
    unsafe fn shl4(v: Self::Bytes) -> Self::Bytes;
    /// a | b.
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Every byte less `b`, wrapping.
    unsafe fn sub(a: Self::Bytes, b: u8) -> Self::Bytes;
    /// The table's entry for every byte, all of them below 16.
    unsafe fn lookup(table: &[i8; 16], v: Self::Bytes) -> Self::Bytes;
    /// Stores 64 bytes.
    unsafe fn store_bytes(to: *mut u8, v: Self::Bytes);
    /// Sixteen whole zeros.
    unsafe fn no_ints() -> Self::Ints;
    /// Two rows of 16 zeros.
    unsafe fn no_shorts() -> Self::Shorts;
    /// 16 shorts of each row.
    unsafe fn shorts(rows: [*const i16; 2]) -> Self::Shorts;
    /// Sums of two products of the same 16 codes, for w from 0 to 127 and x from −127 to 127.
    unsafe fn pairs_unsigned(w: Self::Bytes, x: Self::Bytes) -> Self::Shorts;
    /// The same, for w from −128.
    unsafe fn pairs_signed(w: Self::Bytes, x: Self::Bytes) -> Self::Shorts;
    /// sums + a·b, two neighbours to a sum.
    unsafe fn add_products(sums: Self::Ints, a: Self::Shorts, b: Self::Shorts) -> Self::Ints;
    /// As floats.
    unsafe fn floats(sums: Self::Ints) -> Self::Floats;
    /// 64 bytes, aligned.
    unsafe fn load64(from: *const u8) -> Self::Bytes;
    /// sums + w·x over the four codes of each lane, for w from 0 to 127, or more with [`Lanes::WHOLE_BYTES`], or with
    /// `signed` from −128, and x from −127 to 127.
    unsafe fn add_dots(sums: Self::Ints, w: Self::Bytes, x: Self::Bytes, signed: bool) -> Self::Ints;

    /// The sums of a's first and last eight values, then of b's.
    unsafe fn folded(a: Self::Floats, b: Self::Floats) -> Self::Floats;
}

/// What panels ask of an instruction set beside [`Lanes`].
///
/// # Safety
/// As there.
#[cfg(target_arch = "x86_64")]
pub(super) trait PanelLanes: Lanes {
    /// Whether sums of pairs of products in 16 bits are a step of their own, so that it pays to add up several before they
    /// widen.
    const PAIRS: bool = !Self::WHOLE_BYTES;

    /// `a` in every lane, shifted right by `count`.
    unsafe fn shifted(a: i32, count: u32) -> Self::Ints;
    /// a + b.
    unsafe fn add_shorts(a: Self::Shorts, b: Self::Shorts) -> Self::Shorts;
    /// sums + pairs, two neighbours to a sum.
    unsafe fn add_pairs(sums: Self::Ints, pairs: Self::Shorts) -> Self::Ints;
    /// The same four codes in each of the sixteen lanes.
    unsafe fn four(codes: i32) -> Self::Bytes;

    /// 16 bytes of each of 16 rows, as four vectors with one dword of each row.
    unsafe fn turned16(rows: &[*const u8; 16]) -> [Self::Bytes; 4];

    /// Eight vectors, each with eight dwords of one row and eight of another, as eight with one dword of each row: the first
    /// rows' eight, then the second rows'.
    #[inline(always)]
    unsafe fn turned(rows: &[[u8; 64]; 8]) -> [Self::Bytes; 8] {
        let mut lanes = [[[0; 4]; 16]; 8];
        for (i, row) in rows.iter().enumerate() {
            for (j, dword) in row.as_chunks::<4>().0.iter().enumerate() {
                lanes[j % 8][j / 8 * 8 + i] = *dword;
            }
        }
        // SAFETY: the caller's promise.
        let mut turned = unsafe { [Self::four(0); 8] };
        for (turned, lanes) in turned.iter_mut().zip(&lanes) {
            let half = |i: usize| lanes[8 * i..].as_ptr().cast::<u8>();
            // SAFETY: the caller's promise; each half is 32 bytes.
            *turned = unsafe { Self::load32([half(0), half(1)]) };
        }
        turned
    }
}
