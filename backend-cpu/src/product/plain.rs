//! Products of plain weights with few columns, straight from where the weights lie.

use super::{
    kernel::{FEW_COLUMNS, Weights, place},
    lanes::{Lanes, Rows},
};

/// Weights that a vector of f32 can be loaded of.
pub(super) trait Plain {
    /// Bytes of a weight.
    const BYTES: usize;

    /// Sixteen weights.
    ///
    /// # Safety
    /// As [`Lanes`].
    unsafe fn load<L: Lanes>(from: *const u8) -> L::Floats;
}

/// Declares plain weights.
macro_rules! plain {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $load:ident) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl Plain for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            unsafe fn load<L: Lanes>(from: *const u8) -> L::Floats {
                // SAFETY: the caller's promise.
                unsafe { L::$load(from.cast()) }
            }
        }
    };
}

plain!(
    /// f32 weights.
    Singles,
    4,
    load
);
plain!(
    /// f16 weights.
    Halves,
    2,
    load_f16
);
plain!(
    /// bf16 weights.
    Brains,
    2,
    load_bf16
);

/// Pairs of rows that share what is loaded of a column.
const PAIRS: usize = 2;

/// Partial sums of the rows with a column.
type Sums<L> = [[<L as Lanes>::Floats; 2]; PAIRS];

/// A [`super::kernel::Product`] over f32 columns; up to `N` columns share what is loaded.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, W: Plain, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    debug_assert!(columns.len() <= FEW_COLUMNS);
    // SAFETY: the caller's promise.
    unsafe {
        match columns.len() {
            1 => groups::<L, W, 1>(weights, columns, tile, stride),
            _ => groups::<L, W, N>(weights, columns, tile, stride),
        }
    }
}

#[inline(always)]
unsafe fn groups<L: Lanes, W: Plain, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    let whole = weights.values / 16 * 16;
    for first in (0..weights.pairs()).step_by(PAIRS) {
        let rows = weights.pairs_from::<PAIRS>(first);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<f32>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise: the values lie in the rows and in the columns.
            unsafe {
                let mut sums = [[[L::zero(); 2]; PAIRS]; N];
                for value in (0..whole).step_by(16) {
                    let rows = at(&rows, value * W::BYTES);
                    if (value * W::BYTES).is_multiple_of(64) {
                        weights.prefetch::<L, PAIRS>(&rows, 64);
                    }
                    let mut x = [L::zero(); N];
                    for (x, from) in x.iter_mut().zip(from) {
                        *x = L::load(from.add(value));
                    }
                    add::<L, W, N>(&rows, &x, &mut sums);
                }
                if whole < weights.values {
                    let count = weights.values - whole;
                    let mut x = [L::zero(); N];
                    for (x, from) in x.iter_mut().zip(from) {
                        *x = L::load_some(from.add(whole), count);
                    }
                    let tails = tails::<W>(&at(&rows, whole * W::BYTES), count);
                    let mut rows = rows;
                    for (rows, tails) in rows.iter_mut().zip(&tails) {
                        *rows = [tails[0].as_ptr(), tails[1].as_ptr()];
                    }
                    add::<L, W, N>(&rows, &x, &mut sums);
                }
                for (c, sums) in sums.iter().enumerate().take(group.len()) {
                    for (pair, [a, b]) in sums.iter().enumerate().take(weights.pairs() - first) {
                        let total = L::row_sums(L::folded(*a, *b));
                        place(tile, (i * N + c) * stride, first + pair, weights.rows, total);
                    }
                }
            }
        }
    }
}

/// All rows, `bytes` further on.
#[inline(always)]
fn at(rows: &[Rows; PAIRS], bytes: usize) -> [Rows; PAIRS] {
    let mut further = *rows;
    for row in further.as_flattened_mut() {
        *row = row.wrapping_add(bytes);
    }
    further
}

/// Adds sixteen products.
#[inline(always)]
unsafe fn add<L: Lanes, W: Plain, const N: usize>(rows: &[Rows; PAIRS], x: &[L::Floats; N], sums: &mut [Sums<L>; N]) {
    for (pair, rows) in rows.iter().enumerate() {
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe {
                let weights = W::load::<L>(*row);
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[pair][i] = L::fma(weights, *x, sums[pair][i]);
                }
            }
        }
    }
}

/// The last `count` < 16 weights of each row, and zeros.
#[inline(always)]
unsafe fn tails<W: Plain>(rows: &[Rows; PAIRS], count: usize) -> [[[u8; 64]; 2]; PAIRS] {
    let mut tails = [[[0; 64]; 2]; PAIRS];
    for (tail, row) in tails.as_flattened_mut().iter_mut().zip(rows.as_flattened()) {
        // SAFETY: the caller's promise: the row has as many weights.
        unsafe { std::ptr::copy_nonoverlapping(*row, tail.as_mut_ptr(), count * W::BYTES) };
    }
    tails
}
