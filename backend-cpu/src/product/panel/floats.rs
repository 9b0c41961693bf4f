//! Weights in f32, or decoded to it.

use std::marker::PhantomData;

use super::{
    Ahead, BLOCK_ROWS, Columns, HALVES, Method, ROWS, Target,
    packing::{Packing, RECORD},
    unpack::{Codes, Form, pair, turn},
};
use crate::product::{
    blocks::Blocks,
    exact,
    kernel::{CHUNK, Weights},
    lanes::PanelLanes,
};

/// Values that are unpacked at a time.
const VALUES: usize = Packing::Floats.values();

/// [`VALUES`] values of 32 rows; of each value, those of the first 16 rows and of the others.
#[repr(C, align(64))]
pub(super) struct Values([[[f32; 16]; HALVES]; VALUES]);

/// Weights that unpack to [`Values`].
pub(super) trait Unpack {
    /// Bytes of [`VALUES`] values.
    const BYTES: usize;
    /// What it needs meanwhile.
    type Scratch;
    const EMPTY: Self::Scratch;

    /// Unpacks `count` ≤ [`VALUES`] values from `first` of the 32 rows from `row` on, and zeros up to a multiple of 8.
    ///
    /// # Safety
    /// As [`super::Product`].
    unsafe fn unpack<L: PanelLanes>(
        scratch: &mut Self::Scratch,
        weights: &Weights,
        row: usize,
        first: usize,
        count: usize,
        values: &mut Values,
    );
}

/// Weights that are numbers.
pub(super) struct Plain<W>(PhantomData<W>);

impl<W: exact::Decode> Unpack for Plain<W> {
    const BYTES: usize = VALUES * W::BYTES;
    type Scratch = [[f32; CHUNK]; 2];
    const EMPTY: Self::Scratch = [[0.0; CHUNK]; 2];

    #[inline(always)]
    unsafe fn unpack<L: PanelLanes>(
        scratch: &mut Self::Scratch,
        weights: &Weights,
        row: usize,
        first: usize,
        count: usize,
        values: &mut Values,
    ) {
        let mut staged = [[[0u8; 64]; ROWS / 2]; VALUES / 8];
        for number in 0..ROWS / 2 {
            // SAFETY: the caller's promise: the values lie in the rows.
            let rows = unsafe { W::decode::<L>(pair(weights, row, number), first, count, scratch) };
            for (r, row) in rows.into_iter().enumerate() {
                for (i, staged) in staged[..count / 8].iter_mut().enumerate() {
                    // SAFETY: as many values were decoded.
                    let eight = unsafe { row.add(8 * i).cast::<[u8; 32]>().read_unaligned() };
                    staged[number].as_chunks_mut().0[r] = eight;
                }
                for i in count / 8 * 8..count {
                    // SAFETY: as above.
                    let value = unsafe { row.add(i).read_unaligned() };
                    staged[i / 8][number].as_chunks_mut().0[8 * r + i % 8] = value.to_ne_bytes();
                }
            }
        }
        let to = values.0.as_chunks_mut::<8>().0;
        for (staged, to) in staged[..count.div_ceil(8)].iter().zip(to) {
            // SAFETY: 16 numbers are 64 bytes.
            let to = unsafe { &mut *(&raw mut *to).cast() };
            // SAFETY: the caller's promise.
            unsafe { turn::<L>(staged, to) };
        }
    }
}

/// Weights of a block type.
pub(super) struct Unpacked<W>(PhantomData<W>);

impl<W: Blocks> Unpack for Unpacked<W> {
    const BYTES: usize = VALUES * W::BYTES / W::VALUES;
    type Scratch = Codes;
    const EMPTY: Codes = Codes::EMPTY;

    #[inline(always)]
    unsafe fn unpack<L: PanelLanes>(
        codes: &mut Codes,
        weights: &Weights,
        row: usize,
        first: usize,
        count: usize,
        values: &mut Values,
    ) {
        // Only whole blocks can be unpacked: those of 256 values are unpacked twice.
        let start = first / W::VALUES * W::VALUES;
        let whole = count.max(W::VALUES);
        // SAFETY: the caller's promise: the values lie in the rows, and blocks are whole.
        unsafe { codes.unpack::<L, W>(weights, row, start, whole, Form::Values) };
        for (i, to) in values.0.iter_mut().enumerate().take(count) {
            for (half, to) in to.iter_mut().enumerate() {
                *to = codes.values::<W>(first - start + i, half);
            }
        }
    }
}

/// The sums of `N` columns, or of the fewer `F` where `N` are too many, with `H` times 16 rows are in registers at a time.
pub(super) struct Floats<L, U: Unpack, const N: usize, const F: usize, const H: usize> {
    values: Values,
    scratch: U::Scratch,
    kind: PhantomData<L>,
}

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Method`
impl<L: PanelLanes, U: Unpack, const N: usize, const F: usize, const H: usize> Method for Floats<L, U, N, F, H> {
    const VALUES: usize = VALUES;
    const BYTES: usize = U::BYTES;
    const PACKING: Packing = Packing::Floats;

    #[inline(always)]
    unsafe fn start() -> Self {
        const { assert!(HALVES.is_multiple_of(H) && F <= N && N <= super::SPARE) };
        Floats {
            values: Values([[[0.0; 16]; HALVES]; VALUES]),
            scratch: U::EMPTY,
            kind: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn unpack(&mut self, weights: &Weights, row: usize, first: usize, count: usize) {
        U::unpack::<L>(&mut self.scratch, weights, row, first, count, &mut self.values);
    }

    #[inline(always)]
    unsafe fn multiply(&mut self, columns: &Columns, chunk: usize, count: usize, target: Target, mut ahead: Ahead) {
        let parts = columns.count.div_ceil(N);
        // what is unpacked, and columns, have zeros there
        let count = count.next_multiple_of(8);
        let mut column = 0;
        while column < columns.count {
            let x = columns.record(chunk, column).cast();
            let target = target.column(column);
            ahead.ask::<L>(parts);
            if columns.count - column > F {
                add::<L, N, H>(&self.values, count, x, target);
                column += N;
            } else {
                add::<L, F, H>(&self.values, count, x, target);
                column += F;
            }
        }
    }

    #[inline(always)]
    unsafe fn end(self) {}
}

/// Adds the products of `count` values with `N` columns.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn, clippy::needless_range_loop)] // as `Method`; columns and halves have places in memory, too
unsafe fn add<L: PanelLanes, const N: usize, const H: usize>(
    values: &Values,
    count: usize,
    x: *const f32,
    target: Target,
) {
    for first in (0..HALVES).step_by(H) {
        let to = target.sums.add(16 * first);
        let mut totals = [[L::zero(); H]; N];
        if !target.fresh {
            for c in 0..N {
                for h in 0..H {
                    totals[c][h] = L::load(to.add(c * BLOCK_ROWS + 16 * h));
                }
            }
        }
        for (i, values) in values.0[..count].iter().enumerate() {
            let mut w = [L::zero(); H];
            for h in 0..H {
                w[h] = L::load(values[first + h].as_ptr());
            }
            for c in 0..N {
                let x = L::splat(x.add(c * (RECORD / 4) + i).read());
                for h in 0..H {
                    totals[c][h] = L::fma(w[h], x, totals[c][h]);
                }
            }
        }
        for c in 0..N {
            for h in 0..H {
                L::store(to.add(c * BLOCK_ROWS + 16 * h), totals[c][h]);
            }
        }
    }
}
