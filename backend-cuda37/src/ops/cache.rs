//! `cache_store`: keys and values go to their cells.

use backend_api::Result;
use zerocopy::{Immutable, IntoBytes};

use crate::{
    launch::{Launcher, Operands, View},
    name,
};

/// Threads of a block at most.
const BLOCK: u32 = 256;

/// Blocks along z at most; a block goes on with the columns behind.
const MOST_COLUMNS: u32 = 65535;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct StoreArgs {
    x: View,
    pool: View,
    slots: u64,
}

/// Encoded rows in their cells.
pub fn cache_store(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (x, pool) = (operands.input(0).view, operands.output());
    let argument = StoreArgs {
        x,
        pool: pool.view,
        slots: operands.input(1).address,
    };
    let [d, heads, columns, _] = x.dims;
    let width = d.next_multiple_of(32).min(BLOCK);
    let grid = [d.div_ceil(width), heads, columns.min(MOST_COLUMNS)];
    let name = name!("cache_store_{}", super::spelled(pool.ty));
    launcher.launch("cache", &name, grid, [width, 1, 1], &argument)
}
