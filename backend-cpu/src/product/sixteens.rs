//! Products of blocks of 32 values with few columns, sixteen blocks of a row at a time.
//!
//! Four blocks' first halves fill a vector, and their last halves another one, so that four lanes of the sums belong to
//! a block. The scales of sixteen blocks are a vector too, which is multiplied with the column's before it is spread over the
//! sums. What codes are shifted by, and minima, meet the column's sums sixteen blocks at a time. One row is taken after the
//! other, so that memory is read in order: two at a time are a twentieth slower from there.
//!
//! Where a row's last four blocks are not whole, those before them are taken once more and meet zeros in the column: loads
//! that stop at a row's end cost as much as two sixteens.

use super::{
    blocks::{Coding, Small},
    columns,
    kernel::{TILE_COLUMNS, Weights, ask_ahead, place},
    lanes::{Four, Lanes},
};

/// 512 values of a column.
#[repr(C, align(64))]
pub(super) struct Sixteen {
    /// For each four blocks, the first 16 codes of each, then the last 16.
    codes: [[[[i8; 16]; 4]; 2]; 4],
    /// What the codes of each block are times.
    scales: [f32; 16],
    /// The sum of each block's values.
    sums: [f32; 16],
}

/// Blocks that are taken at a time, and their values.
const BLOCKS: usize = 16;
const VALUES: usize = 32 * BLOCKS;

/// Bytes of a column of `values` values: whole sixteens.
pub(super) const fn column_bytes(values: usize) -> usize {
    values.div_ceil(VALUES) * size_of::<Sixteen>()
}

/// Quantizes a column of K values, K a multiple of 32, to [`column_bytes`] bytes; zeros fill the last sixteen.
///
/// # Safety
/// `to` has that many bytes, aligned to 64.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    let again = last(x.len() / 32).again;
    for (i, blocks) in x.chunks(VALUES).enumerate() {
        let before = if blocks.len() < VALUES { again } else { 0 };
        // SAFETY: sixteen i lies in the column.
        unsafe { to.cast::<Sixteen>().add(i).write(Sixteen::of(blocks, before)) };
    }
}

/// What is multiplied after the whole sixteens.
struct Last {
    /// Blocks of the whole sixteens that are taken once more, so that fours are whole.
    again: usize,
    /// The first block.
    first: usize,
    /// Blocks, from `first` to the row's end.
    count: usize,
}

/// The last sixteen of a row of so many blocks. Rows without a whole one have nothing to take again.
#[inline(always)]
fn last(blocks: usize) -> Last {
    let own = blocks % BLOCKS;
    let again = if blocks < BLOCKS {
        0
    } else {
        own.next_multiple_of(4) - own
    };
    Last {
        again,
        first: blocks - own - again,
        count: own + again,
    }
}

impl Sixteen {
    /// The sixteen of x, its blocks behind so many zeros.
    #[inline(always)]
    fn of(x: &[f32], before: usize) -> Sixteen {
        let mut sixteen = Sixteen {
            codes: [[[[0; 16]; 4]; 2]; 4],
            scales: [0.0; BLOCKS],
            sums: [0.0; BLOCKS],
        };
        for (i, x) in (before..).zip(x.as_chunks::<32>().0) {
            let (codes, scale) = columns::codes(x);
            for (half, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
                sixteen.codes[i / 4][half][i % 4] = *codes;
            }
            sixteen.scales[i] = scale;
            sixteen.sums[i] = scale * codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
        }
        sixteen
    }
}

/// A [`super::kernel::Product`] over columns of [`Sixteen`]s; up to `N` columns share what is unpacked.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, W: Small, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match columns.len() {
            1 => groups::<L, W, 1>(weights, columns, tile, stride),
            2 => groups::<L, W, 2>(weights, columns, tile, stride),
            _ => groups::<L, W, N>(weights, columns, tile, stride),
        }
    }
}

#[inline(always)]
unsafe fn groups<L: Lanes, W: Small, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    const { assert!(N <= TILE_COLUMNS && W::VALUES == 32) };
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<Sixteen>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise.
            unsafe {
                let mut products = [[L::zero(); N]; 2];
                for (products, row) in products.iter_mut().zip(rows) {
                    *products = row_products::<L, W, N>(row, weights.values / 32, from);
                }
                let [first, second] = &products;
                for (c, (first, second)) in first.iter().zip(second).enumerate().take(group.len()) {
                    let total = L::row_sums(L::folded(*first, *second));
                    place(tile, (i * N + c) * stride, pair, weights.rows, total);
                }
            }
        }
    }
}

/// Partial sums of a row with a column.
struct Sums<L: Lanes> {
    /// Of codes, of the first eight of sixteen blocks and of the others.
    products: [L::Floats; 2],
    /// Of what is added to codes.
    rest: L::Floats,
}

impl<L: Lanes> Clone for Sums<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Lanes> Copy for Sums<L> {}

/// The products of a row of so many blocks with each column, as sixteen partial sums.
#[inline(always)]
unsafe fn row_products<L: Lanes, W: Small, const N: usize>(
    row: *const u8,
    blocks: usize,
    mut columns: [*const Sixteen; N],
) -> [L::Floats; N] {
    // SAFETY: the caller's promise: each block lies in the row, and each sixteen in the columns.
    unsafe {
        let zero = Sums::<L> {
            products: [L::zero(); 2],
            rest: L::zero(),
        };
        let mut sums = [zero; N];
        for i in 0..blocks / BLOCKS {
            let from = row.add(i * BLOCKS * W::BYTES);
            ask_ahead::<L>(from, BLOCKS * W::BYTES);
            add::<L, W, N, true>(from, BLOCKS, &columns, &mut sums);
            for column in &mut columns {
                *column = column.add(1);
            }
        }
        let last = last(blocks);
        if last.count > 0 {
            let from = row.add(last.first * W::BYTES);
            ask_ahead::<L>(from, last.count * W::BYTES);
            if blocks >= BLOCKS {
                add::<L, W, N, true>(from, last.count, &columns, &mut sums);
            } else {
                add::<L, W, N, false>(from, last.count, &columns, &mut sums);
            }
        }
        let mut all = [L::zero(); N];
        for (all, sums) in all.iter_mut().zip(sums) {
            let one = L::splat(1.0);
            *all = L::fma(sums.products[0], one, L::fma(sums.products[1], one, sums.rest));
        }
        all
    }
}

/// Adds the products of `count` blocks, at most a sixteen and, if `WHOLE`, a multiple of four, with one of each column.
#[inline(always)]
unsafe fn add<L: Lanes, W: Small, const N: usize, const WHOLE: bool>(
    from: *const u8,
    count: usize,
    columns: &[*const Sixteen; N],
    sums: &mut [Sums<L>; N],
) {
    // no closures: one would not have the features of the set, and so not be inlined
    let fours = fours::<W, WHOLE>(from, count);
    // SAFETY: the caller's promise.
    unsafe {
        let scales = W::scales::<L>(&fours);
        let mut spread = [scales; N];
        for (spread, column) in spread.iter_mut().zip(columns) {
            *spread = L::mul(scales, L::load((&raw const (**column).scales).cast()));
        }
        let offset = W::Codes::offset::<L>();
        if W::Codes::MINIMA || offset > 0 {
            let more = if W::Codes::MINIMA {
                W::minima::<L>(&fours)
            } else {
                L::mul(scales, L::splat(-f32::from(offset)))
            };
            for (sums, column) in sums.iter_mut().zip(columns) {
                let x = L::load((&raw const (**column).sums).cast());
                sums.rest = L::fma(more, x, sums.rest);
            }
        }
        for (i, four) in fours.as_flattened().iter().enumerate() {
            if 4 * i >= count {
                continue;
            }
            let [first, last] = W::codes_of_four::<L>(*four);
            let [first, last] = [W::Codes::ready::<L>(first), W::Codes::ready::<L>(last)];
            for ((sums, spread), column) in sums.iter_mut().zip(spread).zip(columns) {
                let codes = (&raw const (**column).codes[i]).cast::<u8>();
                let dots = W::Codes::dots::<L>(L::no_ints(), first, L::load64(codes));
                let dots = W::Codes::dots::<L>(dots, last, L::load64(codes.add(64)));
                let to = &mut sums.products[i / 2];
                *to = L::fma(L::floats(dots), L::spread_four(spread, i / 2, i % 2), *to);
            }
        }
    }
}

/// The four times four blocks from `from`, of which `count` are there; the first four again where there are no others.
#[inline(always)]
fn fours<W: Small, const WHOLE: bool>(from: *const u8, count: usize) -> [[Four; 2]; 2] {
    let mut fours = [[Four { from, count: 4 }; 2]; 2];
    for (i, four) in fours.as_flattened_mut().iter_mut().enumerate() {
        let first = if 4 * i < count { 4 * i } else { 0 };
        four.from = from.wrapping_add(first * W::BYTES);
        if !WHOLE {
            four.count = (count - first).min(4);
        }
    }
    fours
}
