//! `attention` over the paged cache, with an online softmax: scores are never stored whole.
//!
//! Steps of up to [`FEW`] columns go through [`few`], where a column's bits depend on what it sees alone; larger ones
//! through [`many`], where queries share all that is read.

mod cells;
mod codes;
mod few;
mod many;
mod node;
mod part;
mod softmax;
mod tile;
#[cfg(target_arch = "x86_64")]
mod vnni;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
};

use self::{few::FEW, node::Attention};
use crate::program::{Context, Operands};

/// The widest head served.
const WIDEST: usize = 256;

/// Whether heads and pages have sizes that are served. The node is well formed.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let dims = |i: usize| node.input(i).and_then(|t| graph.tensor(t)).map_or([0; 4], |t| t.dims);
    let ([hd, per_page, ..], [hd_v, ..]) = (dims(1), dims(2));
    if hd.max(hd_v) as usize > WIDEST {
        return Err(BackendError::unsupported(format!(
            "heads of {hd} and {hd_v} values, where at most {WIDEST} are served"
        )));
    }
    if !per_page.is_power_of_two() || per_page < 16 {
        return Err(BackendError::unsupported(format!(
            "pages of {per_page} tokens, where powers of two from 16 are served"
        )));
    }
    Ok(())
}

/// Bytes of scratch memory: a state for each part of each query of a step of few columns.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> u64 {
    let output = graph.tensor(node.output);
    let [hd_v, heads, columns, _] = output.map_or([0; 4], |t| t.dims.map(|d| d as usize));
    (4 * columns.min(FEW) * heads * few::PARTS * softmax::size(hd_v)) as u64
}

/// Attention of each column to the positions of its sequence.
pub fn attention(context: &Context<'_>, operands: &Operands<'_>) {
    let attention = Attention::new(context, operands);
    if attention.columns() <= FEW {
        few::run(&attention);
    } else {
        many::run(&attention);
    }
}

impl Attention<'_> {
    /// Whether numbers may be rounded to bf16: where keys and values are rounded further than that.
    fn rounds_floats(&self) -> bool {
        self.rounds && self.k.ty().is_quantized() && self.v.ty().is_quantized()
    }

    /// Writes the output of a query that has seen all.
    fn finish(&self, column: usize, head: usize, total: &[f32]) {
        // SAFETY: each query has one thread that ends it, and the output shares no byte with an input.
        let y = unsafe { self.output.row_mut([head, column, 0]) };
        softmax::finish(self.context.kernels, y, total, self.sink(head));
    }
}
