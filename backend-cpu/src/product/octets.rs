//! Products of blocks of 32 values with few columns, eight blocks of a row at a time.
//!
//! Four blocks' first halves fill a vector, and their last halves another one, so that four lanes of the sums belong to
//! a block. Scales of eight blocks in each of two rows are a vector too, which is multiplied with the column's before it
//! is spread over the sums. What codes are shifted by, and minima, meet the column's sums eight blocks at a time.

use super::{
    blocks::{Coding, Small},
    columns,
    kernel::{TILE_COLUMNS, Weights, place},
    lanes::{Four, Lanes, Rows, at},
};

/// 256 values of a column.
#[repr(C, align(64))]
pub(super) struct Octet {
    /// For each four blocks, the first 16 codes of each, then the last 16.
    codes: [[[[i8; 16]; 4]; 2]; 2],
    /// What the codes of each block are times.
    scales: [f32; 8],
    /// The sum of each block's values.
    sums: [f32; 8],
}

/// Values of an octet.
const VALUES: usize = 256;
/// Bytes of a column of `values` values: whole octets.
pub(super) const fn column_bytes(values: usize) -> usize {
    values.div_ceil(VALUES) * size_of::<Octet>()
}

/// Quantizes a column of K values, K a multiple of 32, to [`column_bytes`] bytes; zeros fill the last octet.
///
/// # Safety
/// `to` has that many bytes, aligned to 64.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    let again = last(x.len() / 32).again;
    for (i, blocks) in x.chunks(VALUES).enumerate() {
        let before = if blocks.len() < VALUES { again } else { 0 };
        // SAFETY: octet i lies in the column.
        unsafe { to.cast::<Octet>().add(i).write(Octet::of(blocks, before)) };
    }
}

/// What is multiplied after the whole octets.
struct Last {
    /// Blocks of the whole octets that are taken once more, so that fours are whole.
    again: usize,
    /// The first block.
    first: usize,
    /// Blocks, from `first` to the row's end.
    count: usize,
}

/// The last octet of a row of so many blocks. Rows of fewer than four have nothing to take again.
#[inline(always)]
fn last(blocks: usize) -> Last {
    let own = blocks % 8;
    let again = if blocks < 4 { 0 } else { own.next_multiple_of(4) - own };
    Last {
        again,
        first: blocks - own - again,
        count: own + again,
    }
}

impl Octet {
    /// The octet of x, its blocks behind so many zeros.
    #[inline(always)]
    fn of(x: &[f32], before: usize) -> Octet {
        let mut octet = Octet {
            codes: [[[[0; 16]; 4]; 2]; 2],
            scales: [0.0; 8],
            sums: [0.0; 8],
        };
        for (i, x) in (before..).zip(x.as_chunks::<32>().0) {
            let (codes, scale) = columns::codes(x);
            for (half, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
                octet.codes[i / 4][half][i % 4] = *codes;
            }
            octet.scales[i] = scale;
            octet.sums[i] = scale * codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
        }
        octet
    }
}

/// A [`super::kernel::Product`] over columns of [`Octet`]s; up to `N` columns share what is unpacked.
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

/// Partial sums of a pair of rows with a column.
struct Sums<L: Lanes> {
    /// Of codes, for each row.
    products: [L::Floats; 2],
    /// Of what is added to codes, eight for each row.
    rest: L::Floats,
}

impl<L: Lanes> Clone for Sums<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Lanes> Copy for Sums<L> {}

#[inline(always)]
unsafe fn groups<L: Lanes, W: Small, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    const { assert!(N <= TILE_COLUMNS && W::VALUES == 32) };
    let blocks = weights.values / 32;
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<Octet>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise: each block lies in the rows, and each octet in the columns.
            unsafe {
                let zero = Sums::<L> {
                    products: [L::zero(); 2],
                    rest: L::zero(),
                };
                let mut sums = [zero; N];
                for octet in 0..blocks / 8 {
                    let done = octet * 8 * W::BYTES;
                    weights.prefetch::<L>(rows, done, 8 * W::BYTES);
                    add::<L, W, N>(at(rows, done), 8, &from, &mut sums);
                    for from in &mut from {
                        *from = from.add(1);
                    }
                }
                let last = last(blocks);
                if last.count > 0 {
                    add::<L, W, N>(at(rows, last.first * W::BYTES), last.count, &from, &mut sums);
                }
                for (c, sums) in sums.iter().enumerate().take(group.len()) {
                    let products = L::folded(sums.products[0], sums.products[1]);
                    let total = L::row_sums(L::fma(products, L::splat(1.0), sums.rest));
                    place(tile, (i * N + c) * stride, pair, weights.rows, total);
                }
            }
        }
    }
}

/// Adds the products of the first `count` blocks of an octet of each row with one of each column.
#[inline(always)]
unsafe fn add<L: Lanes, W: Small, const N: usize>(
    rows: Rows,
    count: usize,
    columns: &[*const Octet; N],
    sums: &mut [Sums<L>; N],
) {
    // no closures: one would not have the features of the set, and so not be inlined
    let fours = [octet::<W>(rows[0], count), octet::<W>(rows[1], count)];
    // SAFETY: the caller's promise.
    unsafe {
        let scales = W::scales::<L>(&fours);
        let mut spread = [scales; N];
        for (spread, column) in spread.iter_mut().zip(columns) {
            *spread = L::mul(scales, L::both_eights((&raw const (**column).scales).cast()));
        }
        let offset = W::Codes::offset::<L>();
        if W::Codes::MINIMA || offset > 0 {
            let more = if W::Codes::MINIMA {
                W::minima::<L>(&fours)
            } else {
                L::mul(scales, L::splat(-f32::from(offset)))
            };
            for (sums, column) in sums.iter_mut().zip(columns) {
                let x = L::both_eights((&raw const (**column).sums).cast());
                sums.rest = L::fma(more, x, sums.rest);
            }
        }
        for (row, fours) in fours.iter().enumerate() {
            for (quad, four) in fours.iter().enumerate().take(count.div_ceil(4)) {
                let [first, last] = W::codes_of_four::<L>(*four);
                let [first, last] = [W::Codes::ready::<L>(first), W::Codes::ready::<L>(last)];
                for ((sums, spread), column) in sums.iter_mut().zip(spread).zip(columns) {
                    let codes = (&raw const (**column).codes[quad]).cast::<u8>();
                    let dots = W::Codes::dots::<L>(L::no_ints(), first, L::load64(codes));
                    let dots = W::Codes::dots::<L>(dots, last, L::load64(codes.add(64)));
                    let to = &mut sums.products[row];
                    *to = L::fma(L::floats(dots), L::spread_four(spread, row, quad), *to);
                }
            }
        }
    }
}

/// The two times four blocks from `from`, of which `count` are there; the first four again where there are no others.
#[inline(always)]
fn octet<W: Small>(from: *const u8, count: usize) -> [Four; 2] {
    let first = Four {
        from,
        count: count.min(4),
    };
    if count <= 4 {
        return [first; 2];
    }
    let second = Four {
        from: from.wrapping_add(4 * W::BYTES),
        count: count - 4,
    };
    [first, second]
}
