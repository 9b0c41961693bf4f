//! `rope` and `norm_rope`: rotary position embedding.

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::{Operation, word},
};
use zerocopy::{Immutable, IntoBytes};

use crate::launch::{Launcher, Operand, Operands, View};

/// Pairs of a head at most: `MOST_PAIRS` of the kernel.
const MOST_PAIRS: u32 = 1024;

/// Warps of a block; each has a head.
const WARPS: u32 = 8;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct RopeArgs {
    x: View,
    y: View,
    positions: u64,
    freq: u64,
    w: u64,
    pairs: u32,
    layout: u32,
    magnitude: f32,
    epsilon: f32,
}

/// Refuses heads that are too long.
pub fn supports(operation: Operation, graph: &Graph<'_>, node: &Node) -> Result<()> {
    let freq = if operation == Operation::Rope { 2 } else { 3 };
    let pairs = node
        .input(freq)
        .and_then(|t| graph.tensor(t))
        .map_or(0, |freq| freq.dims[0]);
    match pairs <= MOST_PAIRS {
        true => Ok(()),
        false => Err(BackendError::unsupported(format!(
            "{pairs} frequencies, at most {MOST_PAIRS}"
        ))),
    }
}

/// Rotated heads.
pub fn rope(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let argument = RopeArgs {
        x: operands.input(0).view,
        y: operands.output().view,
        positions: operands.input(1).address,
        freq: operands.input(2).address,
        w: 0,
        pairs: operands.input(2).dims[0],
        layout: operands.word(word::rope::LAYOUT),
        magnitude: operands.f32(word::rope::MAGNITUDE),
        epsilon: 0.0,
    };
    start(launcher, "rope", operands.output(), &argument)
}

/// Normalized and rotated heads.
pub fn norm_rope(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let argument = RopeArgs {
        x: operands.input(0).view,
        y: operands.output().view,
        positions: operands.input(2).address,
        freq: operands.input(3).address,
        w: operands.input(1).address,
        pairs: operands.input(3).dims[0],
        layout: operands.word(word::norm_rope::LAYOUT),
        magnitude: operands.f32(word::norm_rope::MAGNITUDE),
        epsilon: operands.f32(word::norm_rope::EPSILON),
    };
    start(launcher, "rope_norm", operands.output(), &argument)
}

fn start(launcher: &mut Launcher<'_>, name: &str, y: &Operand, argument: &RopeArgs) -> Result<()> {
    let [_, heads, columns, _] = y.dims;
    let grid = [columns, heads.div_ceil(WARPS), 1];
    launcher.launch("rope", name, grid, [WARPS * 32, 1, 1], argument)
}
