//! `mix_coefficients`: the router of gemma3n's streams, four small nodes in one.

use backend_api::{
    BackendError, Result,
    graph::{Graph, Node},
    operations::word,
};

use super::{norm::inverse_rms, split, tables::decode};
use crate::{
    lanes::{dot, kernel, tanh},
    program::{Context, Operands},
    view::{PackedF32, Real, View},
};

/// The most streams: their weights stay on the stack between the two products.
const STREAMS: usize = 64;

/// Refuses more streams than are served.
pub fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let streams = node.input(2).and_then(|t| graph.tensor(t)).map_or(0, |a| a.dims[1]);
    if streams as usize > STREAMS {
        return Err(BackendError::unsupported(format!(
            "mix_coefficients of {streams} rows; {STREAMS} are served"
        )));
    }
    Ok(())
}

/// Bytes for both matrices in f32.
pub fn workspace(graph: &Graph<'_>, node: &Node) -> u64 {
    let values = |input| {
        node.input(input)
            .and_then(|t| graph.tensor(t))
            .map_or(0, |w| w.values())
    };
    4 * (values(2) + values(3))
}

kernel! {
    /// tanh(r·(a·x)).
    fn weigh(a: &[f32], x: &[f32], r: f32) -> f32 {
        tanh::<L>(r * dot::<L>(a, x))
    }
}

/// F·tanh(in·A·(rms(x)·w)). The norm's weights go into A, once for all columns.
pub fn mix_coefficients(context: &Context<'_>, operands: &Operands<'_>) {
    let [x, a, f] = [0, 2, 3].map(|i| operands.input(i));
    let (w, output) = (operands.input(1).packed_row([0; 3]), operands.output());
    let (epsilon, inner) = (
        operands.f32(word::mix_coefficients::EPSILON),
        operands.f32(word::mix_coefficients::IN),
    );
    let (d, n) = (a.dims()[0], a.dims()[1]);
    // SAFETY: the workspace has room for both, side by side, and this node alone uses it.
    let [first, second] = unsafe {
        [(0, a), (4 * a.values(), f)].map(|(offset, w)| {
            std::slice::from_raw_parts_mut(context.workspace.part::<f32>(offset, w.values()), w.values())
        })
    };
    decode_all(a, first);
    decode_all(f, second);
    first.chunks_exact_mut(d).for_each(|row| scale(row, w));
    let (first, second) = (&*first, &*second);
    split::rows(context, output.rows(), d * n, |column| {
        let i = output.row_index(column);
        let x = x.row(i);
        let r = inner * inverse_rms(context.kernels, x, epsilon);
        let mut weights = [0.0; STREAMS];
        for (weight, row) in weights.iter_mut().zip(first.chunks_exact(d)) {
            *weight = weigh(context.kernels, row, x, r);
        }
        // SAFETY: columns are disjoint, and the output shares no byte with an input.
        let y = unsafe { output.row_mut::<f32>(i) };
        for (y, row) in y.iter_mut().zip(second.chunks_exact(n)) {
            *y = row.iter().zip(&weights).map(|(f, weight)| f * weight).sum();
        }
    });
}

/// All rows of a matrix in f32, side by side.
fn decode_all(matrix: &View, out: &mut [f32]) {
    for (i, row) in out.chunks_exact_mut(matrix.dims()[0]).enumerate() {
        decode(matrix, matrix.row_index(i), row);
    }
}

fn scale(row: &mut [f32], w: &[PackedF32]) {
    row.iter_mut().zip(w).for_each(|(a, w)| *a *= w.get());
}
