//! The operations: which nodes are served, what scratch memory they take, and how they run.

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
        _ => return Err(BackendError::unsupported(format!("{} is not served", operation.name()))),
    }
    Ok(operation)
}

/// Bytes of scratch memory for a node that is served.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> Result<u64> {
    let operation = Operation::from_id(node.operation);
    match operation {
        Some(
            operation @ (Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd
            | GatedExpertProduct),
        ) => product::workspace(operation, graph, node),
        _ => Ok(0),
    }
}

/// Runs a node whose output is not empty.
pub fn run(operation: Operation, context: &Context<'_>, operands: &Operands<'_>) {
    match operation {
        Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd | GatedExpertProduct => {
            product::run(operation, context, operands)
        }
        _ => {}
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
        _ => None,
    }
}
