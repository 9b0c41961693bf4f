//! Steps of many columns: each thread takes tiles of queries, with all that they see.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{
    WIDEST,
    cells::decode,
    node::{Attention, Column, Tile, TileSize},
    softmax,
    tile::{CELLS, QUERIES, Tile as Room, Words},
};

/// Tiles for each thread, at least, where that makes them smaller.
const TILES_A_THREAD: usize = 2;

/// Attention of every column.
pub fn run(attention: &Attention<'_>) {
    let context = attention.context;
    let words = Words::best(context.kernels, attention.rounds_floats());
    let threads = context.pool.threads();
    let size = tile_size(attention, threads);
    let tiles = attention.tiles(size);
    let next = AtomicUsize::new(0);
    context.pool.run(threads.min(tiles), &|_| {
        let [hd, ..] = attention.k.dims();
        let mut room = Room::new(words, hd, attention.v.dims()[0]);
        loop {
            let i = next.fetch_add(1, Relaxed);
            // The last tile first: it sees the most.
            match tiles.checked_sub(i + 1).and_then(|i| attention.tile(size, i)) {
                Some(tile) => whole(attention, &tile, &mut room),
                None => return,
            }
        }
    });
}

/// As many queries as fit, unless there are too few tiles for all threads.
fn tile_size(attention: &Attention<'_>, threads: usize) -> TileSize {
    let of = |queries: usize| {
        let heads = attention.group.min(queries);
        let columns = queries / heads;
        TileSize { heads, columns }
    };
    let sizes = [QUERIES, QUERIES / 2].map(of);
    let enough = |size: &TileSize| attention.tiles(*size) >= TILES_A_THREAD * threads;
    sizes.into_iter().find(enough).unwrap_or(of(QUERIES / 4))
}

/// Attention of all queries of a tile.
fn whole(attention: &Attention<'_>, tile: &Tile, room: &mut Room) {
    let mut columns = [Column::default(); QUERIES];
    let columns = &mut columns[..tile.columns.len()];
    for (column, t) in columns.iter_mut().zip(tile.columns.clone()) {
        *column = attention.column(t);
    }
    let heads = tile.heads.len();
    room.begin(columns.len() * heads);
    for (i, (t, head)) in tile.queries().enumerate() {
        room.set_query(i, attention.q.row([head, t, 0]), columns[i / heads].factor);
    }
    let low = columns.iter().map(|c| c.low).min().unwrap_or(0);
    let end = columns.iter().map(|c| c.end).max().unwrap_or(0);
    for start in (low..end).step_by(CELLS) {
        chunk(attention, tile, columns, start..end.min(start + CELLS), room);
    }
    for (i, (t, head)) in tile.queries().enumerate() {
        let mut state = [0.0; WIDEST + 16];
        let state = &mut state[..softmax::size(attention.v.dims()[0])];
        let hd_v = attention.v.dims()[0];
        let [top, weight] = room.sum(i, &mut state[..hd_v]);
        softmax::set_ends(state, top, weight);
        attention.finish(t, head, state);
    }
}

/// Lets all queries of a tile see what they see of a range of positions.
fn chunk(attention: &Attention<'_>, tile: &Tile, columns: &[Column], range: Range<usize>, room: &mut Room) {
    let kernels = attention.context.kernels;
    let heads = tile.heads.len();
    let mut masked = false;
    for (c, column) in columns.iter().enumerate() {
        let seen = column.within(&range);
        masked |= seen.len() < range.len();
        (c * heads..(c + 1) * heads).for_each(|i| room.set_seen(i, seen.start, seen.end));
    }
    let mut row = [0.0; WIDEST];
    for (i, position) in range.clone().enumerate() {
        let cell = attention.cell(tile, position);
        for (pool, is_key) in [(attention.k, true), (attention.v, false)] {
            let row = &mut row[..pool.dims()[0]];
            decode(kernels, pool, cell, row);
            if is_key {
                room.set_key(kernels, i, row);
            } else {
                room.set_value(kernels, i, row);
            }
        }
    }
    room.add(kernels, range.len(), masked, attention.softcap);
}
