//! Products of weights and activations: `product`, `expert_product` and the composites made of them.

mod blocks;
mod columns;
mod exact;
mod integer;
mod kernel;
mod lanes;
mod select;
#[cfg(test)]
mod tests;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::Operation,
};

use crate::program::{Context, Operands};

/// Whether the product `operation` is served for this node. The node is well formed.
pub fn supports(operation: Operation, _graph: &Graph<'_>, _node: &Node) -> Result<()> {
    Err(BackendError::unsupported(format!("{} is not served", operation.name())))
}

/// Bytes of scratch memory for a node.
pub fn workspace(_operation: Operation, _graph: &Graph<'_>, _node: &Node) -> Result<u64> {
    Ok(0)
}

/// Runs a node that [`supports`] accepted.
pub fn run(_operation: Operation, _context: &Context<'_>, _operands: &Operands<'_>) {}
