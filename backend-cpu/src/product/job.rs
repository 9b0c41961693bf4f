//! A node's operands in their places.

use backend_api::{
    operations::{
        Operation::{self, *},
        word,
    },
    types::Type,
};

use super::{
    kernel::{Kernel, PANEL_ROWS, TILE_ROWS, Takes},
    select::{Selected, Way, select, takes},
};
use crate::{
    kernel_set::Kernels,
    ops::GateFunction,
    program::{Context, Operands},
    view::View,
};

/// Steps of no more tokens than this give each column the bits that it has alone: no panels.
const MOST_SINGLE: usize = 8;

/// Which input of an operation is what.
pub(super) struct Roles {
    /// Weights, each with its bias.
    pub weights: &'static [(usize, Option<usize>)],
    /// The experts' ids.
    pub ids: Option<usize>,
    residual: Option<usize>,
    gated: bool,
}

/// The roles of a product's inputs; none for other operations. Input 0 is x.
pub(super) const fn roles(operation: Operation) -> Option<Roles> {
    let plain = Roles {
        weights: &[(1, None)],
        ids: None,
        residual: None,
        gated: false,
    };
    Some(match operation {
        Product => plain,
        ExpertProduct => Roles { ids: Some(2), ..plain },
        ProductAdd => Roles {
            weights: &[(1, Some(2))],
            residual: Some(3),
            ..plain
        },
        Products => Roles {
            weights: &[(1, Some(2)), (3, Some(4)), (5, Some(6)), (7, Some(8))],
            ..plain
        },
        GatedProduct => Roles {
            weights: &[(1, Some(3)), (2, Some(4))],
            gated: true,
            ..plain
        },
        ExpertProductAdd => Roles {
            weights: &[(1, Some(3))],
            ids: Some(2),
            ..plain
        },
        GatedExpertProduct => Roles {
            weights: &[(1, Some(4)), (2, Some(5))],
            ids: Some(3),
            gated: true,
            ..plain
        },
        _ => return None,
    })
}

/// How weights of type `ty` are multiplied.
pub(super) fn way(ty: Type, exact: bool) -> Way {
    if ty.is_quantized() && !exact {
        Way::Integer
    } else {
        Way::Exact
    }
}

/// What columns the kernels for weights of type `ty` may take.
pub(super) fn may_take(ty: Type, exact: bool) -> impl Iterator<Item = Takes> + Clone {
    let way = way(ty, exact);
    let panel = (way == Way::Integer).then_some(takes(ty, Way::Panel));
    [Some(takes(ty, way)), panel].into_iter().flatten()
}

/// Where things lie in the workspace. All of it grows with the dims, so that a step's layout fits into that of the
/// largest step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// For each of [`Takes::QUANTIZED`] the bytes of a column, 0 where no kernel asks for it, and the offset of the first
    /// one; the columns lie in the order of x's rows.
    pub quantized: [(usize, usize); Takes::QUANTIZED.len()],
    /// The offset of the columns' numbers, u32, ordered by expert.
    pub order: usize,
    /// The offset of u32 [experts + 2]: where each expert's columns begin among them, where those without one do, and
    /// their end.
    pub starts: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl Layout {
    /// The layout for x of these dims, whose columns are asked for as [`Takes`] by kernels, and for `ids` of these dims into
    /// that many experts. None where it overflows.
    pub fn of(
        x: [usize; 4],
        asked: impl Iterator<Item = Takes> + Clone,
        ids: Option<([usize; 4], usize)>,
    ) -> Option<Layout> {
        let count = x[1].checked_mul(x[2])?;
        let mut quantized = [(0, 0); Takes::QUANTIZED.len()];
        let mut order = 0usize;
        for ((takes, bytes), place) in Takes::QUANTIZED.iter().zip(&mut quantized) {
            let bytes = if asked.clone().any(|t| t == *takes) {
                bytes(x[0])
            } else {
                0
            };
            *place = (bytes, order);
            order = order.checked_add(bytes.checked_mul(count)?)?;
        }
        let (columns, starts) = match ids {
            Some((dims, experts)) => (dims[0].checked_mul(dims[1])?, experts.checked_add(2)?),
            None => (0, 0),
        };
        let starts_at = order.checked_add(columns.checked_mul(4)?)?;
        Some(Layout {
            quantized,
            order,
            starts: starts_at,
            bytes: starts_at.checked_add(starts.checked_mul(4)?)?,
        })
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
    pub panel: Option<Kernel>,
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
    /// The workspace.
    pub layout: Layout,
    /// Whether columns are so many that they go through panels.
    pub panels: bool,
    parts: [Option<Part<'a>>; 4],
}

impl<'a> Job<'a> {
    /// The job of a node, its kernels counted; none where the node is no product that is served.
    pub fn new(operation: Operation, context: &Context<'_>, operands: &'a Operands<'_>) -> Option<Job<'a>> {
        let roles = roles(operation)?;
        let selected = select(context.kernels);
        let exact = operands.word(word::product::PRECISION) != 0;
        let panels = operands.output().rows() > MOST_SINGLE * roles.ids.map_or(1, |ids| operands.input(ids).dims()[0]);
        let mut parts = [None; 4];
        let mut first = 0;
        for (part, (w, b)) in parts.iter_mut().zip(roles.weights) {
            if let Some(weights) = operands.optional(*w) {
                let way = way(weights.ty(), exact);
                let kernel = selected.kernel(weights.ty(), way)?;
                let panel = selected
                    .kernel(weights.ty(), Way::Panel)
                    .filter(|_| panels && way == Way::Integer);
                *part = Some(Part {
                    weights,
                    bias: b.and_then(|b| operands.optional(b)),
                    kernel,
                    panel,
                    first,
                });
                first += weights.dims()[1];
            }
        }
        let x = operands.input(0);
        let ids = roles.ids.map(|i| operands.input(i));
        let panels = parts.iter().flatten().all(|part| part.panel.is_some());
        for part in parts.iter().flatten() {
            let ty = part.weights.ty();
            let way = if panels { Way::Panel } else { way(ty, exact) };
            context.counters.products.count(operation, ty, way, part.kernel.set);
        }
        // experts may have few columns each
        let few = !panels || ids.is_some();
        let asked = parts.iter().flatten().flat_map(move |part| {
            let kernels = [few.then_some(part.kernel), part.panel.filter(|_| panels)];
            kernels.into_iter().flatten().map(|kernel| kernel.takes)
        });
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
            layout: Layout::of(x.dims(), asked, ids.map(|ids| (ids.dims(), experts)))?,
            parts,
        })
    }

    /// The weights.
    pub fn parts(&self) -> impl Iterator<Item = &Part<'a>> {
        self.parts.iter().flatten()
    }

    /// Rows of a tile.
    pub fn tile_rows(&self) -> usize {
        if self.panels { PANEL_ROWS } else { TILE_ROWS }
    }

    /// Tiles of a part's rows.
    pub fn tiles(&self, part: &Part<'_>) -> usize {
        part.rows().div_ceil(self.tile_rows())
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
