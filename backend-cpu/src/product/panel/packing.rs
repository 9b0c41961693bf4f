//! Columns as the methods take them.
//!
//! A column is a row of records, each of a chunk of its values; the records of a chunk lie side by side for all columns.
//! Values beyond the last one are zeros.

use super::unpack::OFFSET;
use crate::product::columns::codes;

/// Bytes of a record.
pub(in crate::product) const RECORD: usize = 512;

/// How columns are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::product) enum Packing {
    /// 256 values in 8 bits, with a scale for every 32.
    Blocks = 0,
    /// 256 values in 8 bits with one scale.
    Supers = 1,
    /// 128 values in f32.
    Floats = 2,
    /// 256 values in bf16.
    Halves = 3,
}

impl Packing {
    /// Values of a record.
    pub const fn values(self) -> usize {
        match self {
            Packing::Floats => RECORD / 4,
            Packing::Halves => RECORD / 2,
            Packing::Blocks | Packing::Supers => 256,
        }
    }

    /// Records of a column of so many values.
    pub const fn records(self, values: usize) -> usize {
        values.div_ceil(self.values())
    }
}

/// 256 values in 8 bits. Sums let a product take off what makes codes unsigned, and the weights' minima:
/// Σ (s·(w − o) − m)·x = s·Σ w·x − s·o·Σ x − m·Σ x.
#[repr(C, align(64))]
pub(super) struct Record {
    pub codes: [i8; 256],
    /// Of each 32 values; with one scale for all of them, that in each place.
    pub scales: [f32; 8],
    /// The sum of each 32 codes times −[`OFFSET`].
    pub less: [i32; 8],
    /// The sum of each 16 codes times −[`OFFSET`].
    pub half_less: [i32; 16],
    /// The sum of each 32 codes; times their scale, where they have their own.
    pub sums: [f32; 8],
    /// The same of each 16.
    pub half_sums: [f32; 16],
}

const _: () = assert!(size_of::<Record>() == RECORD);

impl Record {
    #[inline(always)]
    fn blocks(x: &[f32; 256]) -> Record {
        let mut record = Record::EMPTY;
        let blocks = x.as_chunks::<32>().0.iter();
        for ((x, to), scale) in blocks.zip(record.codes.as_chunks_mut().0).zip(&mut record.scales) {
            (*to, *scale) = codes(x);
        }
        let scales = record.scales;
        record.with_sums(scales)
    }

    #[inline(always)]
    fn supers(x: &[f32; 256]) -> Record {
        let (codes, scale) = codes(x);
        let scales = [scale; 8];
        let record = Record {
            codes,
            scales,
            ..Record::EMPTY
        };
        record.with_sums([1.0; 8])
    }

    const EMPTY: Record = Record {
        codes: [0; 256],
        scales: [0.0; 8],
        less: [0; 8],
        half_less: [0; 16],
        sums: [0.0; 8],
        half_sums: [0.0; 16],
    };

    #[inline(always)]
    fn with_sums(mut self, scales: [f32; 8]) -> Record {
        for (i, scale) in scales.into_iter().enumerate() {
            let mut halves = [0; 2];
            for (half, codes) in halves.iter_mut().zip(self.codes[32 * i..].as_chunks::<16>().0) {
                *half = codes.iter().map(|&code| i32::from(code)).sum::<i32>();
            }
            let [a, b] = halves;
            self.half_less[2 * i] = -i32::from(OFFSET) * a;
            self.half_less[2 * i + 1] = -i32::from(OFFSET) * b;
            self.less[i] = -i32::from(OFFSET) * (a + b);
            self.sums[i] = scale * (a + b) as f32;
            self.half_sums[2 * i] = scale * a as f32;
            self.half_sums[2 * i + 1] = scale * b as f32;
        }
        self
    }
}

/// The nearest bf16's bits, in the upper half; ties away from zero. What is no number stays none.
#[inline(always)]
pub(super) fn rounded(x: f32) -> u32 {
    x.to_bits().wrapping_add(0x8000)
}

/// Packs a column: record i goes to `to` + i · `stride`.
///
/// # Safety
/// All records lie in memory that is aligned to 64 and belongs to the caller.
#[inline(always)]
pub(super) unsafe fn pack(packing: Packing, x: &[f32], to: *mut u8, stride: usize) {
    // A function that is called as a value would not have the features of the set.
    macro_rules! each {
        ($record:path) => {{
            let (whole, rest) = x.as_chunks();
            for (i, x) in whole.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { std::ptr::write(to.add(i * stride).cast(), $record(x)) };
            }
            if !rest.is_empty() {
                let padded = padded(rest);
                // SAFETY: as above.
                unsafe { std::ptr::write(to.add(whole.len() * stride).cast(), $record(&padded)) };
            }
        }};
    }
    match packing {
        Packing::Blocks => each!(Record::blocks),
        Packing::Supers => each!(Record::supers),
        Packing::Floats => each!(floats),
        Packing::Halves => each!(halves),
    }
}

#[inline(always)]
fn padded<const N: usize>(x: &[f32]) -> [f32; N] {
    let mut padded = [0.0; N];
    padded[..x.len()].copy_from_slice(x);
    padded
}

#[inline(always)]
fn floats(x: &[f32; RECORD / 4]) -> [f32; RECORD / 4] {
    *x
}

#[inline(always)]
fn halves(x: &[f32; RECORD / 2]) -> [u16; RECORD / 2] {
    let mut out = [0; RECORD / 2];
    for (out, x) in out.iter_mut().zip(x) {
        *out = (rounded(*x) >> 16) as u16;
    }
    out
}
