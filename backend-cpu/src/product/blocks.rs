//! How each block type unpacks: 32 codes of 8 bits at a time, with their scales and minima.
//!
//! A value is scale·code − minimum. Codes are signed, or unsigned below 128; some have a fixed offset that is taken off,
//! others a minimum. The layouts are those of [`backend_api::decode`], which is what the tests compare with.

mod k;
mod small;

pub(super) use {
    k::{IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K},
    small::{IQ4_NL, MXFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
};

use super::{
    kernel::CHUNK,
    lanes::{Lanes, Rows, at},
};

/// How codes are multiplied.
pub(super) trait Coding {
    /// Whether values have a minimum.
    const MINIMA: bool;

    /// What is taken off unsigned codes; none where codes are signed as they are.
    const OFFSET: Option<u8>;

    /// Codes as [`Coding::dot`] takes them.
    ///
    /// # Safety
    /// As [`Lanes`]. So for the others.
    unsafe fn ready<L: Lanes>(codes: L::Bytes) -> L::Bytes;

    /// Sums over 4 neighbours of ready codes times activations.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn dot<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Floats;

    /// Sums of two products of codes, as they are, and activations.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn pairs<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Shorts;

    /// A code's value.
    fn value(code: u8) -> f32;
}

/// Codes from −128 to 127; no minima.
pub(super) struct Signed;

impl Coding for Signed {
    const MINIMA: bool = false;
    const OFFSET: Option<u8> = None;

    #[inline(always)]
    unsafe fn ready<L: Lanes>(codes: L::Bytes) -> L::Bytes {
        codes
    }

    #[inline(always)]
    unsafe fn pairs<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Shorts {
        // SAFETY: the caller's promise.
        unsafe { L::pairs_signed(codes, x) }
    }

    #[inline(always)]
    unsafe fn dot<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::dot_signed(codes, x) }
    }

    #[inline(always)]
    fn value(code: u8) -> f32 {
        f32::from(code as i8)
    }
}

/// Codes from 0 to 127, of which `OFFSET` is taken off; no minima.
pub(super) struct Shifted<const OFFSET: u8>;

impl<const OFFSET: u8> Coding for Shifted<OFFSET> {
    const MINIMA: bool = false;
    const OFFSET: Option<u8> = Some(OFFSET);

    #[inline(always)]
    unsafe fn ready<L: Lanes>(codes: L::Bytes) -> L::Bytes {
        // SAFETY: the caller's promise.
        unsafe { L::sub(codes, OFFSET) }
    }

    #[inline(always)]
    unsafe fn dot<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::dot_signed(codes, x) }
    }

    #[inline(always)]
    unsafe fn pairs<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Shorts {
        // SAFETY: the caller's promise.
        unsafe { L::pairs_unsigned(codes, x) }
    }

    #[inline(always)]
    fn value(code: u8) -> f32 {
        f32::from(code) - f32::from(OFFSET)
    }
}

/// Codes from 0 to 127, and minima.
pub(super) struct Unsigned;

impl Coding for Unsigned {
    const MINIMA: bool = true;
    const OFFSET: Option<u8> = Some(0);

    #[inline(always)]
    unsafe fn ready<L: Lanes>(codes: L::Bytes) -> L::Bytes {
        codes
    }

    #[inline(always)]
    unsafe fn pairs<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Shorts {
        // SAFETY: the caller's promise.
        unsafe { L::pairs_unsigned(codes, x) }
    }

    #[inline(always)]
    unsafe fn dot<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::dot_unsigned(codes, x) }
    }

    #[inline(always)]
    fn value(code: u8) -> f32 {
        f32::from(code)
    }
}

/// The scales and minima of a block: one, one for every 32 values (8), or for every 16 (16).
#[derive(Clone, Copy)]
pub(super) struct Head<const N: usize> {
    scale: [f32; N],
    min: [f32; N],
}

impl<const N: usize> Head<N> {
    #[inline(always)]
    fn scales(scale: [f32; N]) -> Head<N> {
        Head { scale, min: [0.0; N] }
    }
}

/// What the kernels ask of a [`Head`].
pub(super) trait Groups: Copy {
    /// Whether the halves of 32 values have scales of their own.
    const HALVES: bool;

    /// The scales of both halves of 32 values.
    fn scale(&self, sub: usize) -> [f32; 2];
    /// The minima of both halves of 32 values.
    fn min(&self, sub: usize) -> [f32; 2];
}

impl<const N: usize> Groups for Head<N> {
    const HALVES: bool = N == 16;

    #[inline(always)]
    fn scale(&self, sub: usize) -> [f32; 2] {
        of(&self.scale, sub)
    }

    #[inline(always)]
    fn min(&self, sub: usize) -> [f32; 2] {
        of(&self.min, sub)
    }
}

#[inline(always)]
fn of<const N: usize>(groups: &[f32; N], sub: usize) -> [f32; 2] {
    if N == 16 {
        [groups[2 * sub], groups[2 * sub + 1]]
    } else {
        [groups[sub]; 2]
    }
}

/// A block type.
///
/// # Safety
/// All functions as [`Lanes`]: pointers are to whole blocks.
pub(super) trait Blocks {
    /// Values in a block.
    const VALUES: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// How the codes are multiplied.
    type Codes: Coding;
    /// The block's scales.
    type Head: Groups;

    /// The scales of a block.
    unsafe fn head<L: Lanes>(block: *const u8) -> Self::Head;
    /// The bits of a block's scale and minimum, where these are its only ones.
    unsafe fn bits(_block: *const u8) -> [u16; 2] {
        [0; 2]
    }
    /// The bits of scales as [`Blocks::of_bits`] takes them.
    fn scale_bits(_bits: &mut [u16; 32]) {}
    /// Scales and minima of such bits, 16 of each.
    unsafe fn of_bits<L: Lanes>(_scales: *const u8, _minima: *const u8) -> [L::Floats; 2] {
        // SAFETY: the caller's promise.
        unsafe { [L::zero(); 2] }
    }
    /// The offset of a block's 16 bytes of nibbles, the low ones first, where these alone make its codes.
    const NIBBLES: Option<usize> = None;
    /// The codes of nibbles.
    unsafe fn of_nibbles<L: Lanes>(nibbles: L::Bytes) -> L::Bytes {
        nibbles
    }
    /// The codes of values 32·sub to 32·sub + 31 of a block of each row.
    unsafe fn codes<L: Lanes>(blocks: Rows, sub: usize) -> L::Bytes;
}

/// The scales and minima of a block of 256 values as they stand in it: whole numbers, one for every 32 values (8) or 16
/// (16), times one number for all.
#[derive(Clone, Copy)]
pub(super) struct Integers<const N: usize> {
    scale: [i8; N],
    min: [i8; N],
    d: f32,
    dmin: f32,
}

/// What the kernels ask of [`Integers`].
pub(super) trait Whole: Copy {
    /// The scales, and beyond them zeros.
    fn scales(&self) -> [i8; 16];
    /// The minima, and beyond them zeros.
    fn minima(&self) -> [i8; 16];
    /// What the scales are times.
    fn d(&self) -> f32;
    /// What the minima are times.
    fn dmin(&self) -> f32;
}

impl<const N: usize> Integers<N> {
    #[inline(always)]
    fn head(self) -> Head<N> {
        Head {
            scale: times(self.scale, self.d),
            min: times(self.min, self.dmin),
        }
    }
}

impl<const N: usize> Whole for Integers<N> {
    #[inline(always)]
    fn scales(&self) -> [i8; 16] {
        padded(self.scale)
    }

    #[inline(always)]
    fn minima(&self) -> [i8; 16] {
        padded(self.min)
    }

    #[inline(always)]
    fn d(&self) -> f32 {
        self.d
    }

    #[inline(always)]
    fn dmin(&self) -> f32 {
        self.dmin
    }
}

/// Floats of small integers times `d`.
#[inline(always)]
fn times<const N: usize>(codes: [i8; N], d: f32) -> [f32; N] {
    let mut floats = [0.0; N];
    for (float, code) in floats.iter_mut().zip(codes) {
        *float = f32::from(code) * d;
    }
    floats
}

#[inline(always)]
fn padded<const N: usize>(codes: [i8; N]) -> [i8; 16] {
    let mut padded = [0; 16];
    padded[..N].copy_from_slice(&codes);
    padded
}

/// A block type of 256 values with whole scales.
pub(super) trait Supers: Blocks {
    /// The block's scales.
    type Whole: Whole;

    /// The scales of a block.
    ///
    /// # Safety
    /// As [`Blocks`].
    unsafe fn integers<L: Lanes>(block: *const u8) -> Self::Whole;

    /// The scales of a block of each row, and the minima, beyond which are zeros.
    ///
    /// # Safety
    /// As [`Blocks`].
    #[inline(always)]
    unsafe fn scales_and_minima<L: Lanes>(blocks: Rows) -> [L::Shorts; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b] = [Self::integers::<L>(blocks[0]), Self::integers::<L>(blocks[1])];
            [
                L::widened([a.scales(), b.scales()]),
                L::widened([a.minima(), b.minima()]),
            ]
        }
    }
}

/// 32 values of two rows, ready to be multiplied.
pub(super) struct Piece<L: Lanes> {
    /// The codes.
    pub codes: L::Bytes,
    /// Each partial sum's scale.
    pub scale: L::Floats,
    /// The minima as [`Lanes::alternate`] orders them.
    pub min: L::Floats,
}

impl<L: Lanes> Clone for Piece<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Lanes> Copy for Piece<L> {}

impl<L: Lanes> Piece<L> {
    /// Unpacks values 32·sub to 32·sub + 31 of a block of each row.
    ///
    /// # Safety
    /// As [`Blocks`]; the heads are those of the blocks.
    #[inline(always)]
    pub unsafe fn unpack<W: Blocks>(blocks: Rows, heads: &[W::Head; 2], sub: usize) -> Piece<L> {
        let [a, b] = [heads[0].scale(sub), heads[1].scale(sub)];
        let [c, d] = [heads[0].min(sub), heads[1].min(sub)];
        // SAFETY: the caller's promise.
        unsafe {
            Piece {
                codes: W::Codes::ready::<L>(W::codes::<L>(blocks, sub)),
                scale: if W::Head::HALVES {
                    L::quarters(a, b)
                } else {
                    L::pair(a[0], b[0])
                },
                min: match (W::Codes::MINIMA, W::Head::HALVES) {
                    (false, _) => L::zero(),
                    (true, false) => L::pair(c[0], d[0]),
                    (true, true) => L::alternate(c, d),
                },
            }
        }
    }
}

/// Unpacks up to [`CHUNK`] / 32 pieces of two rows from value `first`, a multiple of [`CHUNK`].
///
/// # Safety
/// As [`Blocks`]; the rows hold as many values from `first` on.
#[inline(always)]
pub(super) unsafe fn unpack<L: Lanes, W: Blocks>(rows: Rows, first: usize, pieces: &mut [Piece<L>]) {
    const { assert!(CHUNK.is_multiple_of(W::VALUES)) };
    for (i, pieces) in pieces.chunks_exact_mut(W::VALUES / 32).enumerate() {
        // SAFETY: the caller's promise: the block lies in the rows.
        unsafe {
            let blocks = at(rows, (first / W::VALUES + i) * W::BYTES);
            let heads = [W::head::<L>(blocks[0]), W::head::<L>(blocks[1])];
            for (sub, piece) in pieces.iter_mut().enumerate() {
                *piece = Piece::unpack::<W>(blocks, &heads, sub);
            }
        }
    }
}

/// The f16 at `from`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn f16<L: Lanes>(from: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    unsafe { L::f16(from.cast::<u16>().read_unaligned()) }
}

/// The word at `from`.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn word(from: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { from.cast::<u32>().read_unaligned() }
}
