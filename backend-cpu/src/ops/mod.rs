//! The operations: which nodes are served, what scratch memory they take, and how they run.

mod attention;
mod elementwise;
mod mix;
mod norm;
mod rope;
mod router;
mod split;
mod tables;
pub mod traffic;

pub use elementwise::{GateFunction, gate_by, gate_into};

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::Operation::{self, *},
};

use crate::{
    product,
    program::{Context, Operands},
};

/// The node's operation, where this backend serves the node.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<Operation> {
    let operation = Operation::from_id(node.operation)
        .ok_or_else(|| BackendError::unsupported(format!("operation {} is unknown", node.operation)))?;
    backend_api::validate::node(graph, node)?;
    match operation {
        Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd | GatedExpertProduct => {
            product::supports(operation, graph, node)?
        }
        Attention => attention::supports(graph, node)?,
        Gated => replaces_one(graph, node, 0, 1)?,
        NormAdd => replaces_one(graph, node, 0, 2)?,
        MixCoefficients => mix::supports(graph, node)?,
        Rows | RmsNorm | Rope | CacheStore | Add | Mul | Unary | TopK | Pick | Combine | RmsMatch | Sparsify | Copy
        | NormRope => {}
    }
    Ok(operation)
}

/// Refuses an output that replaces two inputs at once.
fn replaces_one(graph: &Graph<'_>, node: &Node, a: usize, b: usize) -> Result<()> {
    let place = |t: Option<u32>| t.and_then(|t| graph.tensor(t)).map(|t| (t.buffer, t.offset));
    let output = place(Some(node.output));
    if place(node.input(a)) == output && place(node.input(b)) == output {
        return Err(BackendError::unsupported(
            "both inputs are the view that the output replaces",
        ));
    }
    Ok(())
}

/// Bytes of scratch memory for a node that is served.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> Result<u64> {
    let operation = Operation::from_id(node.operation);
    match operation {
        Some(
            operation @ (Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd
            | GatedExpertProduct),
        ) => product::workspace(operation, graph, node),
        Some(Attention) => Ok(attention::workspace(graph, node)),
        Some(MixCoefficients) => Ok(mix::workspace(graph, node)),
        _ => Ok(0),
    }
}

/// Runs a node whose output is not empty.
pub fn run(operation: Operation, context: &Context<'_>, operands: &Operands<'_>) {
    match operation {
        Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd | GatedExpertProduct => {
            product::run(operation, context, operands)
        }
        Rows => tables::rows(context, operands),
        RmsNorm => norm::rms_norm(context, operands),
        Rope => rope::rope(context, operands),
        CacheStore => tables::cache_store(context, operands),
        Attention => attention::attention(context, operands),
        Add => elementwise::add(context, operands),
        Mul => elementwise::mul(context, operands),
        Unary => elementwise::unary(context, operands),
        Gated => elementwise::gated(context, operands),
        TopK => router::top_k(context, operands),
        Pick => router::pick(context, operands),
        Combine => router::combine(context, operands),
        RmsMatch => norm::rms_match(context, operands),
        Sparsify => norm::sparsify(context, operands),
        Copy => tables::copy(context, operands),
        NormAdd => norm::norm_add(context, operands),
        NormRope => rope::norm_rope(context, operands),
        MixCoefficients => mix::mix_coefficients(context, operands),
    }
}

/// Whether input `i` may lie at any address: weights, biases and other constants come straight from a file's map.
pub fn may_be_unaligned(operation: Operation, i: usize) -> bool {
    match operation {
        Rows => i == 0,
        RmsNorm | Add | Mul | NormAdd => i == 1,
        Rope => i == 2,
        NormRope => i == 1 || i == 3,
        Attention => i == 6,
        Copy => true,
        Product => i == 1,
        ProductAdd => i == 1 || i == 2,
        Products | GatedProduct => i > 0,
        ExpertProduct => i == 1,
        ExpertProductAdd => i == 1 || i == 3,
        GatedExpertProduct => i > 0 && i != 3,
        MixCoefficients => i > 0,
        CacheStore | Unary | Gated | TopK | Pick | Combine | RmsMatch | Sparsify => false,
    }
}

/// The tensor whose type chooses the kernel.
pub fn kernel_type(operation: Operation, node: &Node) -> Option<u32> {
    match operation {
        Rows => node.input(0),
        Attention | Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd
        | GatedExpertProduct => node.input(1),
        CacheStore => Some(node.output),
        MixCoefficients => node.input(2),
        _ => None,
    }
}
