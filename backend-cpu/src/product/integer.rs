//! Products in integers: weights of 8 bits or fewer with quantized activations.

use std::{marker::PhantomData, ops::Range};

use super::{
    blocks::{Blocks, Coding, Piece, unpack},
    columns::Loaded,
    kernel::{CHUNK, Path, TILE_COLUMNS, Weights, place, tiled},
    lanes::{Lanes, Rows, at},
};

/// A [`super::kernel::Product`]; `N` columns share a pass over unpacked weights.
///
/// # Safety
/// As [`super::kernel::Product`].
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, W: Blocks, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match columns {
            [column] => one_column::<L, W>(weights, *column, tile),
            _ => tiled::<L, Integer<W>, N, TILE_COLUMNS>(weights, columns, tile, stride),
        }
    }
}

/// Adds 32 products to the sums: the one place where they are made, so that a column has the same bits everywhere.
#[inline(always)]
unsafe fn step<L: Lanes, C: Coding>(sums: L::Floats, w: &Piece<L>, x: &Loaded<L>) -> L::Floats {
    // SAFETY: the caller's promise.
    unsafe {
        let sums = L::fma(C::dot::<L>(w.codes, x.codes), L::mul(w.scale, x.scale), sums);
        if C::MINIMA {
            L::fnma(w.min, x.sums(), sums)
        } else {
            sums
        }
    }
}

/// Weights are unpacked in registers.
#[inline(always)]
unsafe fn one_column<L: Lanes, W: Blocks>(weights: &Weights, column: *const u8, tile: &mut [f32]) {
    let subs = W::VALUES / 32;
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        // SAFETY: the caller's promise: each block lies in the rows and in the column.
        unsafe {
            let mut sums = L::zero();
            for block in 0..weights.values / W::VALUES {
                let blocks = at(rows, block * W::BYTES);
                weights.prefetch::<L>(blocks, W::BYTES);
                let heads = [W::head::<L>(blocks[0]), W::head::<L>(blocks[1])];
                for sub in 0..subs {
                    let piece = Piece::unpack::<W>(blocks, &heads, sub);
                    let x = Loaded::load(column, block * subs + sub);
                    sums = step::<L, W::Codes>(sums, &piece, &x);
                }
            }
            place(tile, 0, pair, weights.rows, L::row_sums(sums));
        }
    }
}

/// Weights are unpacked once for many columns.
pub(super) struct Integer<W>(PhantomData<W>);

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Path`
impl<L: Lanes, W: Blocks> Path<L> for Integer<W> {
    type Chunk = [Piece<L>; CHUNK / 32];
    type Sums = L::Floats;

    #[inline(always)]
    unsafe fn chunk() -> Self::Chunk {
        let empty = Piece {
            codes: L::both([0u8; 32].as_ptr()),
            scale: L::zero(),
            min: L::zero(),
        };
        [empty; CHUNK / 32]
    }

    #[inline(always)]
    unsafe fn zero() -> L::Floats {
        L::zero()
    }

    #[inline(always)]
    unsafe fn unpack(rows: Rows, first: usize, count: usize, chunk: &mut Self::Chunk) {
        unpack::<L, W>(rows, first, &mut chunk[..count / 32]);
    }

    #[inline(always)]
    unsafe fn add<const N: usize>(
        chunk: &Self::Chunk,
        columns: &[*const u8; N],
        range: Range<usize>,
        sums: &mut [L::Floats; N],
    ) {
        let mut local = *sums;
        for (i, piece) in (range.start / 32..range.end / 32).zip(chunk) {
            for (sums, column) in local.iter_mut().zip(columns) {
                *sums = step::<L, W::Codes>(*sums, piece, &Loaded::load(*column, i));
            }
        }
        *sums = local;
    }

    #[inline(always)]
    unsafe fn total(sums: L::Floats) -> [f32; 2] {
        L::row_sums(sums)
    }
}
