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

use super::lanes::{Four, Lanes, Rows};

/// What codes are.
pub(super) trait Coding {
    /// Whether values have a minimum.
    const MINIMA: bool;

    /// What is taken off unsigned codes; none where codes are signed as they are.
    const OFFSET: Option<u8>;

    /// What is taken off codes as [`Coding::dots`] takes them: signed ones that must not stay so have 128 added.
    #[inline(always)]
    fn offset<L: Lanes>() -> u8 {
        match Self::OFFSET {
            Some(offset) => offset,
            None if L::WHOLE_BYTES => 128,
            None => 0,
        }
    }

    /// Codes as [`Coding::dots`] takes them.
    ///
    /// # Safety
    /// As [`Lanes`]. So for the others.
    #[inline(always)]
    unsafe fn ready<L: Lanes>(codes: L::Bytes) -> L::Bytes {
        match Self::OFFSET {
            // SAFETY: the caller's promise.
            None if L::WHOLE_BYTES => unsafe { L::sub(codes, 128) },
            _ => codes,
        }
    }

    /// Adds sums over 4 neighbours of ready codes times activations.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn dots<L: Lanes>(sums: L::Ints, codes: L::Bytes, x: L::Bytes) -> L::Ints {
        // SAFETY: the caller's promise.
        unsafe { L::add_dots(sums, codes, x, Self::OFFSET.is_none() && !L::WHOLE_BYTES) }
    }

    /// Sums of two products of codes, as they are, and activations.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn pairs<L: Lanes>(codes: L::Bytes, x: L::Bytes) -> L::Shorts {
        // SAFETY: the caller's promise.
        unsafe {
            match Self::OFFSET {
                None => L::pairs_signed(codes, x),
                Some(_) => L::pairs_unsigned(codes, x),
            }
        }
    }

    /// A code's value, but for the minimum.
    #[inline(always)]
    fn value(code: u8) -> f32 {
        match Self::OFFSET {
            None => f32::from(code as i8),
            Some(offset) => f32::from(code) - f32::from(offset),
        }
    }
}

/// Codes from −128 to 127; no minima.
pub(super) struct Signed;

impl Coding for Signed {
    const MINIMA: bool = false;
    const OFFSET: Option<u8> = None;
}

/// Codes from 0 to 127, of which `OFFSET` is taken off; no minima.
pub(super) struct Shifted<const OFFSET: u8>;

impl<const OFFSET: u8> Coding for Shifted<OFFSET> {
    const MINIMA: bool = false;
    const OFFSET: Option<u8> = Some(OFFSET);
}

/// Codes from 0 to 127, and minima.
pub(super) struct Unsigned;

impl Coding for Unsigned {
    const MINIMA: bool = true;
    const OFFSET: Option<u8> = Some(0);
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

    /// What the scales of a block of each row are times, and what the minima are.
    ///
    /// # Safety
    /// As [`Blocks`].
    unsafe fn factors<L: Lanes>(blocks: Rows) -> [L::Floats; 2];

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

/// A block type of 32 values, four blocks at a time.
pub(super) trait Small: Blocks {
    /// The first 16 codes of four blocks of a row, and their last 16.
    ///
    /// # Safety
    /// As [`Blocks`]. So for the others.
    unsafe fn codes_of_four<L: Lanes>(four: Four) -> [L::Bytes; 2];

    /// The scales of four times four blocks; where there are fewer, finite numbers stand for the others.
    ///
    /// # Safety
    /// As [`Blocks`].
    unsafe fn scales<L: Lanes>(fours: &[[Four; 2]; 2]) -> L::Floats;

    /// What is added to their values, where codes have minima.
    ///
    /// # Safety
    /// As [`Blocks`].
    #[inline(always)]
    unsafe fn minima<L: Lanes>(_: &[[Four; 2]; 2]) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::zero() }
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
