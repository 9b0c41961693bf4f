//! A chunk of 32 rows, unpacked.

use super::{HALVES, ROWS};
use crate::product::{
    blocks::{Blocks, Coding, Groups},
    kernel::{CHUNK, Weights},
    lanes::{PanelLanes, Rows, at},
};

/// The codes of [`CHUNK`] values of 32 rows with their scales.
#[repr(C, align(64))]
pub(super) struct Codes {
    /// For each four values, those of the first 16 rows and of the others.
    pub codes: [[[u8; 64]; HALVES]; CHUNK / 4],
    /// For each 32 values, or 16 where these have their own, the rows' scales.
    pub scales: [[f32; ROWS]; CHUNK / 16],
    /// The same of what is taken off.
    pub minima: [[f32; ROWS]; CHUNK / 16],
}

/// How codes lie in [`Codes`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As the type has them: some are signed.
    Plain,
    /// Unsigned.
    Unsigned,
    /// Unsigned; the minima have their offset in them.
    Values,
}

impl Form {
    /// What is taken off codes; none where they are signed.
    #[inline(always)]
    pub const fn offset<W: Blocks>(self) -> Option<u8> {
        match (self, W::Codes::OFFSET) {
            (Form::Plain, None) => None,
            (_, None) => Some(128),
            (_, offset) => offset,
        }
    }
}

/// Rows of `weights` that are unpacked together: number `pair` < 16 of the 32 from `first` on. The last row stands in for those
/// that there are not.
#[inline(always)]
pub(super) fn pair(weights: &Weights, first: usize, pair: usize) -> Rows {
    let row = |row: usize| weights.start.wrapping_add(row.min(weights.rows - 1) * weights.stride);
    let upper = first + pair / 8 * 16 + pair % 8;
    [row(upper), row(upper + 8)]
}

/// Dwords of 16 rows, in their pairs, as vectors that have one of each row.
///
/// # Safety
/// As [`PanelLanes`].
#[inline(always)]
pub(super) unsafe fn turn<L: PanelLanes>(pairs: &[[u8; 64]; ROWS / 2], to: &mut [[[u8; 64]; HALVES]; 8]) {
    for half in 0..HALVES {
        // SAFETY: the caller's promise.
        let turned = unsafe { L::turned(&pairs.as_chunks().0[half]) };
        for (to, turned) in to.iter_mut().zip(turned) {
            // SAFETY: there are 64 bytes.
            unsafe { L::store_bytes(to[half].as_mut_ptr(), turned) };
        }
    }
}

impl Codes {
    pub const EMPTY: Codes = Codes {
        codes: [[[0; 64]; HALVES]; CHUNK / 4],
        scales: [[0.0; ROWS]; CHUNK / 16],
        minima: [[0.0; ROWS]; CHUNK / 16],
    };

    /// Unpacks `count` values from `first`, multiples of the type's block, of the 32 rows from `row` on.
    ///
    /// # Safety
    /// As [`super::Product`].
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // a pair is more than its place in what is staged
    pub unsafe fn unpack<L: PanelLanes, W: Blocks>(
        &mut self,
        weights: &Weights,
        row: usize,
        first: usize,
        count: usize,
        form: Form,
    ) {
        let subs = W::VALUES / 32;
        let mut staged = [[[0u8; 64]; ROWS / 2]; CHUNK / 32];
        for i in 0..count / W::VALUES {
            for number in 0..ROWS / 2 {
                // SAFETY: the caller's promise: the blocks lie in the rows.
                unsafe {
                    let blocks = at(pair(weights, row, number), (first / W::VALUES + i) * W::BYTES);
                    if i == 0 {
                        // the next chunk of these rows, which comes after the other rows of the block
                        let bytes = count / W::VALUES * W::BYTES;
                        for block in blocks {
                            L::prefetch_soon(block.wrapping_add(bytes), bytes);
                        }
                    }
                    let heads = [W::head::<L>(blocks[0]), W::head::<L>(blocks[1])];
                    for sub in 0..subs {
                        let mut codes = W::codes::<L>(blocks, sub);
                        if W::Codes::OFFSET.is_none() && form != Form::Plain {
                            codes = L::sub(codes, 128);
                        }
                        L::store_bytes(staged[i * subs + sub][number].as_mut_ptr(), codes);
                    }
                    for (r, head) in heads.iter().enumerate() {
                        let lane = number / 8 * 16 + number % 8 + 8 * r;
                        self.set_scales::<W>(i * subs, lane, head, form);
                    }
                }
            }
        }
        for (staged, codes) in staged[..count / 32].iter().zip(self.codes.as_chunks_mut().0) {
            // SAFETY: the caller's promise.
            unsafe { turn::<L>(staged, codes) };
        }
    }

    /// The scales and minima of a row's block, the first of whose groups of 32 values is number `sub`.
    #[inline(always)]
    fn set_scales<W: Blocks>(&mut self, sub: usize, lane: usize, head: &W::Head, form: Form) {
        let halves = if W::Head::HALVES { 2 } else { 1 };
        for i in 0..W::VALUES / 32 {
            let (scale, min) = (head.scale(i), head.min(i));
            for half in 0..halves {
                let of = halves * (sub + i) + half;
                self.scales[of][lane] = scale[half];
                if form == Form::Values {
                    let offset = f32::from(form.offset::<W>().unwrap_or(0));
                    self.minima[of][lane] = min[half] + offset * scale[half];
                } else if W::Codes::MINIMA {
                    self.minima[of][lane] = min[half];
                }
            }
        }
    }

    /// Value `i` of each of 16 rows, of codes that were unpacked as [`Form::Values`].
    #[inline(always)]
    pub fn values<W: Blocks>(&self, i: usize, half: usize) -> [f32; 16] {
        let group = if W::Head::HALVES { i / 16 } else { i / 32 };
        let codes = &self.codes[i / 4][half].as_chunks::<4>().0;
        let scales = &self.scales[group].as_chunks::<16>().0[half];
        let minima = &self.minima[group].as_chunks::<16>().0[half];
        let mut values = [0.0; 16];
        for lane in 0..16 {
            let code = u32::from_le_bytes(codes[lane]) >> (8 * (i % 4)) & 255;
            values[lane] = scales[lane] * code as i32 as f32 - minima[lane];
        }
        values
    }
}
