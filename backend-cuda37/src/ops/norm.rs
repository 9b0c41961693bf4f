//! `rms_norm`, `norm_add`, `rms_match` and `sparsify`: what goes by the statistics of a row.

use backend_api::{Result, operations::word};
use zerocopy::{Immutable, IntoBytes};

use crate::launch::{Launcher, Operands, View};

const MODULE: &str = "norm";

/// Rows up to this long are a warp's.
const WARP_ROW: u32 = 512;

/// Threads of a block whose warps have a row each.
const WARPS: u32 = 8;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct NormArgs {
    x: View,
    y: View,
    w: u64,
    r: View,
    epsilon: f32,
    nothing: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MatchArgs {
    x: View,
    reference: View,
    y: View,
    floor: f32,
    nothing: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct SparsifyArgs {
    x: View,
    y: View,
    s: f32,
    nothing: u32,
}

/// Threads that share a row of `d` values: by its length alone, so that a column's bits depend on nothing else.
fn threads(d: u32) -> u32 {
    match d {
        0..=1024 => 256,
        1025..=2048 => 512,
        _ => 1024,
    }
}

/// x·r·w.
pub fn rms_norm(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let w = operands.optional(1).map_or(0, |w| w.address);
    let epsilon = operands.f32(word::rms_norm::EPSILON);
    norm(
        launcher,
        operands,
        ["norm_rms_warp", "norm_rms_block"],
        w,
        View::ABSENT,
        epsilon,
    )
}

/// x·r·w + residual.
pub fn norm_add(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (w, r) = (operands.input(1).address, operands.input(2).view);
    let epsilon = operands.f32(word::rms_norm::EPSILON);
    norm(launcher, operands, ["norm_add_warp", "norm_add_block"], w, r, epsilon)
}

fn norm(
    launcher: &mut Launcher<'_>,
    operands: &Operands<'_>,
    [by_warp, by_block]: [&str; 2],
    w: u64,
    r: View,
    epsilon: f32,
) -> Result<()> {
    let (x, y) = (operands.input(0).view, operands.output().view);
    let argument = NormArgs {
        x,
        y,
        w,
        r,
        epsilon,
        nothing: 0,
    };
    let (d, rows) = (y.dims[0], y.rows());
    match d <= WARP_ROW {
        true => launcher.launch(
            MODULE,
            by_warp,
            [rows.div_ceil(WARPS), 1, 1],
            [WARPS * 32, 1, 1],
            &argument,
        ),
        false => launcher.launch(MODULE, by_block, [rows, 1, 1], [threads(d), 1, 1], &argument),
    }
}

/// x·√(mean ref²)/√(max(mean x², floor)).
pub fn rms_match(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let y = operands.output().view;
    let argument = MatchArgs {
        x: operands.input(0).view,
        reference: operands.input(1).view,
        y,
        floor: operands.f32(word::rms_match::FLOOR),
        nothing: 0,
    };
    launcher.launch(
        MODULE,
        "norm_match",
        [y.rows(), 1, 1],
        [threads(y.dims[0]), 1, 1],
        &argument,
    )
}

/// max(x − (μ + s·σ), 0).
pub fn sparsify(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let y = operands.output().view;
    let argument = SparsifyArgs {
        x: operands.input(0).view,
        y,
        s: operands.f32(word::sparsify::S),
        nothing: 0,
    };
    launcher.launch(
        MODULE,
        "norm_sparsify",
        [y.rows(), 1, 1],
        [threads(y.dims[0]), 1, 1],
        &argument,
    )
}
