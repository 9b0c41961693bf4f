//! `add`: values by themselves.

use backend_api::{Result, operations::word};
use zerocopy::{Immutable, IntoBytes};

use crate::launch::{Launcher, Operands, View};

const MODULE: &str = "elementwise";

/// Threads of a block.
const BLOCK: u32 = 256;

/// What `elementwise_add` takes.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct AddArgs {
    a: View,
    b: View,
    y: View,
    alpha: f32,
    beta: f32,
}

/// α·(a + β·b).
pub fn add(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let y = operands.output().view;
    let argument = AddArgs {
        a: operands.input(0).view,
        b: operands.input(1).view,
        y,
        alpha: operands.f32(word::add::ALPHA),
        beta: operands.f32(word::add::BETA),
    };
    let grid = [y.dims[0].div_ceil(BLOCK), y.rows(), 1];
    launcher.launch(MODULE, "elementwise_add", grid, [BLOCK, 1, 1], &argument)
}
