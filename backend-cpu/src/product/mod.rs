//! Products of weights and activations: `product`, `expert_product` and the composites made of them.
//!
//! [`kernel`] says what a kernel for few columns is: the product of a tile of rows with them. There are three ways to make one,
//! each straight from the file's layout: [`sixteens`] for blocks of 32 values and [`supers`] for blocks of 256, in integers over
//! quantized columns, and [`plain`] in f32 for plain types; [`exact`] works in f32 where the graph asks for precision. [`panel`]
//! has the kernels for many columns. All are written once over [`lanes`], the operations of an instruction set, and [`blocks`],
//! the unpacking of a type; [`select`] instantiates them. [`job`] puts a node's operands in their places, [`run`](run()) and
//! [`many`] divide it among the threads, and [`calls`] counts what was called.

mod blocks;
mod calls;
mod columns;
mod exact;
mod job;
mod kernel;
mod lanes;
mod many;
#[cfg(target_arch = "x86_64")]
mod panel;
mod plain;
mod run;
mod select;
mod sixteens;
mod supers;
#[cfg(test)]
mod tests;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node, Tensor},
    operations::{Operation, word},
    products::roles,
};

use crate::{
    ops::traffic::size,
    program::{Context, Operands},
};

pub use calls::Calls;
#[cfg(target_arch = "x86_64")]
pub(crate) use panel::amx;

/// Whether the product `operation` is served for this node. The node is well formed.
///
/// # Errors
/// None today: every well-formed product is served.
pub fn supports(_operation: Operation, _graph: &Graph<'_>, _node: &Node) -> Result<()> {
    Ok(())
}

/// Bytes of scratch memory for a node: its quantized columns, and for experts the order of the columns.
///
/// # Errors
/// `Invalid` where the node's tensors are not there, `Unsupported` where they are larger than an address space.
pub fn workspace(operation: Operation, graph: &Graph<'_>, node: &Node) -> Result<u64> {
    let missing = || BackendError::invalid(format!("{}: a tensor is missing", operation.name()));
    let Some(roles) = roles(operation) else {
        return Ok(0);
    };
    let tensor = |input| node.input(input).and_then(|t| graph.tensor(t));
    let dims = |t: &Tensor| t.dims.map(|d| d as usize);
    let exact = node.params[word::product::PRECISION] != 0;
    let weights = || roles.weights.iter().filter_map(|(w, _)| tensor(*w));
    let types = || weights().filter_map(Tensor::kind);
    let takes = |takes| types().any(|ty| select::takes(ty, job::way(ty, exact)) == takes);
    let packs = |packing| types().any(|ty| job::may_pack(ty, exact) == packing);
    let experts = weights().next().ok_or_else(missing)?.dims[2] as usize;
    let ids = match roles.ids {
        Some(ids) => Some((dims(tensor(ids).ok_or_else(missing)?), experts)),
        None => None,
    };
    let x = dims(tensor(0).ok_or_else(missing)?);
    // Columns are packed or not, but for those of experts, which may have few or many.
    let few = job::Layout::of(x, takes, |packing| ids.is_some() && packs(packing), ids);
    let many = job::Layout::of(x, |taken| ids.is_some() && takes(taken), packs, ids);
    let too_large = || BackendError::unsupported(format!("{}: its columns exceed the memory", operation.name()));
    let bytes = few.zip(many).map(|(few, many)| few.bytes.max(many.bytes));
    Ok(bytes.ok_or_else(too_large)? as u64)
}

/// Whether `operation` is one of the products, which count their kernels themselves in [`Calls`].
pub fn counts(operation: Operation) -> bool {
    roles(operation).is_some()
}

/// Bytes that a product has to read and write; none for other operations. See [`crate::ops::traffic`].
pub fn traffic(operation: Operation, operands: &Operands<'_>) -> Option<usize> {
    let roles = roles(operation)?;
    let weights = roles.weights.iter().filter_map(|(w, _)| operands.optional(*w));
    let weights = weights.map(|w| {
        let experts = w.dims()[2].max(1);
        let used = roles
            .ids
            .map_or(experts, |ids| operands.input(ids).values().min(experts));
        size(w) / experts * used
    });
    Some(weights.sum::<usize>() + size(operands.input(0)) + size(operands.output()))
}

/// Runs a node that [`supports`] accepted.
pub fn run(operation: Operation, context: &Context<'_>, operands: &Operands<'_>) {
    if let Some(job) = job::Job::new(operation, context, operands) {
        job.run(context);
    }
}
