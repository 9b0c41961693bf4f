//! How many bytes an operation has to read and write, whatever it really does: what its time is compared with.

use backend_api::{
    graph::Step,
    operations::{
        Operation::{self, *},
        word,
    },
};

use crate::{product, program::Operands, view::View};

/// Bytes of weights, cache and activations that the node touches in this step. Weights count once a step, of experts only
/// those that ids can choose; of a cache only what its sequences' windows can hold.
pub fn bytes(operation: Operation, operands: &Operands<'_>, step: &Step) -> u64 {
    let all: usize = match operation {
        Attention => attention(operands, step),
        Rows => 2 * size(operands.output()),
        CacheStore => size(operands.input(0)),
        _ => product::traffic(operation, operands).unwrap_or_else(|| plain(operands)),
    };
    all as u64
}

/// Bytes of all values of a view.
pub fn size(view: &View) -> usize {
    let ty = view.ty();
    view.dims()[0].div_ceil(ty.block_values()) * ty.block_bytes() * view.rows()
}

fn plain(operands: &Operands<'_>) -> usize {
    operands.inputs().map(size).sum::<usize>() + size(operands.output())
}

/// Keys and values of every sequence's last tokens.
fn attention(operands: &Operands<'_>, step: &Step) -> usize {
    let (k, v, starts) = (operands.input(1), operands.input(2), operands.input(4));
    let sequences = (1..starts.dims()[0])
        .filter(|&s| starts.i32(s, [0; 3]) > starts.i32(s - 1, [0; 3]))
        .count();
    let tokens = match operands.word(word::attention::WINDOW_KIND) {
        0 => step.context,
        _ => step
            .context
            .min(operands.word(word::attention::WINDOW).saturating_add(step.tokens)),
    };
    let a_token = |pool: &View| size(pool) / (pool.dims()[1] * pool.dims()[3]).max(1);
    let columns = size(operands.input(0)) + size(operands.output());
    columns + sequences * tokens as usize * (a_token(k) + a_token(v))
}
