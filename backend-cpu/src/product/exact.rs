//! Products in f32: plain weights, and any weights where the graph asks for precision.

use std::{marker::PhantomData, ops::Range};

use super::{
    blocks::{Blocks, Coding, Groups},
    kernel::{CHUNK, Path, TILE_COLUMNS, Weights, tiled},
    lanes::{Lanes, Rows, at},
};

/// A chunk of two rows.
type Scratch = [[f32; CHUNK]; 2];

/// Weights that decode to f32.
pub(super) trait Decode {
    /// Bytes of a value, rounded up.
    const BYTES: usize;

    /// Where `count` ≤ [`CHUNK`] values of each row from `first`, a multiple of it, lie as f32: in the rows themselves,
    /// or in the scratch.
    ///
    /// # Safety
    /// As [`Lanes`]; the rows hold these values.
    unsafe fn decode<L: Lanes>(rows: Rows, first: usize, count: usize, scratch: &mut Scratch) -> [*const f32; 2];
}

/// f32 weights.
pub(super) struct F32;

impl Decode for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn decode<L: Lanes>(rows: Rows, first: usize, _: usize, _: &mut Scratch) -> [*const f32; 2] {
        // SAFETY: the caller's promise.
        unsafe { at(rows, 4 * first).map(|row| row.cast()) }
    }
}

/// Declares weights of two bytes.
macro_rules! half {
    ($(#[$doc:meta])* $name:ident, $load:ident) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Decode for $name {
            const BYTES: usize = 2;

            #[inline(always)]
            unsafe fn decode<L: Lanes>(rows: Rows, first: usize, count: usize, scratch: &mut Scratch) -> [*const f32; 2] {
                for (row, scratch) in rows.iter().zip(scratch.iter_mut()) {
                    // SAFETY: the caller's promise: `count` values lie in the row; the tail goes through a copy.
                    unsafe {
                        let row = row.add(2 * first);
                        let whole = count / 16 * 16;
                        for i in (0..whole).step_by(16) {
                            L::store(scratch.as_mut_ptr().add(i), L::$load(row.add(2 * i)));
                        }
                        if whole < count {
                            let mut tail = [0u8; 32];
                            std::ptr::copy_nonoverlapping(row.add(2 * whole), tail.as_mut_ptr(), 2 * (count - whole));
                            L::store(scratch.as_mut_ptr().add(whole), L::$load(tail.as_ptr()));
                        }
                    }
                }
                [scratch[0].as_ptr(), scratch[1].as_ptr()]
            }
        }
    };
}

half!(
    /// f16 weights.
    F16,
    load_f16
);
half!(
    /// bf16 weights.
    BF16,
    load_bf16
);

/// The weights of a block type.
pub(super) struct Unpacked<W>(PhantomData<W>);

impl<W: Blocks> Decode for Unpacked<W> {
    const BYTES: usize = W::BYTES.div_ceil(W::VALUES);

    #[inline(always)]
    unsafe fn decode<L: Lanes>(rows: Rows, first: usize, count: usize, scratch: &mut Scratch) -> [*const f32; 2] {
        let subs = W::VALUES / 32;
        for i in 0..count / W::VALUES {
            // SAFETY: the caller's promise: the block lies in the rows.
            unsafe {
                let blocks = at(rows, (first / W::VALUES + i) * W::BYTES);
                let heads = [W::head::<L>(blocks[0]), W::head::<L>(blocks[1])];
                for sub in 0..subs {
                    let mut codes = [0; 64];
                    L::store_bytes(codes.as_mut_ptr(), W::codes::<L>(blocks, sub));
                    for ((head, codes), scratch) in heads.iter().zip(codes.as_chunks().0).zip(scratch.iter_mut()) {
                        values::<W>(head, sub, codes, &mut scratch.as_chunks_mut().0[i * subs + sub]);
                    }
                }
            }
        }
        [scratch[0].as_ptr(), scratch[1].as_ptr()]
    }
}

#[inline(always)]
fn values<W: Blocks>(head: &W::Head, sub: usize, codes: &[u8; 32], out: &mut [f32; 32]) {
    let (scale, min) = (head.scale(sub), head.min(sub));
    for half in 0..2 {
        for i in 16 * half..16 * half + 16 {
            out[i] = scale[half] * W::Codes::value(codes[i]) - min[half];
        }
    }
}

/// A [`super::kernel::Product`] over f32 columns; `N` columns share a pass over decoded weights.
///
/// # Safety
/// As [`super::kernel::Product`].
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, W: Decode, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match columns.len() {
            1 => tiled::<L, Exact<W>, 1, 1>(weights, columns, tile, stride),
            _ => tiled::<L, Exact<W>, N, TILE_COLUMNS>(weights, columns, tile, stride),
        }
    }
}

/// Weights are decoded once for many columns.
pub(super) struct Exact<W>(PhantomData<W>);

/// A chunk as f32: where it lies, and the scratch where it may lie.
pub(super) struct Chunk {
    rows: [*const f32; 2],
    scratch: Scratch,
}

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Path`
impl<L: Lanes, W: Decode> Path<L> for Exact<W> {
    type Chunk = Chunk;
    type Sums = [L::Floats; 2];

    #[inline(always)]
    unsafe fn chunk() -> Chunk {
        Chunk {
            rows: [std::ptr::null(); 2],
            scratch: [[0.0; CHUNK]; 2],
        }
    }

    #[inline(always)]
    unsafe fn zero() -> [L::Floats; 2] {
        [L::zero(); 2]
    }

    #[inline(always)]
    unsafe fn unpack(rows: Rows, first: usize, count: usize, chunk: &mut Chunk) {
        chunk.rows = W::decode::<L>(rows, first, count, &mut chunk.scratch);
    }

    #[inline(always)]
    unsafe fn add<const N: usize>(
        chunk: &Chunk,
        columns: &[*const u8; N],
        range: Range<usize>,
        sums: &mut [[L::Floats; 2]; N],
    ) {
        let mut local = *sums;
        let mut from = [std::ptr::null(); N];
        for (from, column) in from.iter_mut().zip(columns) {
            *from = column.cast::<f32>().add(range.start);
        }
        let (count, tail) = (range.len() / 16 * 16, range.len() % 16);
        for i in (0..count).step_by(16) {
            let rows = [L::load(chunk.rows[0].add(i)), L::load(chunk.rows[1].add(i))];
            for (sums, from) in local.iter_mut().zip(from) {
                *sums = step::<L>(*sums, rows, L::load(from.add(i)));
            }
        }
        if tail > 0 {
            let [a, b] = at(chunk.rows.map(|row| row.cast()), 4 * count);
            let rows = [L::load_some(a.cast(), tail), L::load_some(b.cast(), tail)];
            for (sums, from) in local.iter_mut().zip(from) {
                *sums = step::<L>(*sums, rows, L::load_some(from.add(count), tail));
            }
        }
        *sums = local;
    }

    #[inline(always)]
    unsafe fn total(sums: [L::Floats; 2]) -> [f32; 2] {
        L::row_sums(L::folded(sums[0], sums[1]))
    }
}

#[inline(always)]
unsafe fn step<L: Lanes>(sums: [L::Floats; 2], rows: [L::Floats; 2], x: L::Floats) -> [L::Floats; 2] {
    // SAFETY: the caller's promise.
    unsafe { [L::fma(rows[0], x, sums[0]), L::fma(rows[1], x, sums[1])] }
}
