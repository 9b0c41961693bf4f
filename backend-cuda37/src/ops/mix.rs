//! `combine` and `mix_coefficients`: linear combinations of a few vectors a column.

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::word,
    types::Type,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    launch::{Launcher, Operands, View},
    name,
};

/// Threads of a block.
const BLOCK: u32 = 256;

/// Blocks along z at most; a block goes on with the columns behind.
const MOST_COLUMNS: u32 = 65535;

/// Rows of A at most: `MOST_MIXED` of the kernel.
const MOST_MIXED: u32 = 32;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct CombineArgs {
    x: View,
    c: View,
    base: View,
    y: View,
    c0: f32,
    nothing: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct CoefficientArgs {
    x: View,
    y: View,
    a: View,
    f: View,
    w: u64,
    epsilon: f32,
    into: f32,
}

/// base + Σ (C + c₀)·x.
pub fn combine(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let optional = |i| operands.optional(i).map_or(View::ABSENT, |operand| operand.view);
    let y = operands.output().view;
    let argument = CombineArgs {
        x: operands.input(0).view,
        c: optional(1),
        base: optional(2),
        y,
        c0: operands.f32(word::combine::C0),
        nothing: 0,
    };
    let [d, streams, columns, _] = y.dims;
    let grid = [d.div_ceil(BLOCK), streams, columns.min(MOST_COLUMNS)];
    launcher.launch("router", "router_combine", grid, [BLOCK, 1, 1], &argument)
}

/// The types that A and F may have.
const SERVED: [Type; 3] = [Type::F32, Type::F16, Type::BF16];

/// Refuses quantized coefficients, and more of them than a block keeps.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let tensor = |i| node.input(i).and_then(|t| graph.tensor(t));
    let types = tensor(2).and_then(|a| a.kind()).zip(tensor(3).and_then(|f| f.kind()));
    let Some((a, f)) = types.filter(|(a, f)| SERVED.contains(a) && SERVED.contains(f)) else {
        return Err(BackendError::unsupported("coefficients of these types are not served"));
    };
    let rows = tensor(2).map_or(0, |a| a.dims[1]);
    match rows <= MOST_MIXED {
        true => Ok(()),
        false => Err(BackendError::unsupported(format!(
            "{rows} rows of {a} and {f}, at most {MOST_MIXED}"
        ))),
    }
}

/// F·tanh(in·A·norm(x)).
pub fn mix_coefficients(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (a, f, y) = (operands.input(2), operands.input(3), operands.output());
    let argument = CoefficientArgs {
        x: operands.input(0).view,
        y: y.view,
        a: a.view,
        f: f.view,
        w: operands.input(1).address,
        epsilon: operands.f32(word::mix_coefficients::EPSILON),
        into: operands.f32(word::mix_coefficients::IN),
    };
    let (a, f) = (super::spelled(a.ty), super::spelled(f.ty));
    let (module, name) = (name!("mix.{a}.{f}"), name!("mix_coefficients_{a}_{f}"));
    launcher.launch(&module, &name, [y.dims[1], 1, 1], [BLOCK, 1, 1], &argument)
}
