//! The operations: which nodes are served, what scratch memory they take, and the kernels that they launch.

mod elementwise;

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::Operation::{self, *},
};

use crate::launch::{Launcher, Operands};

/// The node's operation, where this backend serves the node.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<Operation> {
    let operation = backend_api::validate::node(graph, node)?;
    match operation {
        Add => Ok(operation),
        _ => Err(BackendError::unsupported(format!("{} is not served", operation.name()))),
    }
}

/// Bytes of scratch memory for a node that is served.
pub fn workspace(_graph: &Graph<'_>, _node: &Node) -> Result<u64> {
    Ok(0)
}

/// Launches the kernels of a node whose output is not empty.
pub fn launch(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    match operands.planned.operation {
        Add => elementwise::add(launcher, operands),
        other => Err(BackendError::unsupported(format!("{} is not served", other.name()))),
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
