//! `attention`: over the cache, in parts for few columns, in tiles for many.

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node, Tensor},
    operations::word,
    types::Type,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    launch::{Launcher, Operands, View},
    name,
};

/// Parts that a column's positions are cut into at most: `PARTS` of the kernels.
const PARTS: u32 = 32;

/// Positions of a part at least: 2^`LEAST_SHIFT` of the kernels.
const LEAST_PART: u32 = 128;

/// Positions of a page at least: `STRIP` of the kernels.
const LEAST_PAGE: u32 = 16;

/// Threads that a part has: `PART_WARPS` of the kernels.
const PART_THREADS: u32 = 256;

/// Columns and query heads, their product, that a tile has at most: `TILE_ROWS` of the kernels.
const TILE_ROWS: u32 = 64;

/// Threads that a tile has: `TILE_THREADS` of the kernels.
const TILE_THREADS: u32 = 128;

/// Blocks that are enough for tiles: twice the three for which each of a K80's multiprocessors has shared memory.
const ENOUGH_BLOCKS: u32 = 78;

/// Positions of the part of a tile at least, about.
const LEAST_SPLIT: u32 = 256;

/// Columns that are always taken in parts, whose bits depend on nothing else in the step.
const FEW_COLUMNS: u32 = 8;

/// What all kernels of attention take.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct AttentionArgs {
    q: View,
    y: View,
    k: View,
    v: View,
    table: View,
    positions: u64,
    starts: u64,
    sinks: u64,
    sums: u64,
    weights: u64,
    scale: f32,
    cap: f32,
    beta: f32,
    window_kind: u32,
    window: u32,
    span: u32,
    page_shift: u32,
    splits: u32,
}

/// Inputs by their places.
mod input {
    pub const Q: usize = 0;
    pub const K: usize = 1;
    pub const V: usize = 2;
    pub const POSITIONS: usize = 3;
    pub const STARTS: usize = 4;
    pub const TABLE: usize = 5;
    pub const SINKS: usize = 6;
}

/// Refuses heads and pages of sizes that no kernel has, and pools whose rows are not as they are allocated.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let (k, v) = (tensor(graph, node, input::K)?, tensor(graph, node, input::V)?);
    let [d, page, ..] = k.dims;
    let refuse = |what: String| Err(BackendError::unsupported(what));
    if head(d).is_none() || d % 8 != 0 || v.dims[0] != d {
        return refuse(format!(
            "heads of {d} and {}, served are equal multiples of 8 up to 256",
            v.dims[0]
        ));
    }
    if !page.is_power_of_two() || page < LEAST_PAGE {
        return refuse(format!(
            "pages of {page} positions, served are powers of two from {LEAST_PAGE} on"
        ));
    }
    if k.ty != v.ty {
        let [k, v] = [k, v].map(|t| t.kind().map_or("?", Type::name));
        return refuse(format!("keys of {k} and values of {v}, served are equal types"));
    }
    let aligned = |t: &Tensor| {
        let strides = t.strides.iter().zip(t.dims).skip(1);
        let mut strides = strides.filter(|(_, d)| *d > 1);
        t.offset.is_multiple_of(16) && strides.all(|(stride, _)| stride % 16 == 0)
    };
    let in_blocks = k.kind().is_some_and(|ty| ty.is_quantized());
    match in_blocks || aligned(k) && aligned(v) {
        true => Ok(()),
        false => refuse("rows of the cache that do not begin at multiples of 16 bytes".into()),
    }
}

fn tensor<'a>(graph: &Graph<'a>, node: &Node, input: usize) -> Result<&'a Tensor> {
    let found = node.input(input).and_then(|t| graph.tensor(t));
    found.ok_or_else(|| BackendError::invalid(format!("attention without input {input}")))
}

/// The module for heads of `d` values: `HEAD` of the kernels.
fn head(d: u32) -> Option<u32> {
    [64, 128, 256].into_iter().find(|&head| d <= head)
}

/// Query heads that share the work of a row of the cache, of `ratio` for which it is there.
fn together(ratio: u32) -> u32 {
    ratio.next_power_of_two().clamp(2, 8)
}

/// Columns that are taken in parts: as many sequences may want one each.
fn most_columns(sequences: u32) -> u32 {
    sequences.max(FEW_COLUMNS)
}

/// The sums of the parts, then their weights.
struct Scratch {
    sums: u64,
    weights: u64,
}

impl Scratch {
    /// Of so many parts of columns, each of all heads.
    fn of(d: u32, heads: u32, parts: u32) -> Scratch {
        let parts = u64::from(parts) * u64::from(heads);
        Scratch {
            sums: parts * u64::from(d) * 4,
            weights: parts * 8,
        }
    }
}

/// Bytes of scratch memory: they do not grow with the context, nor with the columns of a step.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> Result<u64> {
    let (q, table) = (tensor(graph, node, input::Q)?, tensor(graph, node, input::TABLE)?);
    let [d, heads, columns, _] = q.dims;
    let scratch = Scratch::of(d, heads, PARTS.saturating_mul(columns.min(most_columns(table.dims[1]))));
    Ok(scratch.sums + scratch.weights)
}

/// Values of the cache, weighted by how queries and keys agree.
pub fn attention(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    let (q, k, table) = (
        operands.input(input::Q),
        operands.input(input::K),
        operands.input(input::TABLE),
    );
    let columns = q.dims[2];
    let mut args = AttentionArgs {
        q: q.view,
        y: operands.output().view,
        k: k.view,
        v: operands.input(input::V).view,
        table: table.view,
        positions: operands.input(input::POSITIONS).address,
        starts: operands.input(input::STARTS).address,
        sinks: operands.optional(input::SINKS).map_or(0, |sinks| sinks.address),
        sums: 0,
        weights: 0,
        scale: operands.f32(word::attention::SCALE),
        cap: operands.f32(word::attention::SOFTCAP),
        beta: operands.f32(word::attention::BETA),
        window_kind: operands.word(word::attention::WINDOW_KIND),
        window: operands.word(word::attention::WINDOW),
        span: operands.word(word::attention::SPAN),
        page_shift: k.dims[1].trailing_zeros(),
        splits: 0,
    };
    if columns <= most_columns(table.dims[1]) {
        return in_parts(launcher, k.ty, &mut args);
    }
    in_tiles(launcher, k.ty, &mut args)
}

/// What stands in the names of a module and its kernels.
fn names(ty: Type, d: u32) -> Result<(&'static str, u32)> {
    let head = head(d).ok_or_else(|| BackendError::unsupported(format!("heads of {d} values")))?;
    Ok((super::spelled(ty), head))
}

fn in_parts(launcher: &mut Launcher<'_>, ty: Type, args: &mut AttentionArgs) -> Result<()> {
    let [d, heads, columns, _] = args.q.dims;
    let (spelled, head) = names(ty, d)?;
    let (kv_heads, ratio) = (args.k.dims[2], heads / args.k.dims[2]);
    let (parts, together) = (launcher.step.context.div_ceil(LEAST_PART).min(PARTS), together(ratio));
    place_parts(launcher, args, PARTS)?;
    let grid = [columns, kv_heads * ratio.div_ceil(together), parts];
    let module = name!("attention_part.{spelled}.{head}.{together}");
    let name = name!("attention_{spelled}_part_{head}_{together}");
    launcher.launch(&module, &name, grid, [PART_THREADS, 1, 1], args)?;
    join(launcher, args)
}

/// Finds room for so many parts of each column.
fn place_parts(launcher: &mut Launcher<'_>, args: &mut AttentionArgs, parts: u32) -> Result<()> {
    let [d, heads, columns, _] = args.q.dims;
    let scratch = Scratch::of(d, heads, columns * parts);
    args.sums = launcher.scratch(0, scratch.sums)?;
    args.weights = launcher.scratch(scratch.sums, scratch.weights)?;
    Ok(())
}

fn join(launcher: &mut Launcher<'_>, args: &AttentionArgs) -> Result<()> {
    let [d, heads, columns, _] = args.q.dims;
    let (grid, block) = ([heads, columns, 1], [d.next_multiple_of(32), 1, 1]);
    launcher.launch("attention_join", "attention_join", grid, block, args)
}

fn in_tiles(launcher: &mut Launcher<'_>, ty: Type, args: &mut AttentionArgs) -> Result<()> {
    let [d, heads, columns, _] = args.q.dims;
    let (spelled, head) = names(ty, d)?;
    let (kv_heads, ratio, sequences) = (args.k.dims[2], heads / args.k.dims[2], args.table.dims[1]);
    // each sequence may end within a tile
    let tiles = columns.div_ceil(TILE_ROWS / ratio.min(TILE_ROWS)) + sequences;
    let across = kv_heads * ratio.div_ceil(TILE_ROWS);
    let seen = seen(args, launcher.step.context);
    let splits = splits(tiles.saturating_mul(across), seen, columns, sequences);
    if splits > 1 {
        args.splits = splits;
        place_parts(launcher, args, splits)?;
    }
    let (module, name) = (
        name!("attention_tile.{spelled}.{head}"),
        name!("attention_{spelled}_tile_{head}"),
    );
    launcher.launch(&module, &name, [tiles, across, splits], [TILE_THREADS, 1, 1], args)?;
    if splits > 1 { join(launcher, args) } else { Ok(()) }
}

/// Positions that a tile goes through, about.
fn seen(args: &AttentionArgs, context: u32) -> u32 {
    match args.window_kind {
        0 => context,
        _ => context.min(args.window.saturating_add(args.q.dims[2])),
    }
}

/// Parts of the `seen` positions, each for a block: as many as make of `blocks` enough, where the parts are long and scratch
/// memory has room for those of all columns.
fn splits(blocks: u32, seen: u32, columns: u32, sequences: u32) -> u32 {
    let room = PARTS.saturating_mul(most_columns(sequences)) / columns;
    (ENOUGH_BLOCKS / blocks.max(1))
        .min(seen / LEAST_SPLIT)
        .min(room)
        .clamp(1, PARTS)
}

#[cfg(test)]
mod tests {
    use backend_api::{
        draft::Draft,
        graph::{Role, Symbol},
        operations::Operation,
    };

    use super::{super::mirror, *};
    use crate::modules;

    #[test]
    fn parts_and_tiles_are_those_that_the_kernels_have() {
        let sizes = [
            ("PARTS", PARTS.into()),
            ("1 << LEAST_SHIFT", LEAST_PART.into()),
            ("STRIP", LEAST_PAGE.into()),
            ("PART_WARPS * WARP", PART_THREADS.into()),
            ("TILE_ROWS", TILE_ROWS.into()),
            ("TILE_THREADS", TILE_THREADS.into()),
            ("sizeof(AttentionArgs)", size_of::<AttentionArgs>() as u64),
        ];
        let sizes = sizes.map(|(name, n)| (name.to_owned(), n));
        mirror::assert_same(&["attention_part.cuh", "attention_tile.cuh"], &sizes);
    }

    #[test]
    fn every_width_and_ratio_has_its_kernels() {
        let has = |module: String, kernel: String| {
            let source = modules::source(&module).unwrap();
            assert!(source.contains(&format!(".entry {kernel}(")), "{kernel} in {module}");
        };
        for ty in Type::CACHE {
            for d in [8, 64, 72, 128, 136, 256] {
                let (spelled, head) = names(ty, d).unwrap();
                assert!(head >= d, "{head}");
                has(
                    format!("attention_tile.{spelled}.{head}"),
                    format!("attention_{spelled}_tile_{head}"),
                );
                for ratio in [1, 2, 3, 4, 5, 8, 64] {
                    let together = together(ratio);
                    has(
                        format!("attention_part.{spelled}.{head}.{together}"),
                        format!("attention_{spelled}_part_{head}_{together}"),
                    );
                }
            }
        }
    }

    /// A step of `columns` over a cache of `blocks` pages of 16 positions a sequence, with 8 query heads and 2 of the cache.
    fn asked(ty: Type, d: u32, [columns, sequences, blocks]: [u32; 3], change: impl FnOnce(&mut Tensor)) -> Draft {
        let mut draft = Draft::new(columns, 1);
        let mut place = |role, ty, dims, columns: Option<u8>| {
            let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
            let tensor = columns.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
            draft.place(role, tensor).unwrap()
        };
        let pool = [d, 16, 2, blocks * sequences];
        let inputs = [
            place(Role::Activation, Type::F32, [d, 8, columns, 1], Some(2)),
            place(Role::Pool, ty, pool, None),
            place(Role::Pool, ty, pool, None),
            place(Role::Input, Type::I32, [columns, 1, 1, 1], Some(0)),
            place(Role::Input, Type::I32, [sequences + 1, 1, 1, 1], None),
            place(Role::Input, Type::I32, [blocks, sequences, 1, 1], None),
        ];
        let output = place(Role::Activation, Type::F32, [d, 8, columns, 1], Some(2));
        change(&mut draft.tensors[inputs[input::K] as usize]);
        draft.nodes.push(Node::new(Operation::Attention.id(), &inputs, output));
        draft
    }

    fn refusal(ty: Type, d: u32, change: impl FnOnce(&mut Tensor)) -> String {
        let draft = asked(ty, d, [1, 1, 4], change);
        supports(&draft.graph(), &draft.nodes[0]).unwrap_err().to_string()
    }

    #[test]
    fn what_no_kernel_has_is_refused_in_words() {
        let same = |_: &mut Tensor| {};
        assert!(refusal(Type::F16, 12, same).contains("heads of 12 and 12, served are equal multiples of 8 up to 256"));
        assert!(refusal(Type::F16, 264, same).contains("heads of 264"));
        assert!(refusal(Type::F16, 64, |k| k.dims[1] = 8).contains("pages of 8 positions"));
        assert!(
            refusal(Type::F16, 64, |k| k.ty = Type::Q8_0.id())
                .contains("keys of Q8_0 and values of F16, served are equal")
        );
        assert!(refusal(Type::F32, 64, |k| k.offset = 4).contains("multiples of 16 bytes"));
        assert!(refusal(Type::F16, 64, |k| k.strides[1] += 2).contains("multiples of 16 bytes"));
    }

    #[test]
    fn every_width_and_type_of_the_cache_is_served() {
        for ty in Type::CACHE {
            for d in (8..=256).step_by(8).filter(|d| ty.row_bytes(*d).is_some()) {
                let draft = asked(ty, d as u32, [1, 1, 4], |_| {});
                assert!(supports(&draft.graph(), &draft.nodes[0]).is_ok(), "{ty}, heads of {d}");
            }
        }
    }

    #[test]
    fn tiles_share_a_long_cache_where_they_are_few() {
        // 40 columns of 28 heads over 4 of the cache: 5 tiles and one for where the sequence ends, 4 times
        assert_eq!(splits(24, 8192, 40, 1), 3);
        assert_eq!(splits(24, 512, 40, 1), 2, "a part has 256 positions");
        assert_eq!(splits(24, 200, 40, 1), 1);
        assert_eq!(splits(2, 8192, 40, 1), 6, "there is room for 8 columns of 32 parts");
        assert_eq!(splits(300, 8192, 2000, 1), 1);
    }

    #[test]
    fn scratch_memory_grows_with_what_is_taken_in_parts_alone() {
        let needed = |sizes| {
            let draft = asked(Type::F16, 64, sizes, |_| {});
            workspace(&draft.graph(), &draft.nodes[0]).unwrap()
        };
        // 8 columns, 8 heads, 32 parts of 64 sums and 2 weights
        assert_eq!(needed([512, 1, 4]), 8 * 8 * 32 * 66 * 4);
        assert_eq!(needed([512, 1, 8192]), needed([512, 1, 4]));
        assert_eq!(needed([2, 1, 4]), needed([512, 1, 4]) / 4);
        assert_eq!(needed([512, 16, 4]), needed([512, 1, 4]) * 2);
    }
}
