//! `attention` over the paged cache.
//!
//! The positions that a column sees are cut into parts at fixed multiples of [`Attention::part`], and each part into
//! chunks of [`CHUNK`]. Every part is summed by itself with an online softmax, chunk after chunk, and the parts of a
//! query are put together in order; so its bits depend on what it sees alone, whether one thread takes all parts or
//! (in steps of few columns) several threads a part each. A tile of columns of one sequence, and of query heads that
//! share a KV head, goes through a chunk together: its keys and values are decoded once for all of them.

mod cells;
mod softmax;

use std::ops::Range;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::{Window, word},
};

use self::{
    cells::decode,
    softmax::{CHUNK, Scoring, attend, finish, merge, reset},
};
use super::split;
use crate::{
    program::{Context, Operands},
    view::{PackedF32, View},
};

/// Queries (columns times heads) of a tile at most.
const QUERIES: usize = 32;
/// The widest head served.
const WIDEST: usize = 256;
/// Positions of a part at least.
const PART: usize = 256;
/// Parts that the table's capacity is cut into at most.
const PARTS: usize = 64;
/// Columns of a step whose parts are spread over the threads: below, heads and tiles alone may not suffice.
const FEW: usize = 8;

/// Whether heads and pages have sizes that are served. The node is well formed.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let dims = |i: usize| node.input(i).and_then(|t| graph.tensor(t)).map_or([0; 4], |t| t.dims);
    let ([hd, per_page, ..], [hd_v, ..]) = (dims(1), dims(2));
    if hd.max(hd_v) as usize > WIDEST {
        return Err(BackendError::unsupported(format!(
            "heads of {hd} and {hd_v} values, where at most {WIDEST} are served"
        )));
    }
    if !per_page.is_power_of_two() || per_page < 16 {
        return Err(BackendError::unsupported(format!(
            "pages of {per_page} tokens, where powers of two from 16 are served"
        )));
    }
    Ok(())
}

/// Bytes of scratch memory: a state for each part of each query of a step of few columns.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> u64 {
    let dims = |t: Option<u32>| {
        t.and_then(|t| graph.tensor(t))
            .map_or([0; 4], |t| t.dims.map(|d| d as usize))
    };
    let [hd_v, heads, columns, _] = dims(Some(node.output));
    let capacity = dims(node.input(5))[0] * dims(node.input(1))[1];
    match parts(capacity) {
        1 => 0,
        parts => (4 * columns.min(FEW) * heads * parts * state(hd_v)) as u64,
    }
}

/// Positions of a part, by the positions that the table has room for.
fn part_of(capacity: usize) -> usize {
    capacity.div_ceil(PARTS).next_power_of_two().max(PART)
}

fn parts(capacity: usize) -> usize {
    capacity.div_ceil(part_of(capacity)).max(1)
}

/// Values of the state of a query: its weighted sum, the largest score and the sum of weights, in whole cache lines.
fn state(hd_v: usize) -> usize {
    (hd_v + 2).next_multiple_of(16)
}

/// The operation's operands and parameters.
struct Attention<'a> {
    context: &'a Context<'a>,
    q: &'a View,
    k: &'a View,
    v: &'a View,
    positions: &'a View,
    starts: &'a View,
    table: &'a View,
    sinks: Option<&'a [PackedF32]>,
    output: &'a View,
    scale: f32,
    softcap: f32,
    window: Window,
    span: (f32, usize),
    width: usize,
    /// Positions of a part.
    part: usize,
    /// Query heads that share a KV head.
    group: usize,
}

/// What goes through the cache together.
struct Tile {
    sequence: usize,
    columns: Range<usize>,
    kv_head: usize,
    heads: Range<usize>,
}

/// The positions that a column sees, and what its scores are multiplied with.
#[derive(Clone, Copy, Default)]
struct Column {
    low: usize,
    end: usize,
    factor: f32,
}

impl Column {
    /// What it sees of `range`, counted from the range's start.
    fn within(&self, range: &Range<usize>) -> Range<usize> {
        let low = self.low.clamp(range.start, range.end);
        let end = self.end.clamp(low, range.end);
        low - range.start..end - range.start
    }
}

/// What a thread needs for a tile, on its stack.
struct Scratch {
    columns: [Column; QUERIES],
    keys: [f32; CHUNK * WIDEST],
    values: [f32; CHUNK * WIDEST],
    sums: [f32; QUERIES * (WIDEST + 16)],
}

impl Scratch {
    fn new() -> Scratch {
        Scratch {
            columns: [Column::default(); QUERIES],
            keys: [0.0; CHUNK * WIDEST],
            values: [0.0; CHUNK * WIDEST],
            sums: [0.0; QUERIES * (WIDEST + 16)],
        }
    }
}

/// Attention of each column to the positions of its sequence.
pub fn attention(context: &Context<'_>, operands: &Operands<'_>) {
    let attention = Attention::new(context, operands);
    let columns = attention.q.dims()[2];
    let parts = parts(attention.capacity());
    if columns <= FEW && parts > 1 {
        attention.run_parts(parts);
    } else {
        attention.run_tiles();
    }
}

impl<'a> Attention<'a> {
    fn new(context: &'a Context<'a>, operands: &Operands<'a>) -> Attention<'a> {
        let (q, k, table) = (operands.input(0), operands.input(1), operands.input(5));
        Attention {
            context,
            q,
            k,
            v: operands.input(2),
            positions: operands.input(3),
            starts: operands.input(4),
            table,
            sinks: operands.optional(6).map(|s| s.packed_row([0; 3])),
            output: operands.output(),
            scale: operands.f32(word::attention::SCALE),
            softcap: operands.f32(word::attention::SOFTCAP),
            window: Window::from_word(operands.word(word::attention::WINDOW_KIND)).unwrap_or(Window::Full),
            width: operands.word(word::attention::WINDOW) as usize,
            span: (
                operands.f32(word::attention::BETA),
                operands.word(word::attention::SPAN) as usize,
            ),
            part: part_of(table.dims()[0] * k.dims()[1]),
            group: q.dims()[1] / k.dims()[2],
        }
    }

    /// Each thread takes tiles, with all parts of them.
    fn run_tiles(&self) {
        let tiles = self.tiles();
        let work = |i: usize| {
            let (mut scratch, mut totals) = (Scratch::new(), [0.0; QUERIES * (WIDEST + 16)]);
            // The last tile first: it sees the most.
            if let Some(tile) = self.tile(tiles - 1 - i) {
                self.whole(&tile, &mut scratch, &mut totals);
            }
        };
        if self.is_small() {
            (0..tiles).for_each(work);
        } else {
            self.context.pool.run(tiles, &work);
        }
    }

    fn whole(&self, tile: &Tile, scratch: &mut Scratch, totals: &mut [f32]) {
        self.look(tile, scratch);
        let queries = tile.columns.len() * tile.heads.len();
        let (kernels, size) = (self.context.kernels, self.state());
        totals.chunks_exact_mut(size).take(queries).for_each(reset);
        for part in self.parts_of(tile, scratch) {
            self.sum_part(tile, part, scratch);
            let sums = scratch.sums.chunks_exact(size);
            totals
                .chunks_exact_mut(size)
                .zip(sums)
                .take(queries)
                .for_each(|(total, sum)| merge(kernels, total, sum));
        }
        for ((column, head), total) in tile.queries().zip(totals.chunks_exact(size)) {
            self.finish(column, head, total);
        }
    }

    /// Each thread takes a part of a tile; then the parts of each query are put together.
    fn run_parts(&self, parts: usize) {
        let (heads, columns) = (self.output.dims()[1], self.output.dims()[2]);
        let (tiles, size) = (self.tiles(), self.state());
        let states = self.context.workspace.part::<f32>(0, columns * heads * parts * size) as usize;
        let slot = |column: usize, head: usize, part: usize| {
            let at = ((column * heads + head) * parts + part) * size;
            // SAFETY: the slot lies inside the workspace; one thread writes it, and it is read after that.
            unsafe { std::slice::from_raw_parts_mut((states as *mut f32).add(at), size) }
        };
        let seen = (0..columns)
            .map(|t| self.column(t).end.div_ceil(self.part))
            .max()
            .unwrap_or(0);
        let work = |i: usize| {
            let (part, mut scratch) = (i / tiles, Scratch::new());
            let Some(tile) = self.tile(i % tiles) else { return };
            self.look(&tile, &mut scratch);
            if self.parts_of(&tile, &scratch).contains(&part) {
                self.sum_part(&tile, part, &mut scratch);
                for ((column, head), sum) in tile.queries().zip(scratch.sums.chunks_exact(size)) {
                    slot(column, head, part).copy_from_slice(sum);
                }
            }
        };
        if self.is_small() {
            (0..tiles * seen).for_each(work);
        } else {
            self.context.pool.run(tiles * seen, &work);
        }
        split::rows(self.context, columns * heads, seen * size, |i| {
            let (column, head) = (i / heads, i % heads);
            let mut total = [0.0; WIDEST + 16];
            reset(&mut total[..size]);
            let Column { low, end, .. } = self.column(column);
            for part in low / self.part..end.div_ceil(self.part) {
                merge(self.context.kernels, &mut total[..size], slot(column, head, part));
            }
            self.finish(column, head, &total[..size]);
        });
    }

    /// Whether the step is too small to wake other threads for.
    fn is_small(&self) -> bool {
        let [hd, heads, columns, _] = self.q.dims();
        let seen = |t| {
            let Column { low, end, .. } = self.column(t);
            end - low
        };
        columns <= FEW && (0..columns).map(seen).sum::<usize>() * heads * hd <= 32 * 1024
    }

    fn state(&self) -> usize {
        state(self.v.dims()[0])
    }

    /// Query heads of a tile, and columns of a tile.
    fn tile_size(&self) -> (usize, usize) {
        let heads = self.group.min(QUERIES);
        (heads, QUERIES / heads)
    }

    fn sequences(&self) -> usize {
        self.table.dims()[1]
    }

    fn columns_of(&self, sequence: usize) -> Range<usize> {
        let start = |s: usize| (self.starts.i32(s, [0; 3]).max(0) as usize).min(self.q.dims()[2]);
        start(sequence)..start(sequence + 1)
    }

    fn tiles(&self) -> usize {
        let (heads, columns) = self.tile_size();
        let along = (0..self.sequences())
            .map(|s| self.columns_of(s).len().div_ceil(columns))
            .sum::<usize>();
        along * self.k.dims()[2] * self.group.div_ceil(heads)
    }

    /// Tile number `i`: those of the same columns, but of other heads, stand together.
    fn tile(&self, i: usize) -> Option<Tile> {
        let (heads, columns) = self.tile_size();
        let groups = self.group.div_ceil(heads);
        let (kv_head, group) = (i / groups % self.k.dims()[2], i % groups);
        let mut along = i / groups / self.k.dims()[2];
        for sequence in 0..self.sequences() {
            let all = self.columns_of(sequence);
            let tiles = all.len().div_ceil(columns);
            if along < tiles {
                let first = all.start + along * columns;
                let first_head = kv_head * self.group;
                return Some(Tile {
                    sequence,
                    columns: first..all.end.min(first + columns),
                    kv_head,
                    heads: first_head + group * heads..first_head + self.group.min((group + 1) * heads),
                });
            }
            along -= tiles;
        }
        None
    }

    /// Positions that the table has room for; those beyond count as the last one, so that whatever the host writes, every
    /// part has its place in the workspace.
    fn capacity(&self) -> usize {
        self.table.dims()[0] * self.k.dims()[1]
    }

    fn column(&self, t: usize) -> Column {
        let p = (self.positions.i32(t, [0; 3]).max(0) as usize).min(self.capacity() - 1);
        let low = match self.window {
            Window::Full => 0,
            Window::Sliding => (p + 1).saturating_sub(self.width),
            Window::Chunked => p - p % self.width,
        };
        let (beta, span) = self.span;
        let by_position = match beta {
            0.0 => 1.0,
            beta => 1.0 + f64::from(beta) * (1.0 + (p / span) as f64).ln(),
        };
        Column {
            low,
            end: p + 1,
            factor: (f64::from(self.scale) * by_position) as f32,
        }
    }

    /// Notes what each column of a tile sees.
    fn look(&self, tile: &Tile, scratch: &mut Scratch) {
        for (column, t) in scratch.columns.iter_mut().zip(tile.columns.clone()) {
            *column = self.column(t);
        }
    }

    /// The parts that some column of a tile sees.
    fn parts_of(&self, tile: &Tile, scratch: &Scratch) -> Range<usize> {
        let columns = &scratch.columns[..tile.columns.len()];
        let low = columns.iter().map(|c| c.low).min().unwrap_or(0);
        let end = columns.iter().map(|c| c.end).max().unwrap_or(0);
        low / self.part..end.div_ceil(self.part)
    }

    /// Sums a part for every query of a tile.
    fn sum_part(&self, tile: &Tile, part: usize, scratch: &mut Scratch) {
        let size = self.state();
        let queries = tile.columns.len() * tile.heads.len();
        scratch.sums.chunks_exact_mut(size).take(queries).for_each(reset);
        let step = CHUNK.min(self.k.dims()[1]);
        for start in (part * self.part..(part + 1) * self.part).step_by(step) {
            self.sum_chunk(tile, start..start + step, scratch);
        }
    }

    fn sum_chunk(&self, tile: &Tile, chunk: Range<usize>, scratch: &mut Scratch) {
        let columns = &scratch.columns[..tile.columns.len()];
        let seen = columns.iter().map(|c| c.within(&chunk)).filter(|seen| !seen.is_empty());
        let Some(seen) = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)) else {
            return;
        };
        let per_page = self.k.dims()[1];
        let page = self.table.i32(chunk.start / per_page, [tile.sequence, 0, 0]) as usize;
        let cell = [chunk.start % per_page, tile.kv_head, page];
        let kernels = self.context.kernels;
        let keys = decode(kernels, self.k, cell, &seen, &mut scratch.keys);
        let values = decode(kernels, self.v, cell, &seen, &mut scratch.values);
        let mut sums = scratch.sums.chunks_exact_mut(self.state());
        for (column, t) in columns.iter().zip(tile.columns.clone()) {
            let visible = column.within(&chunk);
            let scoring = Scoring {
                factor: column.factor,
                softcap: self.softcap,
            };
            for (head, sum) in tile.heads.clone().zip(&mut sums) {
                if !visible.is_empty() {
                    let q = self.q.row([head, t, 0]);
                    attend(kernels, sum, q, keys, values, visible.clone(), scoring);
                }
            }
        }
    }

    fn finish(&self, column: usize, head: usize, total: &[f32]) {
        let sink = self.sinks.map(|sinks| sinks[head]);
        // SAFETY: each query has one thread that ends it, and the output shares no byte with an input.
        let y = unsafe { self.output.row_mut([head, column, 0]) };
        finish(self.context.kernels, y, total, sink);
    }
}

impl Tile {
    /// Its columns and heads, in the order of their states.
    fn queries(&self) -> impl Iterator<Item = (usize, usize)> {
        let heads = self.heads.clone();
        self.columns
            .clone()
            .flat_map(move |t| heads.clone().map(move |h| (t, h)))
    }
}
