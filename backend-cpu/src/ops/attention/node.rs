//! The node: its operands, and what each column sees.

use std::ops::Range;

use backend_api::operations::{Window, word};

use crate::{
    program::{Context, Operands},
    view::{PackedF32, View},
};

/// The operation's operands and parameters.
pub struct Attention<'a> {
    pub context: &'a Context<'a>,
    pub q: &'a View,
    pub k: &'a View,
    pub v: &'a View,
    positions: &'a View,
    starts: &'a View,
    table: &'a View,
    sinks: Option<&'a [PackedF32]>,
    pub output: &'a View,
    scale: f32,
    /// c in c·tanh(z/c); 0 for none.
    pub softcap: f32,
    window: Window,
    span: (f32, usize),
    width: usize,
    /// Whether operands may be rounded as far as the type of the pages allows.
    pub rounds: bool,
    /// Query heads that share a KV head.
    pub group: usize,
}

/// What goes through the cache together.
pub struct Tile {
    pub sequence: usize,
    pub columns: Range<usize>,
    pub kv_head: usize,
    pub heads: Range<usize>,
}

/// How many query heads and columns a tile has at most.
#[derive(Clone, Copy)]
pub struct TileSize {
    pub heads: usize,
    pub columns: usize,
}

/// The positions that a column sees, and what its products are multiplied with before the softcap's tanh, if there is
/// one.
#[derive(Clone, Copy, Default)]
pub struct Column {
    pub low: usize,
    pub end: usize,
    pub factor: f32,
}

impl Column {
    /// How many positions it sees.
    pub fn seen(&self) -> usize {
        self.end - self.low
    }

    /// What it sees of `range`, counted from the range's start.
    pub fn within(&self, range: &Range<usize>) -> Range<usize> {
        let low = self.low.clamp(range.start, range.end);
        let end = self.end.clamp(low, range.end);
        low - range.start..end - range.start
    }
}

impl Tile {
    /// Its columns and heads, in the order of their states.
    pub fn queries(&self) -> impl Iterator<Item = (usize, usize)> {
        let heads = self.heads.clone();
        self.columns
            .clone()
            .flat_map(move |t| heads.clone().map(move |h| (t, h)))
    }
}

impl<'a> Attention<'a> {
    pub fn new(context: &'a Context<'a>, operands: &Operands<'a>) -> Attention<'a> {
        let (q, k) = (operands.input(0), operands.input(1));
        Attention {
            context,
            q,
            k,
            v: operands.input(2),
            positions: operands.input(3),
            starts: operands.input(4),
            table: operands.input(5),
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
            rounds: operands.word(word::attention::PRECISION) == 0,
            group: q.dims()[1] / k.dims()[2],
        }
    }

    /// Columns of this step.
    pub fn columns(&self) -> usize {
        self.q.dims()[2]
    }

    fn columns_of(&self, sequence: usize) -> Range<usize> {
        let start = |s: usize| (self.starts.i32(s, [0; 3]).max(0) as usize).min(self.columns());
        start(sequence)..start(sequence + 1)
    }

    fn sequences(&self) -> usize {
        self.table.dims()[1]
    }

    /// The number of tiles of a size.
    pub fn tiles(&self, size: TileSize) -> usize {
        let along = (0..self.sequences())
            .map(|s| self.columns_of(s).len().div_ceil(size.columns))
            .sum::<usize>();
        along * self.k.dims()[2] * self.group.div_ceil(size.heads)
    }

    /// Tile number `i`: those of the same columns, but of other heads, stand together.
    pub fn tile(&self, size: TileSize, i: usize) -> Option<Tile> {
        let groups = self.group.div_ceil(size.heads);
        let (kv_head, group) = (i / groups % self.k.dims()[2], i % groups);
        let mut along = i / groups / self.k.dims()[2];
        for sequence in 0..self.sequences() {
            let all = self.columns_of(sequence);
            let tiles = all.len().div_ceil(size.columns);
            if along < tiles {
                let first = all.start + along * size.columns;
                let first_head = kv_head * self.group;
                let last_head = self.group.min((group + 1) * size.heads);
                return Some(Tile {
                    sequence,
                    columns: first..all.end.min(first + size.columns),
                    kv_head,
                    heads: first_head + group * size.heads..first_head + last_head,
                });
            }
            along -= tiles;
        }
        None
    }

    /// Positions that the table has room for; those beyond count as the last one, so that whatever the host writes stays
    /// in bounds.
    fn capacity(&self) -> usize {
        self.table.dims()[0] * self.per_page()
    }

    /// Tokens of a page.
    pub fn per_page(&self) -> usize {
        self.k.dims()[1]
    }

    /// What column `t` sees.
    pub fn column(&self, t: usize) -> Column {
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
        let capped = if self.softcap > 0.0 { self.softcap.into() } else { 1.0 };
        Column {
            low,
            end: p + 1,
            factor: (f64::from(self.scale) * by_position / capped) as f32,
        }
    }

    /// Where the keys and values of a position lie in the pools.
    pub fn cell(&self, tile: &Tile, position: usize) -> [usize; 3] {
        let per_page = self.per_page();
        let page = self.table.i32(position / per_page, [tile.sequence, 0, 0]) as usize;
        [position % per_page, tile.kv_head, page]
    }

    /// The sink of a query head.
    pub fn sink(&self, head: usize) -> Option<PackedF32> {
        self.sinks.map(|sinks| sinks[head])
    }
}
