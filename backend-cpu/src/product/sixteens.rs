//! Products of blocks of 32 values with few columns, sixteen blocks at a time.
//!
//! Each lane belongs to a block: eight vectors have its codes, four to a lane, so that its 32 products become one number
//! before it is scaled, and scales are a vector too. Sixteen blocks are neighbours in a row; at the end of rows, where fewer
//! are left, they are four neighbours in each of four rows.

use super::{
    blocks::{Coding, Small},
    columns,
    kernel::{AHEAD, FEW_COLUMNS, Weights},
    lanes::{Four, Fours, SixteenLanes},
};

/// What sixteen blocks of weights meet in a column.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Sixteen {
    /// The codes of each lane's block, four at a time.
    codes: [[[i8; 4]; 16]; 8],
    /// What the codes of each lane are times.
    scales: [f32; 16],
    /// The sum of each lane's values.
    sums: [f32; 16],
}

const EMPTY: Sixteen = Sixteen {
    codes: [[[0; 4]; 16]; 8],
    scales: [0.0; 16],
    sums: [0.0; 16],
};

/// Rows whose ends are multiplied together.
const ROWS: usize = 4;

/// Bytes of a column of `values` values.
pub(super) const fn column_bytes(values: usize) -> usize {
    let blocks = values.div_ceil(32);
    (blocks / 16 + (blocks % 16).div_ceil(4)) * size_of::<Sixteen>()
}

/// Quantizes a column of K values, K a multiple of 32, to [`column_bytes`] bytes; zeros stand for missing blocks.
///
/// # Safety
/// `to` has that many bytes, aligned to 64.
#[inline(always)]
pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
    let mut to = to.cast::<Sixteen>();
    let (whole, rest) = x.as_chunks::<512>();
    for x in whole {
        let mut sixteen = EMPTY;
        for (i, x) in x.as_chunks().0.iter().enumerate() {
            sixteen.put(x, [i % 4 * 4 + i / 4]);
        }
        // SAFETY: it lies in the column. So for the others.
        unsafe {
            to.write(sixteen);
            to = to.add(1);
        }
    }
    for x in rest.chunks(128) {
        let mut sixteen = EMPTY;
        for (i, x) in x.as_chunks().0.iter().enumerate() {
            sixteen.put(x, [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3]);
        }
        // SAFETY: as above.
        unsafe {
            to.write(sixteen);
            to = to.add(1);
        }
    }
}

impl Sixteen {
    /// Makes `x` the block of these lanes.
    #[inline(always)]
    fn put<const N: usize>(&mut self, x: &[f32; 32], lanes: [usize; N]) {
        let (codes, scale) = columns::codes(x);
        let sum = scale * codes.iter().map(|&code| i32::from(code)).sum::<i32>() as f32;
        for lane in lanes {
            for (to, codes) in self.codes.iter_mut().zip(codes.as_chunks().0) {
                to[lane] = *codes;
            }
            self.scales[lane] = scale;
            self.sums[lane] = sum;
        }
    }
}

/// A [`super::kernel::Product`] over columns of [`Sixteen`]s, all of which share what is unpacked.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: SixteenLanes, W: Small>(
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
            4 => groups::<L, W, 4>(weights, columns, tile, stride),
            _ => groups::<L, W, FEW_COLUMNS>(weights, columns, tile, stride),
        }
    }
}

#[inline(always)]
unsafe fn groups<L: SixteenLanes, W: Small, const N: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    for (i, group) in columns.chunks(N).enumerate() {
        let mut from = [group[0].cast::<Sixteen>(); N];
        for (from, column) in from.iter_mut().zip(group) {
            *from = column.cast();
        }
        for first in (0..weights.rows).step_by(ROWS) {
            let mut rows = [weights.start; ROWS];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = weights
                    .start
                    .wrapping_add((first + r).min(weights.rows - 1) * weights.stride);
            }
            // SAFETY: the caller's promise.
            let totals = unsafe { four_rows::<L, W, N>(rows, weights.values / 32, &from, group.len()) };
            let count = ROWS.min(weights.rows - first);
            for (c, totals) in totals.iter().enumerate().take(group.len()) {
                tile[(i * N + c) * stride + first..][..count].copy_from_slice(&totals[..count]);
            }
        }
    }
}

/// The products of four rows of so many blocks with the first `count` of columns.
#[inline(always)]
unsafe fn four_rows<L: SixteenLanes, W: Small, const N: usize>(
    rows: [*const u8; ROWS],
    blocks: usize,
    columns: &[*const Sixteen; N],
    count: usize,
) -> [[f32; ROWS]; N] {
    // SAFETY: the caller's promise: each block lies in the rows, and each sixteen in the columns.
    unsafe {
        let mut sums = [[L::zero(); N]; ROWS];
        for (rows, sums) in rows.as_chunks::<2>().0.iter().zip(sums.as_chunks_mut::<2>().0) {
            let [mut first, mut second] = [[L::zero(); N]; 2];
            for i in 0..blocks / 16 {
                let done = 16 * i * W::BYTES;
                prefetch::<L>(rows[1], done, 16 * W::BYTES);
                let fours = [neighbours::<W>(rows[0].add(done)), neighbours::<W>(rows[1].add(done))];
                add_two::<L, W, N>(&fours, columns, i, count, &mut first, &mut second);
            }
            *sums = [first, second];
        }
        let mut rest = [L::zero(); N];
        for (i, done) in (blocks / 16 * 16..blocks).step_by(4).enumerate() {
            for pair in rows.as_chunks::<2>().0 {
                prefetch::<L>(pair[1], done * W::BYTES, 4 * W::BYTES);
            }
            let fours = ends::<W>(rows, done, blocks);
            add::<L, W, N>(&fours, columns, blocks / 16 + i, count, &mut rest);
        }
        let mut totals = [[0.0; ROWS]; N];
        for (c, totals) in totals.iter_mut().enumerate().take(count) {
            *totals = L::totals([sums[0][c], sums[1][c], sums[2][c], sums[3][c]], rest[c]);
        }
        totals
    }
}

/// Sixteen blocks of a row.
#[inline(always)]
fn neighbours<W: Small>(from: *const u8) -> Fours {
    let mut fours = [Four { from, count: 4 }; 4];
    for (q, four) in fours.iter_mut().enumerate() {
        four.from = from.wrapping_add(4 * q * W::BYTES);
    }
    Fours {
        fours,
        neighbours: true,
    }
}

/// Up to four blocks of each row from its block `done` on, of which it has `blocks`.
#[inline(always)]
fn ends<W: Small>(rows: [*const u8; ROWS], done: usize, blocks: usize) -> Fours {
    let count = (blocks - done).min(4);
    let mut fours = [Four { from: rows[0], count }; ROWS];
    for (four, row) in fours.iter_mut().zip(rows) {
        four.from = row.wrapping_add(done * W::BYTES);
    }
    Fours {
        fours,
        neighbours: false,
    }
}

/// Asks for what comes later, when `done` bytes of each of two rows were taken, and `bytes` more are now. Rows lie side by
/// side, so memory is asked for in order, at least [`AHEAD`] bytes before its turn. Beyond the weights, nothing comes of it.
#[inline(always)]
fn prefetch<L: SixteenLanes>(second: *const u8, done: usize, bytes: usize) {
    let start = second.wrapping_add(AHEAD + 2 * done);
    for line in (0..2 * bytes).step_by(64) {
        L::prefetch(start.wrapping_add(line));
    }
}

/// Sixteen blocks, unpacked.
struct Unpacked<L: SixteenLanes> {
    codes: [L::Bytes; 8],
    scales: L::Floats,
    /// What a column's sums are times.
    more: L::Floats,
}

impl<L: SixteenLanes> Unpacked<L> {
    /// # Safety
    /// As [`SixteenLanes`]. So for the others.
    #[inline(always)]
    unsafe fn of<W: Small>(fours: &Fours) -> Unpacked<L> {
        // no closures: one would not have the features of the set, and so not be inlined
        // SAFETY: the caller's promise. So for the others.
        unsafe {
            let mut codes = W::codes_of_sixteen::<L>(fours);
            for codes in &mut codes {
                *codes = W::Codes::ready::<L>(*codes);
            }
            let scales = W::scales::<L>(fours);
            let more = if W::Codes::MINIMA {
                W::minima::<L>(fours)
            } else {
                L::mul(scales, L::splat(-f32::from(W::Codes::offset::<L>())))
            };
            Unpacked { codes, scales, more }
        }
    }

    /// `sums` and the products with what a column has for them.
    #[inline(always)]
    unsafe fn added<W: Small>(&self, column: *const Sixteen, sums: L::Floats) -> L::Floats {
        // SAFETY: as above.
        unsafe {
            let dots = W::Codes::sums_of_32::<L, W>(&self.codes, (&raw const (*column).codes).cast());
            let scales = L::mul(self.scales, L::load((&raw const (*column).scales).cast()));
            let sums = L::fma(L::floats(dots), scales, sums);
            if !W::Codes::MINIMA && W::Codes::offset::<L>() == 0 {
                return sums;
            }
            L::fma(self.more, L::load((&raw const (*column).sums).cast()), sums)
        }
    }
}

/// Does something for each of the first `count` of `N` columns: without a branch where they are all, but for the most
/// columns, whose code would be long.
macro_rules! for_columns {
    ($n:ident, $count:ident, $c:ident => $what:block) => {
        if $n < FEW_COLUMNS {
            for $c in 0..$n $what
        } else {
            for pair in 0..$count / 2 {
                {
                    let $c = 2 * pair;
                    $what
                }
                {
                    let $c = 2 * pair + 1;
                    $what
                }
            }
            if $count % 2 == 1 {
                let $c = $count - 1;
                $what
            }
        }
    };
}

/// Adds the products of sixteen blocks with number `i` of what each of the first `count` columns has for them.
#[inline(always)]
unsafe fn add<L: SixteenLanes, W: Small, const N: usize>(
    fours: &Fours,
    columns: &[*const Sixteen; N],
    i: usize,
    count: usize,
    sums: &mut [L::Floats; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let unpacked = Unpacked::<L>::of::<W>(fours);
        for_columns!(N, count, c => {
            sums[c] = unpacked.added::<W>(columns[c].add(i), sums[c]);
        });
    }
}

/// The same for two rows, which share what is loaded of columns.
#[inline(always)]
unsafe fn add_two<L: SixteenLanes, W: Small, const N: usize>(
    fours: &[Fours; 2],
    columns: &[*const Sixteen; N],
    i: usize,
    count: usize,
    first: &mut [L::Floats; N],
    second: &mut [L::Floats; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if !L::TWO_ROWS {
            add::<L, W, N>(&fours[0], columns, i, count, first);
            return add::<L, W, N>(&fours[1], columns, i, count, second);
        }
        // two variables, since an array of them would lie in memory
        let a = Unpacked::<L>::of::<W>(&fours[0]);
        let b = Unpacked::<L>::of::<W>(&fours[1]);
        for_columns!(N, count, c => {
            first[c] = a.added::<W>(columns[c].add(i), first[c]);
            second[c] = b.added::<W>(columns[c].add(i), second[c]);
        });
    }
}
