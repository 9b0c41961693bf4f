//! `add`, `mul`, `unary`, `gated` and `copy`: values by themselves.

use backend_api::{
    BackendError, Result,
    operations::{Gate, UnaryKind, word},
    types::Type,
};
use zerocopy::{Immutable, IntoBytes};

use crate::launch::{Launcher, Operands, View};

const MODULE: &str = "elementwise";

/// Threads of a block.
const BLOCK: u32 = 256;

/// Rows of blocks at most; a block goes on with the rows behind.
const MOST_ROWS: u32 = 65535;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct BinaryArgs {
    a: View,
    b: View,
    y: View,
    alpha: f32,
    beta: f32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct UnaryArgs {
    x: View,
    y: View,
    into: f32,
    out: f32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct CopyArgs {
    x: View,
    y: View,
}

/// Grid and block for the entries of `y`, a thread each.
fn entries(y: &View) -> ([u32; 3], [u32; 3]) {
    let width = y.dims[0].next_power_of_two().clamp(1, BLOCK);
    let height = BLOCK / width;
    let rows = y.rows().div_ceil(height).min(MOST_ROWS);
    ([y.dims[0].div_ceil(width), rows, 1], [width, height, 1])
}

fn binary(launcher: &mut Launcher<'_>, operands: &Operands<'_>, name: &str, [alpha, beta]: [f32; 2]) -> Result<()> {
    let y = operands.output().view;
    let argument = BinaryArgs {
        a: operands.input(0).view,
        b: operands.input(1).view,
        y,
        alpha,
        beta,
    };
    let (grid, block) = entries(&y);
    launcher.launch(MODULE, name, grid, block, &argument)
}

/// α·(a + β·b).
pub fn add(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let words = [word::add::ALPHA, word::add::BETA].map(|w| operands.f32(w));
    binary(launcher, operands, "elementwise_add", words)
}

/// a·b.
pub fn mul(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    binary(launcher, operands, "elementwise_mul", [0.0; 2])
}

/// The activation of a gate, times the up projection.
pub fn gated(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let name = match Gate::from_word(operands.word(word::gated::KIND)) {
        Some(Gate::Silu) => "gated_silu",
        Some(Gate::GeluTanh) => "gated_gelu_tanh",
        Some(Gate::SwigluOai) => "gated_swiglu_oai",
        None => return Err(BackendError::unsupported("an unknown kind of gate")),
    };
    let words = [word::gated::ALPHA, word::gated::LIMIT].map(|w| operands.f32(w));
    binary(launcher, operands, name, words)
}

/// out·f(in·x).
pub fn unary(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let name = match UnaryKind::from_word(operands.word(word::unary::KIND)) {
        Some(UnaryKind::Identity) => "elementwise_identity",
        Some(UnaryKind::Tanh) => "elementwise_tanh",
        None => return Err(BackendError::unsupported("an unknown kind of unary")),
    };
    let y = operands.output().view;
    let argument = UnaryArgs {
        x: operands.input(0).view,
        y,
        into: operands.f32(word::unary::IN),
        out: operands.f32(word::unary::OUT),
    };
    let (grid, block) = entries(&y);
    launcher.launch(MODULE, name, grid, block, &argument)
}

/// x, converted.
pub fn copy(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (x, y) = (operands.input(0), operands.output());
    let name = copy_kernel(x.ty, y.ty).ok_or_else(|| {
        let message = format!("copies from {} to {} are not served", x.ty, y.ty);
        BackendError::unsupported(message)
    })?;
    let argument = CopyArgs { x: x.view, y: y.view };
    let (grid, block) = entries(y);
    launcher.launch("copy", name, grid, block, &argument)
}

/// The kernel that copies from one type to another.
fn copy_kernel(from: Type, to: Type) -> Option<&'static str> {
    match (from, to) {
        (Type::F32, Type::F32) | (Type::I32, Type::I32) => Some("copy_words"),
        (Type::F16, Type::F16) | (Type::BF16, Type::BF16) => Some("copy_halves"),
        (Type::F16, Type::F32) => Some("copy_f16_f32"),
        (Type::BF16, Type::F32) => Some("copy_bf16_f32"),
        (Type::F32, Type::F16) => Some("copy_f32_f16"),
        (Type::F32, Type::BF16) => Some("copy_f32_bf16"),
        (Type::F16, Type::BF16) => Some("copy_f16_bf16"),
        (Type::BF16, Type::F16) => Some("copy_bf16_f16"),
        _ => None,
    }
}
