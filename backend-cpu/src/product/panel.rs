//! Products of many columns.
//!
//! A block of up to [`BLOCK_ROWS`] rows and [`BLOCK_COLUMNS`] columns is computed at a time. Columns are packed beforehand, a
//! chunk of each beside the same chunk of the next ([`packing`]). Of 32 rows, a chunk is unpacked into the first cache
//! ([`unpack`]) and multiplied with that chunk of all columns, which stays in the second one for the block's other rows.
//!
//! Everywhere a dword has neighbours along K: four codes, two bf16 or one f32; and lane r of a vector belongs to row r of 16.
//! So a dword of a column, in all lanes, meets 16 rows at once.

pub(crate) mod amx;
mod bf16;
mod floats;
mod integers;
mod kernels;
pub(super) mod packing;
mod unpack;

use super::{kernel::Weights, lanes::Lanes};
pub(super) use kernels::{Panels, panels};
use packing::{Packing, RECORD};

/// Rows that are unpacked at a time.
pub(super) const ROWS: usize = 32;
/// Vectors of 16 rows.
const HALVES: usize = ROWS / 16;
/// The most rows of a block.
pub(super) const BLOCK_ROWS: usize = 128;
/// The most columns of a block.
pub(super) const BLOCK_COLUMNS: usize = 512;
/// Columns that may be read, and sums that may be written, beyond the last one: methods work on groups of columns.
pub(super) const SPARE: usize = 32;

/// The sums of a column with the rows of a block.
pub(super) type Sums = [f32; BLOCK_ROWS];

/// Packed columns of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    /// The record of the first chunk of the first column.
    pub start: *const u8,
    /// Bytes from a chunk to the next. Columns lie [`RECORD`] bytes apart.
    pub chunk: usize,
    /// Columns, from 1 to [`BLOCK_COLUMNS`].
    pub count: usize,
}

impl Columns {
    /// The record of a column's chunk.
    #[inline(always)]
    fn record(&self, chunk: usize, column: usize) -> *const u8 {
        self.start.wrapping_add(chunk * self.chunk + column * RECORD)
    }
}

/// Writes W·x of each column to `sums`, of rows up to the next multiple of [`ROWS`], and of columns up to the next group of
/// the method.
///
/// # Safety
/// The processor has the features of the kernel's set; rows are whole; columns are packed as the kernel says, and followed by
/// [`SPARE`] readable records; there are [`Sums`] of the columns and [`SPARE`] more.
pub(super) type Product = unsafe fn(weights: &Weights, columns: &Columns, sums: *mut Sums);

/// What multiplies many columns.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Its function.
    pub product: Product,
    /// How it takes columns.
    pub packing: Packing,
    /// Its set, one of [`super::select::SETS`].
    pub set: &'static str,
}

/// Where products go.
#[derive(Clone, Copy)]
struct Target {
    /// The first column's sum with the first row that is unpacked.
    sums: *mut f32,
    /// Whether nothing is in the sums yet.
    fresh: bool,
}

impl Target {
    /// The same of another column.
    #[inline(always)]
    fn column(self, column: usize) -> Target {
        let sums = self.sums.wrapping_add(column * BLOCK_ROWS);
        Target { sums, ..self }
    }
}

/// What is unpacked next, asked for bit by bit while columns are multiplied.
struct Ahead {
    next: *const u8,
    stride: usize,
    rows: usize,
    /// Bytes of a row.
    bytes: usize,
}

impl Ahead {
    /// Asks for the next rows, as many as come to each of `parts`. What is asked for need not be there.
    #[inline(always)]
    fn ask<L: Lanes>(&mut self, parts: usize) {
        for _ in 0..ROWS.div_ceil(parts).min(self.rows) {
            for line in (0..self.bytes + 63).step_by(64) {
                L::prefetch(self.next.wrapping_add(line));
            }
            self.next = self.next.wrapping_add(self.stride);
            self.rows -= 1;
        }
    }
}

/// A way to multiply a chunk.
///
/// # Safety
/// All functions as [`Product`].
trait Method {
    /// Values that are unpacked at a time.
    const VALUES: usize;
    /// Bytes of as many values of a row.
    const BYTES: usize;
    /// How columns are packed.
    const PACKING: Packing;

    /// Nothing unpacked yet.
    unsafe fn start() -> Self;
    /// Unpacks `count` ≤ VALUES values from `first`, a multiple of VALUES, of the 32 rows from `row` on.
    unsafe fn unpack(&mut self, weights: &Weights, row: usize, first: usize, count: usize);
    /// Adds the products of what is unpacked with the columns' chunk number `chunk` to the sums.
    unsafe fn multiply(&mut self, columns: &Columns, chunk: usize, count: usize, sums: Target, ahead: Ahead);
    /// Gives back what the thread holds.
    unsafe fn end(self);
}

/// A [`Product`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn product<M: Method>(weights: &Weights, columns: &Columns, sums: *mut Sums) {
    // SAFETY: the caller's promise: each chunk lies in the rows and in the columns.
    unsafe {
        if weights.values == 0 {
            for column in 0..columns.count {
                sums.add(column)
                    .cast::<f32>()
                    .write_bytes(0, weights.rows.next_multiple_of(ROWS));
            }
            return;
        }
        let mut method = M::start();
        for first in (0..weights.values).step_by(M::VALUES) {
            let count = M::VALUES.min(weights.values - first);
            let chunk = first / M::PACKING.values();
            for row in (0..weights.rows).step_by(ROWS) {
                method.unpack(weights, row, first, count);
                let target = Target {
                    sums: sums.cast::<f32>().add(row),
                    fresh: first == 0,
                };
                method.multiply(columns, chunk, count, target, ahead::<M>(weights, row, first));
            }
        }
        method.end();
    }
}

/// What comes after the chunk from `first` of the 32 rows from `row` on: the block's next rows, or the first ones' next chunk.
#[inline(always)]
fn ahead<M: Method>(weights: &Weights, row: usize, first: usize) -> Ahead {
    let (row, first) = if row + ROWS < weights.rows {
        (row + ROWS, first)
    } else {
        (0, first + M::VALUES)
    };
    let left = weights.values.saturating_sub(first);
    Ahead {
        next: weights
            .start
            .wrapping_add(row * weights.stride + first / M::VALUES * M::BYTES),
        stride: weights.stride,
        rows: if left == 0 { 0 } else { ROWS.min(weights.rows - row) },
        bytes: M::BYTES * left.min(M::VALUES) / M::VALUES,
    }
}
