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
    /// Unsigned: [`OFFSET`] is to be taken off, or nothing.
    Unsigned,
    /// As [`Form::Unsigned`]; the minima have the offset in them.
    Values,
}

/// What makes codes unsigned that are not so by themselves.
pub(super) const OFFSET: u8 = 128;

impl Form {
    /// What is taken off codes; none where they are signed.
    #[inline(always)]
    pub const fn offset<W: Blocks>(self) -> Option<u8> {
        match (self, W::Codes::OFFSET) {
            (_, Some(0)) => Some(0),
            (Form::Plain, None) => None,
            // of which a shift makes the sums times it
            (Form::Plain, Some(offset)) => Some(offset.next_power_of_two()),
            _ => Some(OFFSET),
        }
    }
}

/// Codes in this form.
///
/// # Safety
/// As [`PanelLanes`].
#[inline(always)]
unsafe fn ready<L: PanelLanes, W: Blocks>(codes: L::Bytes, form: Form) -> L::Bytes {
    let more = form
        .offset::<W>()
        .unwrap_or(0)
        .wrapping_sub(W::Codes::OFFSET.unwrap_or(0));
    if more == 0 {
        return codes;
    }
    // SAFETY: the caller's promise.
    unsafe { L::sub(codes, more.wrapping_neg()) }
}

/// `N` rows from `first` on. The last row stands in for those that there are not.
#[inline(always)]
fn all<const N: usize>(weights: &Weights, first: usize) -> [*const u8; N] {
    let mut rows = [weights.start; N];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = row.wrapping_add((first + i).min(weights.rows - 1) * weights.stride);
    }
    rows
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
    pub unsafe fn unpack<L: PanelLanes, W: Blocks>(
        &mut self,
        weights: &Weights,
        row: usize,
        first: usize,
        count: usize,
        form: Form,
    ) {
        let (first, blocks) = (first / W::VALUES, count / W::VALUES);
        // SAFETY: the caller's promise.
        unsafe {
            match W::NIBBLES {
                Some(at) => self.unpack_nibbles::<L, W>(weights, row, first, blocks, form, at),
                None => self.unpack_pairs::<L, W>(weights, row, first, blocks, form),
            }
            if W::VALUES == 32 {
                self.set_all_scales::<L, W>(weights, row, first, blocks, form);
            }
        }
    }

    /// Codes two rows at a time; and their scales, where blocks have several.
    ///
    /// # Safety
    /// As [`super::Product`].
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // a pair is more than its place in what is staged
    unsafe fn unpack_pairs<L: PanelLanes, W: Blocks>(
        &mut self,
        weights: &Weights,
        row: usize,
        first: usize,
        blocks: usize,
        form: Form,
    ) {
        let subs = W::VALUES / 32;
        let mut staged = [[[0u8; 64]; ROWS / 2]; CHUNK / 32];
        for number in 0..ROWS / 2 {
            // SAFETY: the caller's promise: the blocks lie in the rows.
            unsafe {
                let rows = at(pair(weights, row, number), first * W::BYTES);
                let lane = number / 8 * 16 + number % 8;
                for i in 0..blocks {
                    let blocks = at(rows, i * W::BYTES);
                    for sub in 0..subs {
                        let codes = ready::<L, W>(W::codes::<L>(blocks, sub), form);
                        L::store_bytes(staged[i * subs + sub][number].as_mut_ptr(), codes);
                    }
                    if W::VALUES > 32 {
                        self.set_scales::<W>(i * subs, lane, &W::head::<L>(blocks[0]), form);
                        self.set_scales::<W>(i * subs, lane + 8, &W::head::<L>(blocks[1]), form);
                    }
                }
            }
        }
        for (staged, codes) in staged[..blocks * subs].iter().zip(self.codes.as_chunks_mut().0) {
            // SAFETY: the caller's promise.
            unsafe { turn::<L>(staged, codes) };
        }
    }

    /// Codes that are nibbles alone are turned before they become bytes.
    ///
    /// # Safety
    /// As [`super::Product`].
    #[inline(always)]
    unsafe fn unpack_nibbles<L: PanelLanes, W: Blocks>(
        &mut self,
        weights: &Weights,
        row: usize,
        first: usize,
        blocks: usize,
        form: Form,
        at: usize,
    ) {
        for half in 0..HALVES {
            let mut rows = all::<ROWS>(weights, row)[16 * half..].as_chunks().0[0];
            for row in &mut rows {
                *row = row.wrapping_add(first * W::BYTES + at);
            }
            for codes in &mut self.codes.as_chunks_mut::<8>().0[..blocks] {
                // SAFETY: the caller's promise: the blocks lie in the rows; codes are stored to 64 bytes.
                unsafe {
                    for (i, turned) in L::turned16(&rows).into_iter().enumerate() {
                        let low = W::of_nibbles::<L>(L::field(turned, 0, 15));
                        let high = W::of_nibbles::<L>(L::field(turned, 4, 15));
                        L::store_bytes(codes[i][half].as_mut_ptr(), ready::<L, W>(low, form));
                        L::store_bytes(codes[4 + i][half].as_mut_ptr(), ready::<L, W>(high, form));
                    }
                }
                for row in &mut rows {
                    *row = row.wrapping_add(W::BYTES);
                }
            }
        }
    }

    /// The scales and minima of blocks of 32 values.
    ///
    /// # Safety
    /// As [`super::Product`].
    #[inline(always)]
    unsafe fn set_all_scales<L: PanelLanes, W: Blocks>(
        &mut self,
        weights: &Weights,
        row: usize,
        first: usize,
        blocks: usize,
        form: Form,
    ) {
        let mut bits = [[[0; ROWS]; CHUNK / 32]; 2];
        for (lane, row) in all::<ROWS>(weights, row).into_iter().enumerate() {
            let [scales, minima] = &mut bits;
            for (i, (scales, minima)) in scales[..blocks].iter_mut().zip(minima).enumerate() {
                // SAFETY: the caller's promise: the blocks lie in the rows.
                let [scale, min] = unsafe { W::bits(row.wrapping_add((first + i) * W::BYTES)) };
                scales[lane] = scale;
                if W::Codes::MINIMA {
                    minima[lane] = min;
                }
            }
        }
        let [scales, minima] = &mut bits;
        for (i, (scale, min)) in scales[..blocks].iter_mut().zip(minima).enumerate() {
            W::scale_bits(scale);
            for lane in (0..ROWS).step_by(16) {
                // SAFETY: the caller's promise; there are 16 entries from each lane on.
                unsafe {
                    let [scale, min] = W::of_bits::<L>(scale[lane..].as_ptr().cast(), min[lane..].as_ptr().cast());
                    L::store(self.scales[i][lane..].as_mut_ptr(), scale);
                    if form == Form::Values {
                        let offset = f32::from(form.offset::<W>().unwrap_or(0));
                        L::store(
                            self.minima[i][lane..].as_mut_ptr(),
                            L::fma(scale, L::splat(offset), min),
                        );
                    } else if W::Codes::MINIMA {
                        L::store(self.minima[i][lane..].as_mut_ptr(), min);
                    }
                }
            }
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
