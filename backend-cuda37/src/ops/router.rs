//! `top_k` and `pick`: choosing entries and weighing them.

use backend_api::{
    BackendError, Result,
    operations::{PickMode, word},
};
use zerocopy::{Immutable, IntoBytes};

use crate::launch::{Launcher, Operands, View};

const MODULE: &str = "router";

/// Columns up to this long are a warp's.
const WARP_ROW: u32 = 2048;

/// Warps of a block; each has a column.
const WARPS: u32 = 8;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct TopArgs {
    x: View,
    y: u64,
    stride: i64,
    k: u32,
    nothing: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct PickArgs {
    x: View,
    ids: View,
    y: View,
    scale: f32,
    nothing: u32,
}

/// Indices of the k largest.
pub fn top_k(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let y = operands.output();
    let argument = TopArgs {
        x: operands.input(0).view,
        y: y.address,
        stride: y.strides[1],
        k: y.dims[0],
        nothing: 0,
    };
    let (n, columns) = (operands.input(0).dims[0], y.dims[1]);
    if n > WARP_ROW {
        return launcher.launch(MODULE, "router_top_k_block", [columns, 1, 1], [1024, 1, 1], &argument);
    }
    let grid = [columns.div_ceil(WARPS), 1, 1];
    launcher.launch(MODULE, "router_top_k_warp", grid, [WARPS * 32, 1, 1], &argument)
}

/// Entries by ids.
pub fn pick(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let name = match PickMode::from_word(operands.word(word::pick::MODE)) {
        Some(PickMode::Scale) => "router_pick",
        Some(PickMode::SoftmaxPicked) => "router_pick_softmax",
        Some(PickMode::SoftmaxAll) => "router_pick_softmax_all",
        None => return Err(BackendError::unsupported("an unknown mode of pick")),
    };
    let y = operands.output().view;
    let argument = PickArgs {
        x: operands.input(0).view,
        ids: operands.input(1).view,
        y,
        scale: operands.f32(word::pick::SCALE),
        nothing: 0,
    };
    launcher.launch(
        MODULE,
        name,
        [y.dims[1].div_ceil(WARPS), 1, 1],
        [WARPS * 32, 1, 1],
        &argument,
    )
}
