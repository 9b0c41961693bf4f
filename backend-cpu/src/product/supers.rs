//! Products of blocks of 256 values with few columns, in whole numbers up to the end of each block.
//!
//! Such blocks have whole scales, so that sums of scaled products stay whole too, where the column has one scale for as
//! many values: two instructions for 64 weights.

use super::{
    blocks::{Coding, Groups, Supers},
    columns,
    kernel::{TILE_COLUMNS, Weights, place},
    lanes::{Rows, SuperLanes, at},
};

/// 256 values of a column.
#[repr(C, align(64))]
pub(super) struct Super {
    /// The codes by [`Supers::parts`].
    codes: [[[i8; 32]; 2]; 4],
    /// The sum of each 16 codes.
    half_sums: [i16; 16],
    /// Zeros, and the sum of each 32 codes.
    sums: [[i16; 8]; 2],
    /// What codes are times.
    scale: f32,
    reserved: [i16; 30],
}

/// Values that a scale serves.
const VALUES: usize = 256;

/// Bytes of a column of `values` values, a multiple of 256.
pub(super) const fn column_bytes(values: usize) -> usize {
    values / VALUES * size_of::<Super>()
}

/// Quantizes a column of K values, K a multiple of 256, to [`column_bytes`] bytes.
///
/// # Safety
/// `to` has that many bytes, aligned to 64.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    for (i, block) in x.as_chunks::<VALUES>().0.iter().enumerate() {
        // SAFETY: block i lies in the column.
        unsafe { to.cast::<Super>().add(i).write(Super::of(block)) };
    }
}

impl Super {
    #[inline(always)]
    fn of(x: &[f32; VALUES]) -> Super {
        let (codes, scale) = columns::codes(x);
        let mut parts = [[[0; 32]; 2]; 4];
        for (i, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
            parts[i % 4][i / 4] = *codes;
        }
        let mut half_sums = [0; 16];
        for (sum, codes) in half_sums.iter_mut().zip(codes.as_chunks::<16>().0) {
            *sum = codes.iter().map(|&code| i16::from(code)).sum();
        }
        Super {
            codes: parts,
            half_sums,
            sums: [[0; 8], std::array::from_fn(|i| half_sums[2 * i] + half_sums[2 * i + 1])],
            scale,
            reserved: [0; 30],
        }
    }
}

/// A [`super::kernel::Product`] over columns of [`Super`]s; up to four columns share what is unpacked.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: SuperLanes, W: Supers>(
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
            _ => groups::<L, W, 4>(weights, columns, tile, stride),
        }
    }
}

#[inline(always)]
unsafe fn groups<L: SuperLanes, W: Supers, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    const { assert!(N <= TILE_COLUMNS && W::VALUES == VALUES) };
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<Super>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise: each block lies in the rows and in the columns.
            unsafe {
                let mut sums = [L::zero(); N];
                for block in 0..weights.values / VALUES {
                    let blocks = at(rows, block * W::BYTES);
                    weights.prefetch::<L>(rows, block * W::BYTES, W::BYTES);
                    add::<L, W, N>(blocks, &from.map(|column| column.add(block)), &mut sums);
                }
                for (c, sums) in sums.iter().enumerate().take(group.len()) {
                    place(tile, (i * N + c) * stride, pair, weights.rows, L::row_sums(*sums));
                }
            }
        }
    }
}

/// Adds the products of a block of each row with a block of each column.
#[inline(always)]
unsafe fn add<L: SuperLanes, W: Supers, const N: usize>(
    blocks: Rows,
    columns: &[*const Super; N],
    sums: &mut [L::Floats; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        // no closure: one would not have the features of the set, and so not be inlined
        let [scales, minima] = W::scales_and_minima::<L>(blocks);
        let mut products = [[L::no_ints(); N]; 2];
        for (row, products) in products.iter_mut().enumerate() {
            let parts = W::parts::<L>(blocks[row]);
            for two in 0..2 {
                let codes = [parts[2 * two], parts[2 * two + 1]];
                let scales = L::spread(scales, row, two, W::Head::HALVES);
                for (products, column) in products.iter_mut().zip(columns) {
                    let x = (&raw const (**column).codes[2 * two]).cast::<u8>();
                    *products = L::add_two(*products, codes, x, scales);
                }
            }
        }
        let offset = i16::from(W::Codes::OFFSET.unwrap_or(0));
        let less = L::times(scales, -offset);
        let [d, dmin] = W::factors::<L>(blocks);
        for (c, (sums, column)) in sums.iter_mut().zip(columns).enumerate() {
            let mut products = L::folded_ints(products[0][c], products[1][c]);
            let group_sums = if W::Head::HALVES {
                (&raw const (**column).half_sums).cast::<i16>()
            } else {
                (&raw const (**column).sums).cast::<i16>()
            };
            let group_sums = L::shorts([group_sums; 2]);
            if offset > 0 {
                products = L::add_products(products, less, group_sums);
            }
            let scale = L::splat((**column).scale);
            *sums = L::fma(L::floats(products), L::mul(d, scale), *sums);
            if W::Codes::MINIMA {
                let products = L::add_products(L::no_ints(), minima, group_sums);
                *sums = L::fnma(L::floats(products), L::mul(dmin, scale), *sums);
            }
        }
    }
}
