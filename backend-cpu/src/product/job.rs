//! A node's operands in their places.

use backend_api::{
    operations::{Operation, word},
    products::roles,
    types::Type,
};

use super::{
    kernel::{Kernel, Takes},
    panel::{
        self, Panels, SPARE,
        packing::{Packing, RECORD},
        panels,
    },
    select::{SETS, Selected, Way, select},
};
use crate::{
    kernel_set::Kernels,
    ops::GateFunction,
    program::{Context, Operands},
    view::View,
};

/// Steps of no more tokens than this give each column the bits that it has alone: no panels.
const MOST_SINGLE: usize = 8;

/// How weights of type `ty` are multiplied.
pub(super) fn way(ty: Type, exact: bool) -> Way {
    if ty.is_quantized() && !exact {
        Way::Integer
    } else {
        Way::Exact
    }
}

/// How columns may be packed for weights of type `ty`. Where tiles take bf16 instead, these are packed into as many bytes.
pub(super) fn may_pack(ty: Type, exact: bool) -> Packing {
    match way(ty, exact) {
        Way::Exact => Packing::Floats,
        Way::Integer if ty.block_values() == 256 => Packing::Supers,
        Way::Integer => Packing::Blocks,
    }
}

/// Where things lie in the workspace. All of it grows with the dims, so that a step's layout fits into that of the
/// largest step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layout {
    /// For each of [`Takes::QUANTIZED`] the bytes of a column, 0 where no kernel asks for it, and the offset of the first
    /// one; the columns lie in the order of x's rows.
    pub quantized: [(usize, usize); Takes::QUANTIZED.len()],
    /// The offsets of packed columns, by [`Packing`]; in the output's order, or in that of [`Layout::order`].
    pub packed: [Option<usize>; 4],
    /// The offset of the columns' numbers, u32, ordered by expert.
    pub order: usize,
    /// The offset of u32 [experts + 2]: where each expert's columns begin among them, where those without one do, and
    /// their end.
    pub starts: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl Layout {
    /// The layout for x of these dims, whose columns are asked for as [`Takes`] and [`Packing`] by kernels, and for `ids` of
    /// these dims into that many experts. None where it overflows.
    pub fn of(
        x: [usize; 4],
        takes: impl Fn(Takes) -> bool,
        packs: impl Fn(Packing) -> bool,
        ids: Option<([usize; 4], usize)>,
    ) -> Option<Layout> {
        let columns = x[1].checked_mul(x[2])?;
        let (ordered, starts) = match ids {
            Some((dims, experts)) => (dims[0].checked_mul(dims[1])?, experts.checked_add(2)?),
            None => (0, 0),
        };
        let mut layout = Layout::default();
        let mut end = 0usize;
        let mut place = |bytes: usize, count: usize| {
            let at = end;
            end = end.checked_add(bytes.checked_mul(count)?)?;
            Some(at)
        };
        for ((quantized, bytes), to) in Takes::QUANTIZED.iter().zip(&mut layout.quantized) {
            if takes(*quantized) {
                *to = (bytes(x[0]), place(bytes(x[0]), columns)?);
            }
        }
        let many = if ids.is_some() { ordered } else { columns };
        for packing in [Packing::Blocks, Packing::Supers, Packing::Floats, Packing::Halves] {
            if packs(packing) {
                let records = packing.records(x[0]).checked_mul(many)?.checked_add(SPARE)?;
                layout.packed[packing as usize] = Some(place(RECORD, records)?);
            }
        }
        layout.order = place(4, ordered)?;
        layout.starts = place(4, starts)?;
        layout.bytes = place(0, 0)?;
        Some(layout)
    }
}

fn gate(operands: &Operands<'_>) -> GateFunction {
    GateFunction::new(
        operands.word(word::gated_product::KIND),
        operands.f32(word::gated_product::ALPHA),
        operands.f32(word::gated_product::LIMIT),
    )
}

/// One of the weights.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// W, [K, M] or [K, M, n].
    pub weights: &'a View,
    /// b, [M] or [M, n].
    pub bias: Option<&'a View>,
    /// What multiplies it.
    pub kernel: Kernel,
    /// What multiplies it with many columns, if they are many.
    pub many: Option<panel::Kernel>,
    /// The output's row that its first one gives.
    pub first: usize,
}

impl Part<'_> {
    /// Rows of the weights, M.
    pub fn rows(&self) -> usize {
        self.weights.dims()[1]
    }
}

/// A product with its operands.
pub(super) struct Job<'a> {
    /// x, [K, T] or [K, 1 or k, T].
    pub x: &'a View,
    /// The experts' ids, [k, T].
    pub ids: Option<&'a View>,
    /// How gate and up, the two parts, are combined.
    pub gating: Option<GateFunction>,
    /// r, [M, T].
    pub residual: Option<&'a View>,
    /// [M, T] or [M, k, T].
    pub output: &'a View,
    /// What the machine has.
    pub kernels: Kernels,
    /// The product's kernels for it.
    pub selected: Selected,
    /// Its kernels for many columns, if they are many.
    pub panels: Option<Panels>,
    /// The workspace.
    pub layout: Layout,
    parts: [Option<Part<'a>>; 4],
}

impl<'a> Job<'a> {
    /// The job of a node, its kernels counted; none where the node is no product that is served.
    pub fn new(operation: Operation, context: &Context<'_>, operands: &'a Operands<'_>) -> Option<Job<'a>> {
        let roles = roles(operation)?;
        let selected = select(context.kernels);
        let exact = operands.word(word::product::PRECISION) != 0;
        let columns = operands.output().rows() / roles.ids.map_or(1, |ids| operands.input(ids).dims()[0].max(1));
        let panels = panels(context.kernels).filter(|_| columns > MOST_SINGLE);
        let mut parts = [None; 4];
        let mut first = 0;
        for (part, (w, b)) in parts.iter_mut().zip(roles.weights) {
            if let Some(weights) = operands.optional(*w) {
                let way = way(weights.ty(), exact);
                let kernel = selected.kernel(weights.ty(), way)?;
                let many = panels.and_then(|panels| panels.kernel(weights.ty(), way == Way::Exact));
                context.counters.products.count(
                    operation,
                    weights.ty(),
                    way,
                    many.is_some(),
                    many.map_or(SETS[kernel.set], |many| many.set),
                );
                *part = Some(Part {
                    weights,
                    bias: b.and_then(|b| operands.optional(b)),
                    kernel,
                    many,
                    first,
                });
                first += weights.dims()[1];
            }
        }
        let x = operands.input(0);
        let ids = roles.ids.map(|i| operands.input(i));
        // experts may have few columns each
        let few = panels.is_none() || ids.is_some();
        let takes = |takes| few && parts.iter().flatten().any(|part| part.kernel.takes == takes);
        let packs = |packing| {
            let mut kernels = parts.iter().flatten().filter_map(|part| part.many);
            kernels.any(|many| many.packing == packing)
        };
        let experts = parts[0]?.weights.dims()[2];
        Some(Job {
            x,
            ids,
            gating: roles.gated.then(|| gate(operands)),
            residual: roles.residual.and_then(|r| operands.optional(r)),
            output: operands.output(),
            kernels: context.kernels,
            selected,
            panels,
            layout: Layout::of(x.dims(), takes, packs, ids.map(|ids| (ids.dims(), experts)))?,
            parts,
        })
    }

    /// The weights.
    pub fn parts(&self) -> impl Iterator<Item = &Part<'a>> {
        self.parts.iter().flatten()
    }

    /// Tiles of so many of a part's rows.
    pub fn tiles(&self, part: &Part<'_>, rows: usize) -> usize {
        part.rows().div_ceil(rows)
    }

    /// Gate and up.
    pub fn gate_and_up(&self) -> Option<(GateFunction, &Part<'a>, &Part<'a>)> {
        Some((self.gating?, self.parts[0].as_ref()?, self.parts[1].as_ref()?))
    }

    /// The weights whose tiles are divided among the threads: gate and up go together.
    pub fn leading_parts(&self) -> impl Iterator<Item = &Part<'a>> {
        self.parts().take(if self.gating.is_some() { 1 } else { 4 })
    }
}
