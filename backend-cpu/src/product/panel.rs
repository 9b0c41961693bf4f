//! Products of many columns, with the dot products of AVX-512 VNNI.
//!
//! 256 values of 32 rows at a time are unpacked to bytes that lie as the instruction wants them: lane r of a vector has
//! four neighbours of row r, so that four neighbours of a column, in all lanes, give 16 rows' sums at once, and rows have
//! their scales lane by lane. What is unpacked stays in the first cache while all columns pass over it.

use std::arch::x86_64::*;

use super::{
    blocks::{Blocks, Coding, Groups},
    columns::Block,
    kernel::{CHUNK, PANEL_COLUMNS, PANEL_ROWS, Weights},
    lanes::{Avx512, Lanes, at},
};

/// Rows of a tile: two vectors of sums.
const ROWS: usize = PANEL_ROWS;
/// Columns whose sums are in registers.
const TOGETHER: usize = 4;

type L = Avx512<true>;

/// 256 values of 32 rows.
#[repr(C, align(64))]
struct Chunk {
    /// For each four values, those of the first 16 rows and of the others; in [`lane_of_row`]'s order.
    codes: [[[u8; 64]; 2]; CHUNK / 4],
    /// For each 32 values, or 16 where these have their own, the rows' scales.
    scales: [[f32; ROWS]; CHUNK / 16],
    /// The same of their minima, with what makes codes unsigned, times four: see [`Block`]'s sums.
    minima: [[f32; ROWS]; CHUNK / 16],
}

/// The lane of a row among its 16: pairs of rows are unpacked together, and their halves of a vector stay apart.
const fn lane_of_row(row: usize) -> usize {
    row / 16 * 16 + row % 2 * 8 + row % 16 / 2
}

/// A [`super::kernel::Product`] for up to [`PANEL_ROWS`] rows and [`PANEL_COLUMNS`] columns.
///
/// # Safety
/// As there, with AVX-512 VNNI.
#[inline(always)]
pub(super) unsafe fn product<W: Blocks>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
    let mut chunk = Chunk {
        codes: [[[0; 64]; 2]; CHUNK / 4],
        scales: [[0.0; ROWS]; CHUNK / 16],
        minima: [[0.0; ROWS]; CHUNK / 16],
    };
    let mut sums = [[0.0; ROWS]; PANEL_COLUMNS];
    let groups = columns.len().div_ceil(TOGETHER);
    for first in (0..weights.values).step_by(CHUNK) {
        let count = CHUNK.min(weights.values - first);
        // SAFETY: the caller's promise: the chunk lies in the rows and in the columns.
        unsafe {
            unpack::<W>(weights, first, count, &mut chunk);
            for (i, sums) in sums.as_chunks_mut().0[..groups].iter_mut().enumerate() {
                let mut blocks = [std::ptr::null(); TOGETHER];
                for (c, block) in blocks.iter_mut().enumerate() {
                    let column = columns[(i * TOGETHER + c).min(columns.len() - 1)];
                    *block = column.cast::<Block>().add(first / 32);
                }
                add::<W>(&chunk, count / 32, &blocks, sums);
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
unsafe fn unpack<W: Blocks>(weights: &Weights, first: usize, count: usize, chunk: &mut Chunk) {
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
                    L::store_bytes(staged[i * subs + sub][pair].as_mut_ptr(), unsigned::<W>(codes));
                    for (row, head) in heads.iter().enumerate() {
                        set_scales::<W>(chunk, i * subs + sub, lane_of_row(2 * pair + row), head, sub);
                    }
                }
            }
        }
    }
    for (i, staged) in staged[..count / 32].iter().enumerate() {
        for half in 0..2 {
            // SAFETY: the caller has AVX-512.
            let turned = unsafe { transposed(&staged.as_chunks().0[half]) };
            for (codes, turned) in chunk.codes[8 * i..8 * i + 8].iter_mut().zip(turned) {
                // SAFETY: the codes are 64 bytes.
                unsafe { L::store_bytes(codes[half].as_mut_ptr(), turned) };
            }
        }
    }
}

/// What is taken off codes from 0 on: signed ones have 128 added.
#[inline(always)]
fn offset<W: Blocks>() -> u8 {
    W::Codes::OFFSET.unwrap_or(128)
}

/// Codes from 0 on.
#[inline(always)]
unsafe fn unsigned<W: Blocks>(codes: __m512i) -> __m512i {
    match W::Codes::OFFSET {
        Some(_) => codes,
        // SAFETY: the caller has AVX-512.
        None => unsafe { _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) },
    }
}

/// The scales and minima of 32 values of a row.
#[inline(always)]
fn set_scales<W: Blocks>(chunk: &mut Chunk, sub: usize, lane: usize, head: &W::Head, from: usize) {
    let (scale, min) = (head.scale(from), head.min(from));
    let halves = if W::Head::HALVES { 2 } else { 1 };
    for half in 0..halves {
        let less = min[half] + f32::from(offset::<W>()) * scale[half];
        chunk.scales[halves * sub + half][lane] = scale[half];
        chunk.minima[halves * sub + half][lane] = 4.0 * less;
    }
}

/// Eight vectors, each with eight dwords of one row and eight of another, as eight with one dword of each row: the bits of
/// a vector's number change places with those of a dword's.
#[inline(always)]
unsafe fn transposed(rows: &[[u8; 64]; 8]) -> [__m512i; 8] {
    // SAFETY: the caller has AVX-512; each vector is 64 bytes.
    unsafe {
        let mut v = [_mm512_setzero_si512(); 8];
        for (v, row) in v.iter_mut().zip(rows) {
            *v = _mm512_loadu_si512(row.as_ptr().cast());
        }
        for bit in 0..3 {
            let d = 1 << bit;
            let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let distance = _mm512_set1_epi32(d);
            let upper = _mm512_test_epi32_mask(lanes, distance);
            // lanes of the second operand are numbered from 16 on
            let low = _mm512_mask_add_epi32(lanes, upper, lanes, _mm512_set1_epi32(16 - d));
            let high = _mm512_mask_add_epi32(_mm512_add_epi32(lanes, distance), upper, lanes, _mm512_set1_epi32(16));
            for i in (0..8).filter(|i| i & d as usize == 0) {
                let (a, b) = (v[i], v[i + d as usize]);
                v[i] = _mm512_permutex2var_epi32(a, low, b);
                v[i + d as usize] = _mm512_permutex2var_epi32(a, high, b);
            }
        }
        v
    }
}

/// Adds the products of a chunk's first `blocks32` · 32 values with these columns.
#[inline(always)]
unsafe fn add<W: Blocks>(
    chunk: &Chunk,
    blocks32: usize,
    columns: &[*const Block; TOGETHER],
    sums: &mut [[f32; ROWS]; TOGETHER],
) {
    let halves = if W::Head::HALVES { 2 } else { 1 };
    let steps = 8 / halves;
    // SAFETY: the caller has AVX-512 VNNI, and the columns have these blocks.
    unsafe {
        let mut totals = [[_mm512_setzero_ps(); 2]; TOGETHER];
        for i in 0..blocks32 {
            let blocks = columns.map(|column| column.add(i));
            for half in 0..halves {
                let mut dots = [[_mm512_setzero_si512(); 2]; TOGETHER];
                for step in half * steps..(half + 1) * steps {
                    let codes = &chunk.codes[8 * i + step];
                    // no closures here: one would not have the set's features, and so not be inlined
                    let w = [
                        _mm512_load_si512(codes[0].as_ptr().cast()),
                        _mm512_load_si512(codes[1].as_ptr().cast()),
                    ];
                    for (dots, block) in dots.iter_mut().zip(blocks) {
                        let x = _mm512_set1_epi32(Block::four(block, step));
                        dots[0] = _mm512_dpbusd_epi32(dots[0], w[0], x);
                        dots[1] = _mm512_dpbusd_epi32(dots[1], w[1], x);
                    }
                }
                let group = halves * i + half;
                let (scales, minima) = (halves_of(&chunk.scales[group]), halves_of(&chunk.minima[group]));
                for ((totals, dots), block) in totals.iter_mut().zip(dots).zip(blocks) {
                    let scale = _mm512_set1_ps(Block::scale(block));
                    let sum = _mm512_set1_ps(Block::quarter_sum(block, (halves == 2).then_some(half)));
                    for h in 0..2 {
                        let dots = _mm512_cvtepi32_ps(dots[h]);
                        totals[h] = _mm512_fmadd_ps(dots, _mm512_mul_ps(scales[h], scale), totals[h]);
                        totals[h] = _mm512_fnmadd_ps(minima[h], sum, totals[h]);
                    }
                }
            }
        }
        for (sums, totals) in sums.iter_mut().zip(totals) {
            for (h, totals) in totals.into_iter().enumerate() {
                let to = sums[16 * h..].as_mut_ptr();
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), totals));
            }
        }
    }
}

/// The numbers of the first 16 rows and of the others, which are aligned.
#[inline(always)]
unsafe fn halves_of(rows: &[f32; ROWS]) -> [__m512; 2] {
    // SAFETY: the caller has AVX-512; each half is 64 bytes of an aligned array.
    unsafe { [_mm512_load_ps(rows.as_ptr()), _mm512_load_ps(rows[16..].as_ptr())] }
}
