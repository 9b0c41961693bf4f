//! How much a model computes: the operations of its products.

use backend_api::operations::Operation;
use models::{
    architecture::Model,
    graph::{Content, Graph, Shape},
};

/// Multiplications and additions of all weights' products in a step of so many tokens with one wanted column.
pub fn operations(model: &Model, shape: &Shape) -> u64 {
    let graph = model.graph(shape);
    graph.nodes.iter().map(|node| of_node(&graph, node)).sum()
}

fn of_node(graph: &Graph, node: &backend_api::graph::Node) -> u64 {
    use Operation::*;
    let products = [
        Product,
        ExpertProduct,
        ProductAdd,
        Products,
        GatedProduct,
        ExpertProductAdd,
        GatedExpertProduct,
    ];
    if !products.iter().any(|operation| operation.id() == node.operation) {
        return 0;
    }
    let output = &graph.tensors[node.output as usize];
    let columns = u64::from(output.dims[1]) * u64::from(output.dims[2]);
    let inputs = node
        .inputs
        .iter()
        .filter_map(|&input| graph.tensors.get(input as usize));
    // biases have one dimension, so they count as nothing that matters
    let weights = inputs.filter(|t| {
        matches!(
            graph.buffers[t.buffer as usize].content,
            Content::Weight(_) | Content::Rewritten(_)
        )
    });
    weights
        .map(|w| 2 * u64::from(w.dims[0]) * u64::from(w.dims[1]) * columns)
        .sum()
}
