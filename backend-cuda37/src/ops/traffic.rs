//! How many bytes an operation has to read and write, whatever it really does: what its time is compared with.

use backend_api::{
    graph::{ABSENT, Step},
    operations::{Operation::*, word},
};

use crate::launch::{Operand, Operands};

/// Bytes of weights, cache and activations that the node touches in this step. Weights count once a step, of experts only
/// as many as ids can choose; of a cache as much as the window of the longest sequence holds, for each sequence that may
/// be there.
pub fn bytes(operands: &Operands<'_>, step: &Step) -> u64 {
    let output = size(operands.output());
    match operands.planned.operation {
        Attention => attention(operands, step),
        Rows => 2 * output,
        CacheStore => size(operands.input(0)),
        ExpertProduct | ExpertProductAdd => output + experts(operands, 2),
        GatedExpertProduct => output + experts(operands, 3),
        _ => output + inputs(operands).map(size).sum::<u64>(),
    }
}

/// Bytes of all values of a tensor in the step.
fn size(operand: &Operand) -> u64 {
    let blocks = operand.dims[0].div_ceil(operand.ty.block_values() as u32);
    u64::from(blocks) * operand.ty.block_bytes() as u64 * u64::from(operand.rows())
}

fn inputs<'a>(operands: &Operands<'a>) -> impl Iterator<Item = &'a Operand> {
    let there = operands.planned.node.inputs.iter().filter(|&&input| input != ABSENT);
    there.map(|&input| &operands.tensors[input as usize])
}

/// The inputs of a product with experts that `ids`, an input, chooses; weights and biases have the experts as last dim.
fn experts(operands: &Operands<'_>, ids: usize) -> u64 {
    let chosen = operands.input(ids).values();
    let share = |operand: &Operand| match operand.dims[2] {
        n if n > 1 => size(operand) / u64::from(n) * chosen.min(u64::from(n)),
        _ => size(operand),
    };
    let weights = operands.planned.node.inputs[1..ids]
        .iter()
        .filter(|&&input| input != ABSENT);
    let weights = weights.map(|&input| share(&operands.tensors[input as usize]));
    size(operands.input(0)) + weights.sum::<u64>()
}

fn attention(operands: &Operands<'_>, step: &Step) -> u64 {
    let (q, k, v, starts) = (
        operands.input(0),
        operands.input(1),
        operands.input(2),
        operands.input(4),
    );
    let columns = q.dims[2];
    let sequences = starts.dims[0].saturating_sub(1).min(columns);
    let tokens = match operands.word(word::attention::WINDOW_KIND) {
        0 => step.context,
        _ => step
            .context
            .min(operands.word(word::attention::WINDOW).saturating_add(columns)),
    };
    let a_token = |pool: &Operand| size(pool) / u64::from(pool.dims[1] * pool.dims[3]).max(1);
    let cache = u64::from(sequences) * u64::from(tokens) * (a_token(k) + a_token(v));
    size(q) + size(operands.output()) + cache
}
