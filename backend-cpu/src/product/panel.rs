//! Products of many columns.
//!
//! 256 values of 32 rows at a time are unpacked to bytes that lie as dot products want them: lane r of a vector has
//! four neighbours of row r, so that four neighbours of a column, in all lanes, give 16 rows' sums at once, and rows have
//! their scales lane by lane. What is unpacked stays in the first cache while all columns pass over it.

use super::{
    blocks::{Blocks, Coding, Groups},
    columns::Block,
    kernel::{CHUNK, PANEL_COLUMNS, PANEL_ROWS, Weights},
    lanes::{PanelLanes, at},
};

/// Rows of a tile.
const ROWS: usize = PANEL_ROWS;
/// Vectors of 16 rows.
const HALVES: usize = ROWS / 16;
/// 256 values of 32 rows.
#[repr(C, align(64))]
struct Chunk {
    /// For each four values, those of the first 16 rows and of the others; in [`lane_of_row`]'s order.
    codes: [[[u8; 64]; HALVES]; CHUNK / 4],
    /// For each 32 values, or 16 where these have their own, the rows' scales.
    scales: [[f32; ROWS]; CHUNK / 16],
    /// The same of their minima, with what makes codes unsigned, times four: see [`Block`]'s sums.
    minima: [[f32; ROWS]; CHUNK / 16],
}

/// The lane of a row among its 16: pairs of rows are unpacked together, and their halves of a vector stay apart.
const fn lane_of_row(row: usize) -> usize {
    row / 16 * 16 + row % 2 * 8 + row % 16 / 2
}

/// A [`super::kernel::Product`] for up to [`PANEL_ROWS`] rows and [`PANEL_COLUMNS`] columns. The sums of `N` columns with
/// `H` times 16 rows are in registers at a time.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn product<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    weights: &Weights,
    columns: &[*const u8],
    tile: &mut [f32],
    stride: usize,
) {
    let mut chunk = Chunk {
        codes: [[[0; 64]; HALVES]; CHUNK / 4],
        scales: [[0.0; ROWS]; CHUNK / 16],
        minima: [[0.0; ROWS]; CHUNK / 16],
    };
    let mut sums = [[0.0; ROWS]; PANEL_COLUMNS];
    let groups = columns.len().div_ceil(N);
    for first in (0..weights.values).step_by(CHUNK) {
        let count = CHUNK.min(weights.values - first);
        // SAFETY: the caller's promise: the chunk lies in the rows and in the columns.
        unsafe {
            unpack::<L, W>(weights, first, count, &mut chunk);
            for (i, sums) in sums.as_chunks_mut::<N>().0[..groups].iter_mut().enumerate() {
                let mut blocks = [std::ptr::null(); N];
                for (c, block) in blocks.iter_mut().enumerate() {
                    let column = columns[(i * N + c).min(columns.len() - 1)];
                    *block = column.cast::<Block>().add(first / 32);
                }
                add::<L, W, N, H>(&chunk, count / 32, &blocks, sums);
            }
        }
    }
    for (sums, values) in sums[..columns.len()].iter().zip(tile.chunks_mut(stride)) {
        for (row, value) in values[..weights.rows].iter_mut().enumerate() {
            *value = sums[lane_of_row(row)];
        }
    }
}

/// Unpacks `count` values of all rows from `first`; rows beyond the last one are that one again.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // a pair is more than its place in what is staged
unsafe fn unpack<L: PanelLanes, W: Blocks>(weights: &Weights, first: usize, count: usize, chunk: &mut Chunk) {
    let subs = W::VALUES / 32;
    let mut staged = [[[0u8; 64]; ROWS / 2]; CHUNK / 32];
    for pair in 0..ROWS / 2 {
        for i in 0..count / W::VALUES {
            // SAFETY: the caller's promise: the blocks lie in the rows.
            unsafe {
                let blocks = at(weights.pair(pair), (first / W::VALUES + i) * W::BYTES);
                let heads = [W::head::<L>(blocks[0]), W::head::<L>(blocks[1])];
                for sub in 0..subs {
                    let codes = W::codes::<L>(blocks, sub);
                    L::store_bytes(staged[i * subs + sub][pair].as_mut_ptr(), ready::<L, W>(codes));
                    for (row, head) in heads.iter().enumerate() {
                        set_scales::<L, W>(chunk, i * subs + sub, lane_of_row(2 * pair + row), head, sub);
                    }
                }
            }
        }
    }
    for (i, staged) in staged[..count / 32].iter().enumerate() {
        for half in 0..HALVES {
            // SAFETY: the caller's promise.
            let turned = unsafe { L::turned(&staged.as_chunks().0[half]) };
            for (codes, turned) in chunk.codes[8 * i..8 * i + 8].iter_mut().zip(turned) {
                // SAFETY: the codes are 64 bytes.
                unsafe { L::store_bytes(codes[half].as_mut_ptr(), turned) };
            }
        }
    }
}

/// Whether codes go into the dot products signed: they are, and the instruction takes no byte above 127 otherwise.
#[inline(always)]
const fn signed<L: PanelLanes, W: Blocks>() -> bool {
    W::Codes::OFFSET.is_none() && !L::WHOLE_BYTES
}

/// What is taken off codes as they go into the dot products: signed ones that must not stay so have 128 added.
#[inline(always)]
const fn offset<L: PanelLanes, W: Blocks>() -> u8 {
    match W::Codes::OFFSET {
        Some(offset) => offset,
        None if L::WHOLE_BYTES => 128,
        None => 0,
    }
}

/// Codes as they go into the dot products.
#[inline(always)]
unsafe fn ready<L: PanelLanes, W: Blocks>(codes: L::Bytes) -> L::Bytes {
    match W::Codes::OFFSET {
        // SAFETY: the caller's promise.
        None if L::WHOLE_BYTES => unsafe { L::sub(codes, 128) },
        _ => codes,
    }
}

/// The scales and minima of 32 values of a row.
#[inline(always)]
fn set_scales<L: PanelLanes, W: Blocks>(chunk: &mut Chunk, sub: usize, lane: usize, head: &W::Head, from: usize) {
    let (scale, min) = (head.scale(from), head.min(from));
    let halves = if W::Head::HALVES { 2 } else { 1 };
    for half in 0..halves {
        let less = min[half] + f32::from(offset::<L, W>()) * scale[half];
        chunk.scales[halves * sub + half][lane] = scale[half];
        chunk.minima[halves * sub + half][lane] = 4.0 * less;
    }
}

/// Adds the products of a chunk's first `blocks32` · 32 values with these columns.
#[inline(always)]
unsafe fn add<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    chunk: &Chunk,
    blocks32: usize,
    columns: &[*const Block; N],
    sums: &mut [[f32; ROWS]; N],
) {
    const { assert!(HALVES.is_multiple_of(H) && PANEL_COLUMNS.is_multiple_of(N)) };
    for first in (0..HALVES).step_by(H) {
        // SAFETY: the caller's promise; sums and what is loaded of the chunk are arrays of as many values.
        unsafe {
            let mut totals = [[L::zero(); H]; N];
            for i in 0..blocks32 {
                add_block::<L, W, N, H>(chunk, i, first, columns, &mut totals);
            }
            for (sums, totals) in sums.iter_mut().zip(totals) {
                for (sums, totals) in sums[16 * first..].as_chunks_mut::<16>().0.iter_mut().zip(totals) {
                    let more = L::fma(totals, L::splat(1.0), L::load(sums.as_ptr()));
                    L::store(sums.as_mut_ptr(), more);
                }
            }
        }
    }
}

/// Adds the products of 32 values, of the rows' halves from `first` on. No closures here: one would not have the features
/// of the set, and so not be inlined.
#[inline(always)]
unsafe fn add_block<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    chunk: &Chunk,
    i: usize,
    first: usize,
    columns: &[*const Block; N],
    totals: &mut [[L::Floats; H]; N],
) {
    let groups = if W::Head::HALVES { 2 } else { 1 };
    let steps = 8 / groups;
    for group in 0..groups {
        // SAFETY: the caller's promise: the columns have block i.
        unsafe {
            let mut dots = [[L::no_ints(); H]; N];
            for step in group * steps..(group + 1) * steps {
                let codes = &chunk.codes[8 * i + step];
                let mut w = [L::four(0); H];
                for (h, w) in w.iter_mut().enumerate() {
                    *w = L::load64(codes[first + h].as_ptr());
                }
                for (dots, column) in dots.iter_mut().zip(columns) {
                    let x = L::four(Block::four(column.add(i), step));
                    for (dots, w) in dots.iter_mut().zip(w) {
                        *dots = L::add_dots(*dots, w, x, signed::<L, W>());
                    }
                }
            }
            let of = groups * i + group;
            for (h, half) in (first..first + H).enumerate() {
                let scales = L::load(chunk.scales[of][16 * half..].as_ptr());
                let minima = L::load(chunk.minima[of][16 * half..].as_ptr());
                for ((totals, dots), column) in totals.iter_mut().zip(&dots).zip(columns) {
                    let block = column.add(i);
                    let scale = L::mul(scales, L::splat(Block::scale(block)));
                    totals[h] = L::fma(L::floats(dots[h]), scale, totals[h]);
                    if W::Codes::MINIMA || offset::<L, W>() > 0 {
                        let sum = Block::quarter_sum(block, if groups == 2 { Some(group) } else { None });
                        totals[h] = L::fnma(minima, L::splat(sum), totals[h]);
                    }
                }
            }
        }
    }
}
