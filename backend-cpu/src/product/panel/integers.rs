//! Block types in 8 bits: sums of codes in whole numbers, over as many values as share a scale.

use std::marker::PhantomData;

use super::{
    Ahead, BLOCK_ROWS, Columns, HALVES, Method, Target,
    packing::{Packing, RECORD, Record},
    unpack::{Codes, Form, OFFSET},
};
use crate::product::{
    blocks::{Blocks, Coding, Groups},
    kernel::{CHUNK, Weights},
    lanes::PanelLanes,
};

/// The sums of `N` columns, or of the fewer `F` where `N` are too many, with `H` times 16 rows are in registers at a time.
pub(super) struct Integers<L, W, const N: usize, const F: usize, const H: usize> {
    codes: Codes,
    kind: PhantomData<(L, W)>,
}

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Method`
impl<L: PanelLanes, W: Blocks, const N: usize, const F: usize, const H: usize> Method for Integers<L, W, N, F, H> {
    const VALUES: usize = CHUNK;
    const BYTES: usize = CHUNK / W::VALUES * W::BYTES;
    const PACKING: Packing = if W::VALUES == 256 {
        Packing::Supers
    } else {
        Packing::Blocks
    };

    #[inline(always)]
    unsafe fn start() -> Self {
        const { assert!(HALVES.is_multiple_of(H) && F <= N && N <= super::SPARE) };
        Integers {
            codes: Codes::EMPTY,
            kind: PhantomData,
        }
    }

    #[inline(always)]
    unsafe fn unpack(&mut self, weights: &Weights, row: usize, first: usize, count: usize) {
        self.codes.unpack::<L, W>(weights, row, first, count, form::<L>());
    }

    #[inline(always)]
    unsafe fn multiply(&mut self, columns: &Columns, chunk: usize, count: usize, target: Target, mut ahead: Ahead) {
        let parts = columns.count.div_ceil(N);
        let mut column = 0;
        while column < columns.count {
            let records = columns.record(chunk, column);
            let target = target.column(column);
            ahead.ask::<L>(parts);
            if columns.count - column > F {
                add::<L, W, N, H>(&self.codes, count / 32, records, target);
                column += N;
            } else {
                add::<L, W, F, H>(&self.codes, count / 32, records, target);
                column += F;
            }
        }
    }

    #[inline(always)]
    unsafe fn end(self) {}
}

/// The instruction takes no byte above 127 otherwise.
#[inline(always)]
const fn form<L: PanelLanes>() -> Form {
    if L::WHOLE_BYTES { Form::Unsigned } else { Form::Plain }
}

/// Adds the products of the first `blocks32` · 32 values with `N` columns.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)] // as `Method`
unsafe fn add<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    codes: &Codes,
    blocks32: usize,
    records: *const u8,
    target: Target,
) {
    for first in (0..HALVES).step_by(H) {
        let mut totals = [[L::zero(); H]; N];
        for i in 0..blocks32 {
            add_block::<L, W, N, H>(codes, i, first, records, &mut totals);
        }
        for (c, totals) in totals.iter().enumerate() {
            for (h, &total) in totals.iter().enumerate() {
                let to = target.sums.add(c * BLOCK_ROWS + 16 * (first + h));
                let before = if target.fresh { L::zero() } else { L::load(to) };
                let scale = if W::VALUES == 256 {
                    L::splat((*record(records, c)).scales[0])
                } else {
                    L::splat(1.0)
                };
                L::store(to, L::fma(total, scale, before));
            }
        }
    }
}

#[inline(always)]
fn record(records: *const u8, column: usize) -> *const Record {
    records.wrapping_add(column * RECORD).cast()
}

/// Adds the products of 32 values, of the rows' halves from `first` on. No closures here: one would not have the features
/// of the set, and so not be inlined.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)] // as `Method`
unsafe fn add_block<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    codes: &Codes,
    i: usize,
    first: usize,
    records: *const u8,
    totals: &mut [[L::Floats; H]; N],
) {
    let groups = if W::Head::HALVES { 2 } else { 1 };
    for group in 0..groups {
        let of = groups * i + group;
        let mut dots = [[L::no_ints(); H]; N];
        if let Some(offset @ 1..) = form::<L>().offset::<W>() {
            for (c, dots) in dots.iter_mut().enumerate() {
                let record = record(records, c);
                let less = if groups == 2 {
                    (*record).half_less[of]
                } else {
                    (*record).less[of]
                };
                *dots = [L::shifted(less, (OFFSET / offset).trailing_zeros()); H];
            }
        }
        let steps = 8 / groups;
        sum_dots::<L, W, N, H>(codes, 8 * i + group * steps, steps, first, records, &mut dots);
        for h in 0..H {
            let scales = L::load(codes.scales[of][16 * (first + h)..].as_ptr());
            for (c, totals) in totals.iter_mut().enumerate() {
                let record = record(records, c);
                let scale = if W::VALUES == 256 {
                    scales
                } else {
                    L::mul(scales, L::splat((*record).scales[i]))
                };
                totals[h] = L::fma(L::floats(dots[c][h]), scale, totals[h]);
                if W::Codes::MINIMA {
                    let minima = L::load(codes.minima[of][16 * (first + h)..].as_ptr());
                    let sum = if groups == 2 {
                        (*record).half_sums[of]
                    } else {
                        (*record).sums[of]
                    };
                    totals[h] = L::fnma(minima, L::splat(sum), totals[h]);
                }
            }
        }
    }
}

/// Adds the sums of products of `steps` dwords of codes from `from` on.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)] // as `Method`
unsafe fn sum_dots<L: PanelLanes, W: Blocks, const N: usize, const H: usize>(
    codes: &Codes,
    from: usize,
    steps: usize,
    first: usize,
    records: *const u8,
    dots: &mut [[L::Ints; H]; N],
) {
    let signed = form::<L>().offset::<W>().is_none();
    let run = if L::PAIRS { run::<W>() } else { 1 };
    for step in (from..from + steps).step_by(run) {
        let mut pairs = [[L::no_shorts(); H]; N];
        for step in step..step + run {
            for h in 0..H {
                let w = L::load64(codes.codes[step][first + h].as_ptr());
                for c in 0..N {
                    let x = L::four((&raw const (*record(records, c)).codes).cast::<i32>().add(step).read());
                    if run > 1 {
                        pairs[c][h] = L::add_shorts(pairs[c][h], L::pairs_unsigned(w, x));
                    } else {
                        dots[c][h] = L::add_dots(dots[c][h], w, x, signed);
                    }
                }
            }
        }
        if run > 1 {
            for c in 0..N {
                for h in 0..H {
                    dots[c][h] = L::add_pairs(dots[c][h], pairs[c][h]);
                }
            }
        }
    }
}

/// Dwords whose sums of pairs fit into 16 bits together: 2·127·most·run < 2^15, where codes with minima go to 31.
const fn run<W: Blocks>() -> usize {
    match Form::Plain.offset::<W>() {
        Some(8) => 8,
        Some(0 | 4 | 16) => 4,
        Some(32) => 2,
        _ => 1,
    }
}
