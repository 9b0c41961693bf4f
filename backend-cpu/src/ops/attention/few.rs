//! Steps of few columns: what a column sees is cut into parts, and each thread takes parts.
//!
//! Cuts are at multiples of a length that follows from how much the column sees, so that its bits depend on nothing else;
//! the parts of a query are put together in order.

use std::ops::Range;

use backend_api::types::Type;

#[cfg(target_arch = "x86_64")]
use super::vnni;
use super::{
    WIDEST,
    cells::decode,
    codes::{self, Queries},
    node::{Attention, Column, Tile, TileSize},
    part::{self, CELLS, HEADS, Rows, Sight, State},
    softmax,
};
use crate::{
    lanes::WIDTH,
    ops::split,
    view::{Plain, View},
};

/// Columns whose bits may depend on nothing but themselves: their parts are spread over the threads, as heads alone may
/// not suffice.
pub const FEW: usize = 8;
/// Parts at most: those of whole length, and one more where the ends of what is seen are no cuts.
pub const PARTS: usize = WHOLE_PARTS + 1;
const WHOLE_PARTS: usize = 16;
/// Multiplications under which a step stays on the calling thread: as long as waking the others takes.
const SERIAL: usize = 64 * 1024;

/// Positions, of one tile, that a claim has at least where that leaves each thread one: below, making its room ready would
/// be felt.
const POSITIONS_A_CLAIM: usize = 512;

/// Positions of a part of what a column sees.
fn part_of(column: &Column) -> usize {
    column.seen().div_ceil(WHOLE_PARTS).next_power_of_two().max(CELLS)
}

/// The parts that a column sees.
fn parts(column: &Column) -> Range<usize> {
    let part = part_of(column);
    column.low / part..column.end.div_ceil(part)
}

/// Attention of every column.
pub fn run(attention: &Attention<'_>) {
    let size = TileSize {
        heads: attention.group.min(HEADS),
        columns: 1,
    };
    let (context, tiles) = (attention.context, attention.tiles(size));
    let [hd, heads, columns, _] = attention.q.dims();
    let seen: usize = (0..columns).map(|t| attention.column(t).seen()).sum();
    let most = (0..columns)
        .map(|t| parts(&attention.column(t)).len())
        .max()
        .unwrap_or(0);
    // Parts that follow each other are one thread's, which asks for what it will read.
    let work = |units: Range<usize>| {
        let (mut state, mut set) = ((State::new(), Queries::new()), None);
        for i in units {
            let Some(tile) = attention.tile(size, i / most) else {
                return;
            };
            let column = attention.column(tile.columns.start);
            if i % most < parts(&column).len() {
                if set.replace(i / most) != Some(i / most) {
                    set_queries(attention, &tile, &column, &mut state);
                }
                sum_part(attention, &tile, &column, i % most, &mut state);
            }
        }
    };
    let units = tiles * most;
    if seen * heads * hd <= SERIAL {
        work(0..units);
    } else {
        let positions = (seen * tiles / columns).max(1);
        let least = (units * POSITIONS_A_CLAIM).div_ceil(positions);
        let each = units / context.pool.threads();
        context.pool.run_ranges(units, least.min(each), &work);
    }
    if most > 1 {
        split::rows(context, columns * heads, most * state_size(attention), |i| {
            put_together(attention, i / heads, i % heads);
        });
    }
}

fn state_size(attention: &Attention<'_>) -> usize {
    softmax::size(attention.v.dims()[0])
}

/// The state of a query in a part, in the workspace.
#[allow(clippy::mut_from_ref)] // the workspace is an address, not the owner
fn slot<'a>(attention: &Attention<'a>, column: usize, head: usize, part: usize) -> &'a mut [f32] {
    let (heads, size) = (attention.q.dims()[1], state_size(attention));
    let at = ((column * heads + head) * PARTS + part) * size;
    let start = attention.context.workspace.part::<f32>(4 * at, size);
    // SAFETY: the slot lies inside the workspace; one thread writes it, and it is read after that.
    unsafe { std::slice::from_raw_parts_mut(start, size) }
}

/// Puts the parts of a query together.
fn put_together(attention: &Attention<'_>, column: usize, head: usize) {
    let parts = parts(&attention.column(column)).len();
    if parts > 1 {
        let mut total = [0.0; WIDEST + 16];
        let total = &mut total[..state_size(attention)];
        softmax::reset(total);
        for part in 0..parts {
            softmax::merge(attention.context.kernels, total, slot(attention, column, head, part));
        }
        attention.finish(column, head, total);
    }
}

fn set_queries(attention: &Attention<'_>, tile: &Tile, column: &Column, (state, queries): &mut (State, Queries)) {
    for (q, (t, head)) in state.q.iter_mut().zip(tile.queries()) {
        let row = attention.q.row([head, t, 0]);
        q.iter_mut().zip(row).for_each(|(q, x)| *q = x * column.factor);
    }
    if attention.counts() {
        let (kernels, ty, hd) = (attention.context.kernels, attention.k.ty(), attention.k.dims()[0]);
        (0..tile.heads.len()).for_each(|i| queries.set(kernels, i, &state.q[i][..hd], ty));
    }
}

impl Attention<'_> {
    /// Whether sums are taken in whole numbers.
    fn counts(&self) -> bool {
        self.rounds && codes::serves(self.context.kernels, self.k.ty(), self.v.ty())
    }
}

/// Sums part number `part` of those that a column sees.
fn sum_part(attention: &Attention<'_>, tile: &Tile, column: &Column, part: usize, work: &mut (State, Queries)) {
    let hd_v = attention.v.dims()[0];
    work.0.reset(tile.heads.len(), hd_v);
    let (length, step) = (part_of(column), CELLS.min(attention.per_page()));
    let first = column.low / length + part;
    for start in (first * length..(first + 1) * length).step_by(step) {
        let seen = column.within(&(start..start + step));
        if !seen.is_empty() {
            let next = start + step;
            let soon = [attention.k, attention.v].map(|pool| match next < column.end {
                true => pool.rows_from(attention.cell(tile, next), step).0,
                false => &[],
            });
            sum_cells(attention, tile, start, seen, work, soon);
        }
    }
    let alone = parts(column).len() == 1;
    let state = &work.0;
    for (i, (t, head)) in tile.queries().enumerate() {
        let [top, weight] = state.ends[i];
        if alone {
            let mut total = [0.0; WIDEST + 16];
            let total = &mut total[..state_size(attention)];
            softmax::write(total, &state.sums[i][..hd_v], top, weight);
            attention.finish(t, head, total);
        } else {
            softmax::write(slot(attention, t, head, part), &state.sums[i][..hd_v], top, weight);
        }
    }
}

/// Adds the positions `seen`, counted from `start`, which lie in one page; `soon` is what will be read after that.
fn sum_cells(
    attention: &Attention<'_>,
    tile: &Tile,
    start: usize,
    seen: Range<usize>,
    (state, queries): &mut (State, Queries),
    soon: [&[u8]; 2],
) {
    let (k, v) = (attention.k, attention.v);
    let (kernels, heads, softcap) = (attention.context.kernels, tile.heads.len(), attention.softcap);
    let cell = attention.cell(tile, start + seen.start);
    let sixteens = attention.cell(tile, start + seen.start / WIDTH * WIDTH);
    let whole = [k, v].iter().all(|pool| pool.dims()[0].is_multiple_of(WIDTH));
    match (k.ty(), v.ty()) {
        (Type::F32, Type::F32) if whole => {
            part::attend_f32(kernels, state, heads, sight(attention, cell, seen, 1, soon), softcap);
        }
        (Type::F16, Type::F16) if whole => {
            part::attend_f16(kernels, state, heads, sight(attention, cell, seen, 1, soon), softcap);
        }
        #[cfg(target_arch = "x86_64")]
        (Type::Q8_0, Type::Q8_0) if attention.counts() => {
            let sight = sight(attention, sixteens, seen, WIDTH, soon);
            vnni::attend_q8_0(kernels, state, queries, heads, sight, softcap);
        }
        #[cfg(target_arch = "x86_64")]
        (Type::Q4_0, Type::Q4_0) if attention.counts() => {
            let sight = sight(attention, sixteens, seen, WIDTH, soon);
            vnni::attend_q4_0(kernels, state, queries, heads, sight, softcap);
        }
        (Type::Q8_0, Type::Q8_0) => {
            part::attend_q8_0(kernels, state, heads, sight(attention, cell, seen, 1, soon), softcap);
        }
        (Type::Q4_0, Type::Q4_0) => {
            part::attend_q4_0(kernels, state, heads, sight(attention, cell, seen, 1, soon), softcap);
        }
        _ => sum_decoded(attention, tile, cell, seen, state),
    }
}

/// Keys and values as they lie in the pools, from `cell` on: of the positions seen, rounded out to multiples of `whole`.
fn sight<'a, E: Plain>(
    attention: &Attention<'a>,
    cell: [usize; 3],
    seen: Range<usize>,
    whole: usize,
    soon: [&'a [u8]; 2],
) -> Sight<'a, E> {
    let first = seen.start / whole * whole;
    let rows = |pool: &'a View| {
        let (data, step) = pool.rows_from(cell, seen.end.next_multiple_of(whole) - first);
        Rows {
            data,
            step,
            first,
            vectors: pool.dims()[0] / WIDTH,
        }
    };
    Sight {
        keys: rows(attention.k),
        values: rows(attention.v),
        seen: seen.clone(),
        soon,
    }
}

/// The same for keys and values that are decoded first, so that their widths are whole vectors of f32.
#[inline(never)] // its room is large
fn sum_decoded(attention: &Attention<'_>, tile: &Tile, cell: [usize; 3], seen: Range<usize>, state: &mut State) {
    let kernels = attention.context.kernels;
    let mut room = [[0.0; CELLS * WIDEST]; 2];
    for (pool, room) in [attention.k, attention.v].into_iter().zip(&mut room) {
        for (i, row) in room.chunks_exact_mut(WIDEST).take(seen.len()).enumerate() {
            decode(
                kernels,
                pool,
                [cell[0] + i, cell[1], cell[2]],
                &mut row[..pool.dims()[0]],
            );
        }
    }
    let rows = |pool: &View, data| Rows {
        data,
        step: WIDEST,
        first: seen.start,
        vectors: pool.dims()[0].div_ceil(WIDTH),
    };
    let sight = Sight {
        keys: rows(attention.k, &room[0]),
        values: rows(attention.v, &room[1]),
        seen: seen.clone(),
        soon: [&[]; 2],
    };
    part::attend_f32(kernels, state, tile.heads.len(), sight, attention.softcap);
}
