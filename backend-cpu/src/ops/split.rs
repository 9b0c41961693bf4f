//! How an operation's work is divided among the threads.

use std::ops::Range;

use crate::{program::Context, view::View};

/// Values under which a node stays on the calling thread: a few microseconds, as much as waking the others costs.
const SERIAL: usize = 16 * 1024;

/// Values of a row that one thread takes at a time, where rows may be cut.
const PIECE: usize = 8 * 1024;

/// Calls `work` with every number below `count`; each call is worth `cost` values.
pub fn rows(context: &Context<'_>, count: usize, cost: usize, work: impl Fn(usize) + Sync) {
    if count * cost <= SERIAL {
        return (0..count).for_each(work);
    }
    let parts = count.min(4 * context.pool.threads());
    context.pool.run(parts, &|part| {
        (count * part / parts..count * (part + 1) / parts).for_each(&work);
    });
}

/// Calls `work` with every row of a tensor, long ones in several pieces: the row and the range of its values.
pub fn pieces(context: &Context<'_>, view: &View, work: impl Fn([usize; 3], Range<usize>) + Sync) {
    let values = view.dims()[0];
    let each = values.div_ceil(PIECE).max(1);
    rows(context, view.rows() * each, values.min(PIECE), |i| {
        let start = i % each * PIECE;
        work(view.row_index(i / each), start..values.min(start + PIECE));
    });
}
