//! The operations: which nodes are served, what scratch memory they take, and the kernels that they launch.

mod attention;
mod cache;
mod elementwise;
#[cfg(test)]
pub(crate) mod mirror;
mod mix;
mod norm;
mod product;
mod rope;
mod router;
pub mod traffic;

use backend_api::{
    Result,
    graph::{Graph, Node},
    operations::Operation::{self, *},
    types::Type,
};

use crate::{
    arrange,
    launch::{Launcher, Operands},
};

/// The node's operation, where this backend serves the node.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<Operation> {
    let operation = backend_api::validate::node(graph, node)?;
    let inputs = node.inputs.iter().filter_map(|&input| graph.tensor(input));
    inputs
        .map(|input| arrange::placed(graph, input))
        .try_for_each(|placed| placed.map(drop))?;
    match operation {
        Rope | NormRope => rope::supports(operation, graph, node)?,
        Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd | GatedExpertProduct => {
            product::supports(operation, graph, node)?
        }
        MixCoefficients => mix::supports(graph, node)?,
        Attention => attention::supports(graph, node)?,
        Rows | RmsNorm | CacheStore | Add | Mul | Unary | Gated | TopK | Pick | Combine | RmsMatch | Sparsify
        | Copy | NormAdd => {}
    }
    Ok(operation)
}

/// Bytes of scratch memory for a node that is served.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> Result<u64> {
    match Operation::from_id(node.operation) {
        Some(Attention) => attention::workspace(graph, node),
        Some(operation) => Ok(product::workspace(operation, graph, node)),
        None => Ok(0),
    }
}

/// Launches the kernels of a node whose output is not empty.
pub fn launch(launcher: &mut Launcher<'_>, operands: &Operands<'_>) -> Result<()> {
    match operands.planned.operation {
        RmsNorm => norm::rms_norm(launcher, operands),
        Rope => rope::rope(launcher, operands),
        CacheStore => cache::cache_store(launcher, operands),
        Attention => attention::attention(launcher, operands),
        Add => elementwise::add(launcher, operands),
        Mul => elementwise::mul(launcher, operands),
        Unary => elementwise::unary(launcher, operands),
        Gated => elementwise::gated(launcher, operands),
        TopK => router::top_k(launcher, operands),
        Pick => router::pick(launcher, operands),
        Combine => mix::combine(launcher, operands),
        RmsMatch => norm::rms_match(launcher, operands),
        Sparsify => norm::sparsify(launcher, operands),
        Copy => elementwise::copy(launcher, operands),
        NormAdd => norm::norm_add(launcher, operands),
        NormRope => rope::norm_rope(launcher, operands),
        MixCoefficients => mix::mix_coefficients(launcher, operands),
        Rows => product::rows(launcher, operands),
        Product | ExpertProduct | ProductAdd | Products | GatedProduct | ExpertProductAdd | GatedExpertProduct => {
            product::product(launcher, operands)
        }
    }
}

/// The type as it stands in the names of kernels.
pub fn spelled(ty: Type) -> &'static str {
    match ty {
        Type::F32 => "f32",
        Type::F16 => "f16",
        Type::BF16 => "bf16",
        Type::Q4_0 => "q4_0",
        Type::Q4_1 => "q4_1",
        Type::Q5_0 => "q5_0",
        Type::Q5_1 => "q5_1",
        Type::Q8_0 => "q8_0",
        Type::Q2_K => "q2_k",
        Type::Q3_K => "q3_k",
        Type::Q4_K => "q4_k",
        Type::Q5_K => "q5_k",
        Type::Q6_K => "q6_k",
        Type::IQ4_NL => "iq4_nl",
        Type::IQ4_XS => "iq4_xs",
        Type::MXFP4 => "mxfp4",
        Type::I32 => "i32",
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
