//! Products with weights, and `rows` of them: which kernels, over which columns.

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::{Gate, Operation, word},
    products::{Roles, roles},
    types::Type,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    launch::{Launcher, Operands, View},
    name,
};

/// Products of so many columns or fewer read the weights once for all of them, and a column has the bits that it has alone.
const FEW_COLUMNS: u32 = 8;

/// Columns that a thread has at a time where they are more than two, but few.
const FEW_AT_ONCE: u32 = 4;

/// Threads of a block of few columns: as many as leave enough blocks for every multiprocessor, since they share the input.
const FEW_THREADS: [u32; 3] = [256, 128, 64];

/// Blocks that are enough: four for each of a K80's multiprocessors.
const ENOUGH_BLOCKS: u32 = 52;

/// Lanes that share rows: `LANES` of the kernels.
const FEW_LANES: u32 = 16;

/// A tile of many columns, and the threads that have it: `MANY_…` of the kernels.
const MANY_ROWS: u32 = 128;
const MANY_COLUMNS: u32 = 64;
const MANY_THREADS: u32 = 128;

/// Blocks along y at most.
const MOST_BLOCKS: u32 = 65535;

/// Experts that are put in order at most: `MOST_EXPERTS` of the kernel; of more, each pair of a token and a slot goes by itself.
const MOST_EXPERTS: u32 = 1023;

/// Bytes of a tile of pairs that have one expert: `ExpertTile` of the kernels.
const TILE_BYTES: u64 = 12;

/// Weights of one launch at most.
const MOST_MATRICES: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct Matrix {
    weights: u64,
    bias: u64,
    row_stride: i64,
    expert_stride: i64,
    bias_stride: i64,
    bias_expert_stride: i64,
    rows: u32,
    first: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct ProductArgs {
    matrices: [Matrix; MOST_MATRICES],
    x: u64,
    y: u64,
    residual: u64,
    ids: u64,
    pairs: u64,
    x_stride: i64,
    x_slot_stride: i64,
    y_stride: i64,
    y_slot_stride: i64,
    residual_stride: i64,
    ids_stride: i64,
    ids_slot_stride: i64,
    k: u32,
    columns: u32,
    slots: u32,
    matrix_count: u32,
    experts: u32,
    gate: u32,
    alpha: f32,
    limit: f32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct RowsArgs {
    table: View,
    ids: View,
    y: View,
    scale: f32,
    nothing: u32,
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct OrderArgs {
    ids: u64,
    pairs: u64,
    ids_stride: i64,
    ids_slot_stride: i64,
    columns: u32,
    slots: u32,
    experts: u32,
    tiles: u32,
}

/// Values of a column at most: places within it have 32 bits.
const MOST_VALUES: u32 = 1 << 29;

/// Refuses gates and up projections of different types or of rows that lie differently, and columns that are too long.
pub fn supports(operation: Operation, graph: &Graph<'_>, node: &Node) -> Result<()> {
    let Some(roles) = roles(operation) else {
        return Ok(());
    };
    let input = |i| node.input(i).and_then(|t| graph.tensor(t));
    if input(0).is_some_and(|x| x.dims[0] > MOST_VALUES) {
        let message = format!("columns of more than {MOST_VALUES} values");
        return Err(BackendError::unsupported(message));
    }
    let of_gate = |i: usize| input(roles.weights[i].0).map(|weight| (weight.ty, weight.strides[1]));
    match roles.gated && of_gate(0) != of_gate(1) {
        true => Err(BackendError::unsupported(
            "a gate and an up projection of different types, or whose rows lie at different distances",
        )),
        false => Ok(()),
    }
}

/// Whether pairs of `tokens` tokens are put in order by their experts.
fn orders(tokens: u32, experts: u32) -> bool {
    tokens > FEW_COLUMNS && experts <= MOST_EXPERTS
}

/// Tiles that so many pairs make at most: each expert's last one may be short, and there is one for what has no expert.
fn tiles(pairs: u32, experts: u32) -> u32 {
    pairs.div_ceil(MANY_COLUMNS) + experts + 1
}

/// Bytes of scratch memory: the order of the pairs of many tokens.
pub fn workspace(operation: Operation, graph: &Graph<'_>, node: &Node) -> u64 {
    let tensor = |i| node.input(i).and_then(|t| graph.tensor(t));
    let there = roles(operation).and_then(|roles| Some((tensor(roles.ids?)?, tensor(roles.weights[0].0)?)));
    let Some(([slots, tokens, ..], [_, _, experts, _])) = there.map(|(ids, w)| (ids.dims, w.dims)) else {
        return 0;
    };
    match orders(tokens, experts) {
        true => order_bytes(slots.saturating_mul(tokens), experts),
        false => 0,
    }
}

fn order_bytes(pairs: u32, experts: u32) -> u64 {
    u64::from(tiles(pairs, experts)) * TILE_BYTES + u64::from(pairs) * 4
}

/// Any product.
pub fn product(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let operation = operands.planned.operation;
    let roles = roles(operation).ok_or_else(|| BackendError::invalid("no product"))?;
    let mut common = common(operands, &roles);
    let ordered = roles.ids.is_some() && orders(common.columns / common.slots, common.experts);
    if ordered {
        common.pairs = order(launcher, &common)?;
    }
    let weights = matrices(operands, &roles);
    let types = weights.iter().flatten().map(|(ty, _)| *ty);
    for (i, ty) in types.clone().enumerate() {
        if types.clone().take(i).any(|earlier| earlier == ty) {
            continue;
        }
        // one launch for all weights of a type
        let mut args = common;
        let of_type = weights.iter().flatten().filter(|(t, _)| *t == ty);
        for (to, (_, matrix)) in args.matrices.iter_mut().zip(of_type) {
            *to = *matrix;
            args.matrix_count += 1;
        }
        match (roles.ids.is_some(), args.columns <= FEW_COLUMNS) {
            (true, _) if ordered => many(launcher, ty, &args, tiles(args.columns, args.experts))?,
            (true, _) => one_by_one(launcher, ty, args)?,
            (false, true) => few(launcher, ty, &args, args.columns)?,
            (false, false) => many(launcher, ty, &args, args.columns.div_ceil(MANY_COLUMNS))?,
        }
    }
    Ok(())
}

/// The argument without the weights.
fn common(operands: &Operands<'_>, roles: &Roles) -> ProductArgs {
    let (x, y) = (operands.input(0), operands.output());
    let mut args = ProductArgs {
        x: x.address,
        y: y.address,
        k: x.dims[0],
        slots: 1,
        columns: y.dims[1],
        x_stride: x.strides[1],
        y_stride: y.strides[1],
        ..ProductArgs::default()
    };
    if let Some(ids) = roles.ids.map(|i| operands.input(i)) {
        (args.x_slot_stride, args.x_stride) = (x.strides[1], x.strides[2]);
        (args.y_slot_stride, args.y_stride) = (y.strides[1], y.strides[2]);
        (args.ids, args.ids_slot_stride, args.ids_stride) = (ids.address, ids.strides[0], ids.strides[1]);
        (args.slots, args.columns) = (y.dims[1], y.dims[1] * y.dims[2]);
        args.experts = operands.input(roles.weights[0].0).dims[2];
    }
    if let Some(residual) = roles.residual.and_then(|i| operands.optional(i)) {
        (args.residual, args.residual_stride) = (residual.address, residual.strides[1]);
    }
    if roles.gated {
        args.gate = match Gate::from_word(operands.word(word::gated_product::KIND)) {
            Some(Gate::Silu) => 1,
            Some(Gate::GeluTanh) => 2,
            Some(Gate::SwigluOai) | None => 3,
        };
        args.alpha = operands.f32(word::gated_product::ALPHA);
        args.limit = operands.f32(word::gated_product::LIMIT);
    }
    args
}

/// The weights that are there; those of a gate share the rows of the output.
fn matrices(operands: &Operands<'_>, roles: &Roles) -> [Option<(Type, Matrix)>; MOST_MATRICES] {
    let mut first = 0;
    std::array::from_fn(|i| {
        let (w, bias) = *roles.weights.get(i)?;
        let (w, bias) = (operands.optional(w)?, bias.and_then(|bias| operands.optional(bias)));
        let matrix = Matrix {
            weights: w.address,
            bias: bias.map_or(0, |bias| bias.address),
            row_stride: w.strides[1],
            expert_stride: w.strides[2],
            bias_stride: bias.map_or(0, |bias| bias.strides[0]),
            bias_expert_stride: bias.map_or(0, |bias| bias.strides[1]),
            rows: w.dims[1],
            first,
        };
        first += if roles.gated { 0 } else { w.dims[1] };
        Some((w.ty, matrix))
    })
}

/// Blocks of `rows` rows that all matrices take; a gate's take half as many rows of both.
fn blocks(args: &ProductArgs, rows: u32) -> u32 {
    let matrices = &args.matrices[..args.matrix_count as usize];
    match args.gate {
        0 => matrices.iter().map(|m| m.rows.div_ceil(rows)).sum(),
        _ => matrices[0].rows.div_ceil(rows / 2),
    }
}

/// Rows that a group of lanes has at a time: `ROWS` of the kernels.
fn rows_of_group(ty: Type, width: u32) -> u32 {
    match (width, ty) {
        (1, Type::F32 | Type::F16 | Type::BF16) => 4,
        (1, Type::Q4_K | Type::Q5_K | Type::Q6_K) => 6,
        (1, Type::Q3_K) => 10,
        (1, Type::MXFP4) => 16,
        (1, _) => 8,
        _ => 2,
    }
}

fn few(launcher: &mut Launcher<'_>, ty: Type, args: &ProductArgs, columns: u32) -> Result<()> {
    // two columns cost less apart than as half of four
    let width = if columns <= 2 { 1 } else { FEW_AT_ONCE };
    let across = args.columns.div_ceil(width);
    let grid = |threads: u32| [blocks(args, threads / FEW_LANES * rows_of_group(ty, width)), across, 1];
    let enough = |threads: &u32| grid(*threads)[0].saturating_mul(across) >= ENOUGH_BLOCKS;
    let threads = FEW_THREADS.into_iter().find(enough).unwrap_or(FEW_THREADS[2]);
    let ty = super::spelled(ty);
    let module = if width == 1 {
        name!("product_one.{ty}")
    } else {
        name!("product_few.{ty}")
    };
    let name = name!("product_{ty}_c{width}");
    launcher.launch(&module, &name, grid(threads), [threads, 1, 1], args)
}

fn many(launcher: &mut Launcher<'_>, ty: Type, args: &ProductArgs, tiles: u32) -> Result<()> {
    let grid = [blocks(args, MANY_ROWS), tiles, 1];
    let ty = super::spelled(ty);
    let (module, name) = (name!("product_many.{ty}"), name!("product_{ty}_mat"));
    launcher.launch(&module, &name, grid, [MANY_THREADS, 1, 1], args)
}

/// Puts the pairs in order, in scratch memory; the address of what the products of many columns take.
fn order(launcher: &mut Launcher<'_>, args: &ProductArgs) -> Result<u64> {
    let pairs = launcher.scratch(0, order_bytes(args.columns, args.experts))?;
    let argument = OrderArgs {
        ids: args.ids,
        pairs,
        ids_stride: args.ids_stride,
        ids_slot_stride: args.ids_slot_stride,
        columns: args.columns,
        slots: args.slots,
        experts: args.experts,
        tiles: tiles(args.columns, args.experts),
    };
    let threads = (args.experts + 1).next_multiple_of(32);
    launcher.launch("experts", "experts_order", [1, 1, 1], [threads, 1, 1], &argument)?;
    Ok(pairs)
}

/// Each pair of a token and a slot by itself, as many tokens at once as a grid has room for.
fn one_by_one(launcher: &mut Launcher<'_>, ty: Type, mut args: ProductArgs) -> Result<()> {
    let (tokens, at_once) = (args.columns / args.slots, (MOST_BLOCKS / args.slots).max(1));
    for first in (0..tokens).step_by(at_once as usize) {
        args.columns = at_once.min(tokens - first) * args.slots;
        few(launcher, ty, &args, 1)?;
        let on = |address: u64, stride: i64| address.wrapping_add_signed(stride * i64::from(at_once));
        args.x = on(args.x, args.x_stride);
        args.y = on(args.y, args.y_stride);
        args.ids = on(args.ids, args.ids_stride);
    }
    Ok(())
}

/// Values that a thread of `rows` decodes at least.
fn unit(ty: Type) -> u32 {
    match ty.block_values() {
        256 => 64,
        32 => 32,
        _ => 4,
    }
}

/// Rows of a table.
pub fn rows(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (table, y) = (operands.input(0), operands.output().view);
    let argument = RowsArgs {
        table: table.view,
        ids: operands.input(1).view,
        y,
        scale: operands.f32(word::rows::SCALE),
        nothing: 0,
    };
    let dense = table.ty.is_quantized() || table.dims[0] == 1 || table.strides[0] == table.ty.block_bytes() as i64;
    let units = y.dims[0].div_ceil(if dense { unit(table.ty) } else { 1 });
    let width = units.next_multiple_of(32).min(256);
    let grid = [units.div_ceil(width), y.rows().min(MOST_BLOCKS), 1];
    if !dense {
        return launcher.launch("rows_strided", "rows_strided", grid, [width, 1, 1], &argument);
    }
    let ty = super::spelled(table.ty);
    let (module, name) = (name!("rows.{ty}"), name!("rows_{ty}"));
    launcher.launch(&module, &name, grid, [width, 1, 1], &argument)
}

#[cfg(test)]
mod tests;
