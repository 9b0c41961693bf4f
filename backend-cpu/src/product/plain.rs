//! Products of plain weights with few columns, straight from where the weights lie.

use super::{
    kernel::{FEW_COLUMNS, Weights, place},
    lanes::{Lanes, Rows, at},
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

/// A [`super::kernel::Product`] over f32 columns; up to four columns share what is loaded, where the set
/// has registers for as many: where `N` is more than 2.
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
            count if count > 2 && N > 2 => groups::<L, W, 4>(weights, columns, tile, stride),
            _ => groups::<L, W, 2>(weights, columns, tile, stride),
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
    for pair in 0..weights.pairs() {
        let rows = weights.pair(pair);
        for (i, group) in columns.chunks(N).enumerate() {
            let mut from = [group[0].cast::<f32>(); N];
            for (from, column) in from.iter_mut().zip(group) {
                *from = column.cast();
            }
            // SAFETY: the caller's promise: the values lie in the rows and in the columns.
            unsafe {
                let mut sums = [[L::zero(); 2]; N];
                for value in (0..whole).step_by(16) {
                    let done = value * W::BYTES;
                    weights.prefetch::<L>(rows, done, 16 * W::BYTES);
                    let mut x = [L::zero(); N];
                    for (x, from) in x.iter_mut().zip(from) {
                        *x = L::load(from.add(value));
                    }
                    add::<L, W, N>(at(rows, done), &x, &mut sums);
                }
                if whole < weights.values {
                    let count = weights.values - whole;
                    let mut x = [L::zero(); N];
                    for (x, from) in x.iter_mut().zip(from) {
                        *x = L::load_some(from.add(whole), count);
                    }
                    let tails = tails::<W>(at(rows, whole * W::BYTES), count);
                    add::<L, W, N>([tails[0].as_ptr(), tails[1].as_ptr()], &x, &mut sums);
                }
                for (c, [a, b]) in sums.iter().enumerate().take(group.len()) {
                    let total = L::row_sums(L::folded(*a, *b));
                    place(tile, (i * N + c) * stride, pair, weights.rows, total);
                }
            }
        }
    }
}

/// Adds sixteen products of each row.
#[inline(always)]
unsafe fn add<L: Lanes, W: Plain, const N: usize>(rows: Rows, x: &[L::Floats; N], sums: &mut [[L::Floats; 2]; N]) {
    // SAFETY: the caller's promise.
    unsafe {
        let weights = [W::load::<L>(rows[0]), W::load::<L>(rows[1])];
        for (sums, x) in sums.iter_mut().zip(x) {
            *sums = [L::fma(weights[0], *x, sums[0]), L::fma(weights[1], *x, sums[1])];
        }
    }
}

/// The last `count` < 16 weights of each row, and zeros.
#[inline(always)]
unsafe fn tails<W: Plain>(rows: Rows, count: usize) -> [[u8; 64]; 2] {
    let mut tails = [[0; 64]; 2];
    for (tail, row) in tails.iter_mut().zip(rows) {
        // SAFETY: the caller's promise: the row has as many weights.
        unsafe { std::ptr::copy_nonoverlapping(row, tail.as_mut_ptr(), count * W::BYTES) };
    }
    tails
}
