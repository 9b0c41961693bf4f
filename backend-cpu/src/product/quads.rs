//! Products of IQ4_XS with few columns: blocks of 256 values whose codes are looked up.
//!
//! A vector has the first halves of four times 32 values and another one their last halves, so that four lanes of the sums
//! belong to a scale. The scales of a block in each of two rows are a vector too, which is spread over the sums.

use super::{
    blocks::{Blocks, Coding, IQ4_XS, Signed},
    columns,
    kernel::{TILE_COLUMNS, Weights, place},
    lanes::{Rows, SuperLanes, at},
};

/// 256 values of a column.
#[repr(C, align(64))]
pub(super) struct Quads {
    /// For each four times 32 codes, the first 16 of each, then the last 16.
    codes: [[[[i8; 16]; 4]; 2]; 2],
    /// The sum of each 32 values.
    sums: [f32; 8],
    /// What codes are times.
    scale: f32,
}

/// Values that a scale serves.
const VALUES: usize = 256;

/// Bytes of a column of `values` values, a multiple of 256.
pub(super) const fn column_bytes(values: usize) -> usize {
    values / VALUES * size_of::<Quads>()
}

/// Quantizes a column of K values, K a multiple of 256, to [`column_bytes`] bytes.
///
/// # Safety
/// `to` has that many bytes, aligned to 64.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    for (i, block) in x.as_chunks::<VALUES>().0.iter().enumerate() {
        // SAFETY: block i lies in the column.
        unsafe { to.cast::<Quads>().add(i).write(Quads::of(block)) };
    }
}

impl Quads {
    #[inline(always)]
    fn of(x: &[f32; VALUES]) -> Quads {
        let (codes, scale) = columns::codes(x);
        let mut quads = Quads {
            codes: [[[[0; 16]; 4]; 2]; 2],
            sums: [0.0; 8],
            scale,
        };
        for (i, codes) in codes.as_chunks::<16>().0.iter().enumerate() {
            quads.codes[i / 8][i % 2][i / 2 % 4] = *codes;
        }
        for (sum, codes) in quads.sums.iter_mut().zip(codes.as_chunks::<32>().0) {
            *sum = scale * f32::from(codes.iter().map(|&code| i16::from(code)).sum::<i16>());
        }
        quads
    }
}

/// A [`super::kernel::Product`] over columns of [`Quads`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: SuperLanes>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match columns.len() {
            1 => groups::<L, 1>(weights, columns, tile, stride),
            2 => groups::<L, 2>(weights, columns, tile, stride),
            _ => groups::<L, 4>(weights, columns, tile, stride),
        }
    }
}

/// Partial sums of a pair of rows with a column.
struct Sums<L: SuperLanes> {
    /// Of codes, for each row.
    products: [L::Floats; 2],
    /// Of what is taken off codes, eight for each row.
    rest: L::Floats,
}

impl<L: SuperLanes> Clone for Sums<L> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: SuperLanes> Copy for Sums<L> {}

#[inline(always)]
unsafe fn groups<L: SuperLanes, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    const { assert!(N <= TILE_COLUMNS) };
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<Quads>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise: each block lies in the rows and in the columns.
            unsafe {
                let zero = Sums::<L> {
                    products: [L::zero(); 2],
                    rest: L::zero(),
                };
                let mut sums = [zero; N];
                for block in 0..weights.values / VALUES {
                    let done = block * IQ4_XS::BYTES;
                    weights.prefetch::<L>(rows, done, IQ4_XS::BYTES);
                    add::<L, N>(at(rows, done), &from, &mut sums);
                    for from in &mut from {
                        *from = from.add(1);
                    }
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

/// Adds the products of a block of each row with a block of each column.
#[inline(always)]
unsafe fn add<L: SuperLanes, const N: usize>(blocks: Rows, columns: &[*const Quads; N], sums: &mut [Sums<L>; N]) {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = IQ4_XS::scales::<L>(blocks);
        for (row, block) in blocks.into_iter().enumerate() {
            let mut products = [L::zero(); N];
            for quad in 0..2 {
                let scale = L::spread_four(scales, row, quad);
                let [first, last] = IQ4_XS::quad::<L>(block, quad);
                for (products, column) in products.iter_mut().zip(columns) {
                    let x = (&raw const (**column).codes[quad]).cast::<u8>();
                    let dots = L::add_dots(L::no_ints(), first, L::load64(x), !L::WHOLE_BYTES);
                    let dots = L::add_dots(dots, last, L::load64(x.add(64)), !L::WHOLE_BYTES);
                    *products = L::fma(L::floats(dots), scale, *products);
                }
            }
            for ((sums, products), column) in sums.iter_mut().zip(products).zip(columns) {
                let scale = L::splat((**column).scale);
                sums.products[row] = L::fma(products, scale, sums.products[row]);
            }
        }
        let offset = Signed::offset::<L>();
        if offset > 0 {
            let less = L::mul(scales, L::splat(-f32::from(offset)));
            for (sums, column) in sums.iter_mut().zip(columns) {
                let x = L::both_eights((&raw const (**column).sums).cast());
                sums.rest = L::fma(less, x, sums.rest);
            }
        }
    }
}
