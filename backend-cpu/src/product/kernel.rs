//! What a kernel is: the product of a few rows with a few columns.

use std::ops::Range;

use super::{
    lanes::{Lanes, Rows},
    quads, sixteens, supers,
};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 8;
/// Columns of a tile.
pub(super) const TILE_COLUMNS: usize = 32;
/// Rows and columns of a tile where columns are few: so many rows that what is done once a tile costs nothing, and that the
/// processor's own look-ahead in memory is not led astray too often where tiles of two matrices take turns.
pub(super) const MANY_ROWS: usize = 256;
pub(super) const FEW_COLUMNS: usize = 8;
/// How far ahead memory is asked for: as many bytes as arrive while one is waited for, with room to spare. Measured; half of it
/// costs a fifth of the speed, and far more no longer fits into the first cache.
pub(super) const AHEAD: usize = 8 << 10;
/// Values along K that are unpacked at a time: a multiple of every block.
pub(super) const CHUNK: usize = 256;

/// Rows of a weight matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// The first row.
    pub start: *const u8,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Rows, from 1 to what the kernel takes.
    pub rows: usize,
    /// Values of a row, K.
    pub values: usize,
}

impl Weights {
    /// Rows 2·pair and the one after it; the last row in the place of those that there are not.
    #[inline(always)]
    pub fn pair(&self, pair: usize) -> Rows {
        let row = |row: usize| self.start.wrapping_add(row.min(self.rows - 1) * self.stride);
        [row(2 * pair), row(2 * pair + 1)]
    }

    /// Asks for what comes later: of a pair of rows `done` bytes each were taken, and `bytes` more are now. Rows lie side
    /// by side, so memory is asked for in order, and each byte of either row at least [`AHEAD`] bytes before its turn.
    /// Beyond the weights, nothing comes of it.
    #[inline(always)]
    pub fn prefetch<L: Lanes>(&self, rows: Rows, done: usize, bytes: usize) {
        let start = rows[0].wrapping_add(AHEAD + self.stride + 2 * done);
        for line in (0..2 * bytes).step_by(64) {
            L::prefetch(start.wrapping_add(line));
        }
    }

    /// Pairs of rows.
    #[inline(always)]
    pub fn pairs(&self) -> usize {
        self.rows.div_ceil(2)
    }
}

/// Writes the products of the rows with the columns to a tile `[stride, columns]`: W·x for each, in an order of summation
/// that depends on K alone. Columns lie as [`Takes`] says.
///
/// # Safety
/// The processor has the features of the kernel's set; rows and columns are whole, and no more than a tile has.
pub(super) type Product = unsafe fn(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize);

/// What multiplies.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Its function.
    pub product: Product,
    /// The most rows.
    pub rows: usize,
    /// Its set, an index into [`super::select::SETS`].
    pub set: usize,
    /// What columns it takes.
    pub takes: Takes,
}

/// How columns lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Quantized by [`super::sixteens`].
    Sixteens = 0,
    /// Quantized by [`super::supers`].
    Supers = 1,
    /// Quantized by [`super::quads`].
    Quads = 2,
    /// As f32.
    Plain,
}

/// Bytes of a column of so many values.
type ColumnBytes = fn(usize) -> usize;

impl Takes {
    /// Those that are quantized, each with the bytes of a column of so many values.
    pub const QUANTIZED: [(Takes, ColumnBytes); 3] = [
        (Takes::Sixteens, sixteens::column_bytes),
        (Takes::Supers, supers::column_bytes),
        (Takes::Quads, quads::column_bytes),
    ];
}

/// A way to multiply: what a tile's loops leave open.
///
/// # Safety
/// All functions as [`Product`].
pub(super) trait Path<L: Lanes> {
    /// A chunk of two rows, unpacked.
    type Chunk;
    /// Partial sums of two rows with one column.
    type Sums: Copy;

    /// An empty chunk.
    unsafe fn chunk() -> Self::Chunk;
    /// No sums yet.
    unsafe fn zero() -> Self::Sums;
    /// Unpacks `count` ≤ [`CHUNK`] values of two rows from `first`, a multiple of [`CHUNK`].
    unsafe fn unpack(rows: Rows, first: usize, count: usize, chunk: &mut Self::Chunk);
    /// Adds the products of these values.
    unsafe fn add<const N: usize>(
        chunk: &Self::Chunk,
        columns: &[*const u8; N],
        range: Range<usize>,
        sums: &mut [Self::Sums; N],
    );
    /// The two products.
    unsafe fn total(sums: Self::Sums) -> [f32; 2];
}

/// A [`Product`]'s loops: weights are unpacked once for up to `COLUMNS` columns, a chunk at a time, and `N` columns share
/// what is in registers.
///
/// # Safety
/// As [`Product`].
#[inline(always)]
pub(super) unsafe fn tiled<L: Lanes, P: Path<L>, const N: usize, const COLUMNS: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    const { assert!(COLUMNS.is_multiple_of(N) && COLUMNS <= TILE_COLUMNS) };
    // SAFETY: the caller's promise: each chunk lies in the rows and in the columns.
    unsafe {
        let mut chunk = P::chunk();
        let mut sums = [[P::zero(); COLUMNS]; TILE_ROWS / 2];
        for first in (0..weights.values).step_by(CHUNK) {
            let range = first..weights.values.min(first + CHUNK);
            for (pair, sums) in sums.iter_mut().take(weights.pairs()).enumerate() {
                P::unpack(weights.pair(pair), first, range.len(), &mut chunk);
                let groups = sums.as_chunks_mut::<N>().0.iter_mut();
                for (i, sums) in groups.take(columns.len().div_ceil(N)).enumerate() {
                    P::add(&chunk, &group(columns, i * N), range.clone(), sums);
                }
            }
        }
        for (pair, sums) in sums.iter().take(weights.pairs()).enumerate() {
            for (column, sums) in sums.iter().take(columns.len()).enumerate() {
                place(tile, column * stride, pair, weights.rows, P::total(*sums));
            }
        }
    }
}

/// `N` columns from `first`; beyond the last one, that one again.
#[inline(always)]
fn group<const N: usize>(columns: &[*const u8], first: usize) -> [*const u8; N] {
    let mut group = [columns[columns.len() - 1]; N];
    for (place, column) in group.iter_mut().zip(&columns[first..]) {
        *place = *column;
    }
    group
}

/// Puts a pair's sums into a column of the tile.
#[inline(always)]
pub(super) fn place(tile: &mut [f32], column: usize, pair: usize, rows: usize, sums: [f32; 2]) {
    tile[column + 2 * pair] = sums[0];
    if 2 * pair + 1 < rows {
        tile[column + 2 * pair + 1] = sums[1];
    }
}
