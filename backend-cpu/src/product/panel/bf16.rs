//! Block types in bf16, for tiles: no scales are left to apply, and rounding to 8 bits of mantissa is finer than activations in
//! 8 bits are.
//!
//! Tiles could multiply bytes twice as fast, but sums would have to leave them for every 32 values, the scales' group: one
//! multiplication of tiles of which half is zeros, and 16 loads, conversions and multiplications of vectors for 16 times 16 sums,
//! which take longer than the multiplications of bf16.

use std::marker::PhantomData;

use super::{
    Ahead, BLOCK_ROWS, Columns, HALVES, Method, Target,
    amx::Tiles,
    packing::{Packing, RECORD, rounded},
    unpack::{Codes, Form},
};
use crate::product::{
    blocks::Blocks,
    kernel::{CHUNK, Weights},
    lanes::PanelLanes,
};

/// Records that are multiplied while sums stay in tiles.
const RECORDS: usize = 2;
/// Values of a tile's row.
const STEP: usize = 32;
/// Columns, or rows of weights, of a tile.
const SIDE: usize = 16;

/// [`RECORDS`] · [`CHUNK`] values of 32 rows; of each two neighbours, those of the first 16 rows and of the others.
#[repr(C, align(64))]
struct Pairs([[[u32; SIDE]; HALVES]; RECORDS * CHUNK / 2]);

/// Two tiles of columns times two of rows: tiles 0 to 3 have the sums, 4 and 5 columns, 6 and 7 rows.
pub(super) struct Halves<L, W, T> {
    tiles: T,
    pairs: Pairs,
    codes: Codes,
    kind: PhantomData<(L, W)>,
}

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Method`
impl<L: PanelLanes, W: Blocks, T: Tiles> Method for Halves<L, W, T> {
    const VALUES: usize = RECORDS * CHUNK;
    const BYTES: usize = Self::VALUES / W::VALUES * W::BYTES;
    const PACKING: Packing = Packing::Halves;

    #[inline(always)]
    unsafe fn start() -> Self {
        const { assert!(HALVES == 2 && 2 * SIDE <= super::SPARE && CHUNK == Packing::Halves.values()) };
        Halves {
            tiles: T::configure(),
            pairs: Pairs([[[0; SIDE]; HALVES]; RECORDS * CHUNK / 2]),
            codes: Codes::EMPTY,
            kind: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn unpack(&mut self, weights: &Weights, row: usize, first: usize, count: usize) {
        for done in (0..count).step_by(CHUNK) {
            let count = CHUNK.min(count - done);
            self.codes
                .unpack::<L, W>(weights, row, first + done, count, Form::Values);
            for (i, to) in self.pairs.0[done / 2..(done + count) / 2].iter_mut().enumerate() {
                for (half, to) in to.iter_mut().enumerate() {
                    let low = self.codes.values::<W>(2 * i, half);
                    let high = self.codes.values::<W>(2 * i + 1, half);
                    for lane in 0..SIDE {
                        to[lane] = rounded(low[lane]) >> 16 | rounded(high[lane]) & 0xffff_0000;
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply(&mut self, columns: &Columns, chunk: usize, count: usize, target: Target, mut ahead: Ahead) {
        let parts = columns.count.div_ceil(2 * SIDE);
        for column in (0..columns.count).step_by(2 * SIDE) {
            let target = target.column(column);
            ahead.ask::<L>(parts);
            if columns.count - column > SIDE {
                self.add::<true>(columns, chunk, column, count, target);
            } else {
                self.add::<false>(columns, chunk, column, count, target);
            }
        }
    }

    #[inline(always)]
    unsafe fn end(self) {
        self.tiles.release();
    }
}

#[allow(unsafe_op_in_unsafe_fn)] // as above
impl<L: PanelLanes, W: Blocks, T: Tiles> Halves<L, W, T> {
    /// Adds the products of `count` values with 16 columns, or `BOTH` times 16.
    #[inline(always)]
    unsafe fn add<const BOTH: bool>(
        &mut self,
        columns: &Columns,
        chunk: usize,
        column: usize,
        count: usize,
        target: Target,
    ) {
        let sums = target.sums;
        let tiles = &mut self.tiles;
        let stride = 4 * BLOCK_ROWS;
        let to: [*mut u8; 2] = [sums.cast(), sums.add(SIDE * BLOCK_ROWS).cast()];
        let right = 4 * SIDE;
        if target.fresh {
            tiles.zero::<0>();
            tiles.zero::<1>();
            if BOTH {
                tiles.zero::<2>();
                tiles.zero::<3>();
            }
        } else {
            tiles.load::<0>(to[0], stride);
            tiles.load::<1>(to[0].add(right), stride);
            if BOTH {
                tiles.load::<2>(to[1], stride);
                tiles.load::<3>(to[1].add(right), stride);
            }
        }
        for first in (0..count).step_by(STEP) {
            let x = columns.record(chunk + first / CHUNK, column).add(2 * (first % CHUNK));
            let w = self.pairs.0[first / 2].as_ptr();
            tiles.load::<6>(w.cast(), size_of_val(&self.pairs.0[0]));
            tiles.load::<4>(x, RECORD);
            tiles.dot::<0, 4, 6>();
            tiles.load::<7>(w.add(1).cast(), size_of_val(&self.pairs.0[0]));
            tiles.dot::<1, 4, 7>();
            if BOTH {
                tiles.load::<5>(x.add(SIDE * RECORD), RECORD);
                tiles.dot::<2, 5, 6>();
                tiles.dot::<3, 5, 7>();
            }
        }
        tiles.store::<0>(to[0], stride);
        tiles.store::<1>(to[0].add(right), stride);
        if BOTH {
            tiles.store::<2>(to[1], stride);
            tiles.store::<3>(to[1].add(right), stride);
        }
    }
}
