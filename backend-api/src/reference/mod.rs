//! What each operation means: plain functions on bytes, slow and in f64, that serve no one at run time.
//!
//! Results are rounded to f32 once, at the end; what is rounded before that (rope's angle) says so. A composite is what
//! its decomposition computes, with temporaries in f32.

mod cache;
mod call;
mod elementwise;
mod norms;
mod products;
mod rope;
mod routing;

#[cfg(test)]
mod tests;

use crate::{
    decompose::decompose,
    draft::Draft,
    error::{BackendError, Result},
    graph::{Graph, Node, Step},
    operations::Operation,
    validate,
};
use call::{Call, Write};

/// Evaluates all nodes of a graph in order; as [`evaluate`].
///
/// # Errors
/// As [`evaluate`], with the node's index in front. Nodes before it have taken effect.
pub fn run(graph: &Graph<'_>, buffers: &mut [Vec<u8>], step: &Step) -> Result<()> {
    graph.nodes.iter().enumerate().try_for_each(|(i, node)| {
        evaluate(graph, node, buffers, step)
            .map_err(|e| BackendError::new(e.code(), format!("node {i}, operation {}: {e}", node.operation)))
    })
}

/// Evaluates one node for a step of T′ = `step.tokens` and R′ = `step.rows`. `buffers[i]` is the memory of
/// `graph.buffers[i]`, at least as long. Nothing but the output's own elements in this step is written, and nothing at
/// all after an error.
///
/// # Errors
/// Those of [`validate::node`]; `Invalid` for a step larger than the graph's, for buffers too few or too short, for ids
/// of `pick` out of range, and where attention finds a column in no sequence, or no page in the table for a position
/// that it sees.
pub fn evaluate(graph: &Graph<'_>, node: &Node, buffers: &mut [Vec<u8>], step: &Step) -> Result<()> {
    let operation = validate::node(graph, node)?;
    check(graph, buffers, step)?;
    if operation.is_composite() {
        return composite(graph, node, buffers, step);
    }
    let call = Call::new(graph, node, buffers, step)?;
    let writes = if call.dims.contains(&0) {
        Vec::new()
    } else {
        primitive(operation, &call)?
    };
    let output = &mut buffers[call.output.buffer as usize];
    for Write { offset, bytes } in writes {
        output[offset..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(())
}

fn check(graph: &Graph<'_>, buffers: &[Vec<u8>], step: &Step) -> Result<()> {
    if step.tokens > graph.tokens || step.rows > graph.rows {
        return Err(BackendError::invalid(format!(
            "a step of {} tokens and {} rows is larger than the graph's {} and {}",
            step.tokens, step.rows, graph.tokens, graph.rows
        )));
    }
    if buffers.len() != graph.buffers.len() {
        let message = format!(
            "{} buffers are bound, the graph has {}",
            buffers.len(),
            graph.buffers.len()
        );
        return Err(BackendError::invalid(message));
    }
    let short = buffers
        .iter()
        .zip(graph.buffers.iter())
        .position(|(b, g)| (b.len() as u64) < g.bytes);
    short.map_or(Ok(()), |i| {
        let (found, expected) = (buffers[i].len(), graph.buffers[i].bytes);
        Err(BackendError::invalid(format!(
            "buffer {i} has {found} bytes, expected {expected}"
        )))
    })
}

fn primitive(operation: Operation, call: &Call<'_>) -> Result<Vec<Write>> {
    let values = match operation {
        Operation::CacheStore => return cache::cache_store(call),
        Operation::Copy => return elementwise::copy(call),
        Operation::Rows => products::rows(call),
        Operation::Product => products::product(call),
        Operation::ExpertProduct => products::expert_product(call),
        Operation::RmsNorm => norms::rms_norm(call),
        Operation::RmsMatch => norms::rms_match(call),
        Operation::Sparsify => norms::sparsify(call),
        Operation::Rope => rope::rope(call),
        Operation::Attention => cache::attention(call),
        Operation::Add => elementwise::add(call),
        Operation::Mul => elementwise::mul(call),
        Operation::Unary => elementwise::unary(call),
        Operation::Gated => elementwise::gated(call),
        Operation::TopK => routing::top_k(call),
        Operation::Pick => routing::pick(call),
        Operation::Combine => routing::combine(call),
        composite => Err(BackendError::failed(format!(
            "{} has no meaning of its own",
            composite.name()
        ))),
    }?;
    call.writes(&values)
}

/// Temporaries hold garbage (NaN) before they are written, as activations do.
fn composite(graph: &Graph<'_>, node: &Node, buffers: &mut [Vec<u8>], step: &Step) -> Result<()> {
    let mut draft = Draft::from(graph);
    let primitives = decompose(&mut draft, node)?.unwrap_or_default();
    let mut all: Vec<Vec<u8>> = buffers.iter_mut().map(std::mem::take).collect();
    let temporaries = &draft.buffers[buffers.len()..];
    all.extend(temporaries.iter().map(|b| vec![0xFF; b.bytes as usize]));
    let outcome = primitives
        .iter()
        .try_for_each(|part| evaluate(&draft.graph(), part, &mut all, step));
    buffers.iter_mut().zip(all).for_each(|(buffer, used)| *buffer = used);
    outcome
}
