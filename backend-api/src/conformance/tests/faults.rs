//! Faults that backends really have, each of which the suite must catch, and for the right reason.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    double::{Double, Fault},
    report,
};
use crate::{
    conformance::{
        Verdict,
        image::{blocks, bytes_of_i32, f32_of_bytes},
    },
    error::Result,
    graph::{ABSENT, Graph, Node, Step, Tensor},
    operations::{Operation, word},
    reference::evaluate,
    types::Type,
};

/// The suite finds the fault in this operation, and a failure's reason has these words.
fn caught<F: Fault>(operation: Operation, ty: Type, words: &str) {
    let report = report::<F>(Some(&[operation]), Some(&[ty]));
    let reasons: Vec<_> = report
        .failures()
        .map(|c| format!("{}: {:?}", c.label, c.verdict))
        .collect();
    assert!(
        reasons.iter().any(|r| r.contains(words)),
        "{words:?} is not in {reasons:#?}"
    );
}

/// Defines a fault by how it evaluates a node.
macro_rules! fault {
    ($name:ident, |$graph:ident, $node:ident, $buffers:ident, $step:ident| $body:expr) => {
        struct $name;
        impl Fault for $name {
            fn evaluate($graph: &Graph<'_>, $node: &Node, $buffers: &mut [Vec<u8>], $step: &Step) -> Result<()> {
                $body
            }
        }
    };
}

fn output<'a>(graph: &Graph<'a>, node: &Node) -> &'a Tensor {
    graph.tensor(node.output).unwrap()
}

/// Evaluates while the bytes of an input's buffer are changed.
fn with_input(
    graph: &Graph<'_>,
    node: &Node,
    (buffers, step): (&mut [Vec<u8>], &Step),
    input: usize,
    change: impl FnOnce(&mut [u8]),
) -> Result<()> {
    let buffer = graph.tensor(node.inputs[input]).unwrap().buffer as usize;
    let kept = buffers[buffer].clone();
    change(&mut buffers[buffer]);
    let done = evaluate(graph, node, buffers, step);
    buffers[buffer] = kept;
    done
}

fn each_i32(bytes: &mut [u8], change: impl Fn(i32) -> i32) {
    for word in bytes.as_chunks_mut::<4>().0 {
        *word = change(i32::from_le_bytes(*word)).to_le_bytes();
    }
}

fn each_f32(tensor: &Tensor, step: &Step, buffers: &mut [Vec<u8>], change: impl Fn(f32) -> f32) {
    for (_, at) in blocks(tensor, step) {
        let word = &mut buffers[tensor.buffer as usize][at..at + 4];
        let value = f32_of_bytes(word)[0];
        word.copy_from_slice(&change(value).to_le_bytes());
    }
}

fn with_word(node: &Node, word: usize, change: impl Fn(u32) -> u32) -> Node {
    node.with(word, change(node.params[word]))
}

fault!(WritesPastItsEnd, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    let tensor = output(graph, node);
    let end = (tensor.offset + tensor.extent().unwrap_or(0)) as usize;
    buffers[tensor.buffer as usize][end..end + 4].fill(0);
    Ok(())
});

fault!(WritesBetweenRows, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    let tensor = output(graph, node);
    if !tensor.is_contiguous() && step.tokens > 1 {
        let end = tensor.offset as usize + 4 * tensor.dims[0] as usize;
        buffers[tensor.buffer as usize][end..end + 4].fill(0);
    }
    Ok(())
});

fault!(WritesAllOfT, |graph, node, buffers, _step| evaluate(
    graph,
    node,
    buffers,
    &graph.largest_step()
));

fault!(ReadsGarbagePastT, |graph, node, buffers, step| {
    let x = *graph.tensor(node.inputs[0]).unwrap();
    let past = blocks(&x, &graph.largest_step()).last().map_or(0, |&(_, at)| at);
    let last = f32_of_bytes(&buffers[x.buffer as usize][past..past + 4])[0];
    evaluate(graph, node, buffers, step)?;
    if step.tokens < graph.tokens {
        each_f32(output(graph, node), step, buffers, |y| y + last.max(0.0) * 1e-3);
    }
    Ok(())
});

fault!(ChangesItsInput, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    let x = graph.tensor(node.inputs[0]).unwrap();
    if x.buffer != output(graph, node).buffer {
        each_f32(x, step, buffers, |x| x * 2.0);
    }
    Ok(())
});

fault!(ChangesItsWeight, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    buffers[graph.tensor(node.inputs[1]).unwrap().buffer as usize][0] ^= 1;
    Ok(())
});

fault!(ZeroesBeforeItReads, |graph, node, buffers, step| {
    each_f32(output(graph, node), step, buffers, |_| 0.0);
    evaluate(graph, node, buffers, step)
});

fault!(SplitsByT, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    if step.tokens > 4 {
        each_f32(output(graph, node), step, buffers, |y| y * (1.0 + f32::EPSILON));
    }
    Ok(())
});

fault!(SplitsByContext, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    if step.context > 20 {
        each_f32(output(graph, node), step, buffers, |y| y * (1.0 + f32::EPSILON));
    }
    Ok(())
});

fault!(RoundsWhereItMustBeExact, |graph, node, buffers, step| {
    let x = *graph.tensor(node.inputs[0]).unwrap();
    let kept = buffers[x.buffer as usize].clone();
    each_f32(&x, step, buffers, |x| half::bf16::from_f32(x).to_f32());
    evaluate(graph, node, buffers, step)?;
    buffers[x.buffer as usize] = kept;
    Ok(())
});

fault!(OffByOnePage, |graph, node, buffers, step| {
    with_input(graph, node, (buffers, step), 5, |table| {
        each_i32(table, |page| if page > 0 { page - 1 } else { page })
    })
});

fault!(WindowTooWide, |graph, node, buffers, step| {
    let node = with_word(node, word::attention::WINDOW, |w| if w > 0 { w + 1 } else { 0 });
    evaluate(graph, &node, buffers, step)
});

fault!(WindowTooNarrow, |graph, node, buffers, step| {
    let node = with_word(node, word::attention::WINDOW, |w| if w > 1 { w - 1 } else { w });
    evaluate(graph, &node, buffers, step)
});

fault!(IgnoresSinks, |graph, node, buffers, step| {
    let mut node = *node;
    node.inputs[6] = ABSENT;
    evaluate(graph, &node, buffers, step)
});

fault!(IgnoresSoftcap, |graph, node, buffers, step| {
    evaluate(graph, &with_word(node, word::attention::SOFTCAP, |_| 0), buffers, step)
});

fault!(IgnoresTemperature, |graph, node, buffers, step| {
    evaluate(graph, &with_word(node, word::attention::BETA, |_| 0), buffers, step)
});

fault!(TakesNaNForLargest, |graph, node, buffers, step| {
    let change = |x: &mut [u8]| {
        for word in x.as_chunks_mut::<4>().0 {
            if f32::from_le_bytes(*word).is_nan() {
                *word = f32::INFINITY.to_le_bytes();
            }
        }
    };
    with_input(graph, node, (buffers, step), 0, change)
});

fault!(BreaksTiesUpwards, |graph, node, buffers, step| {
    let x = *graph.tensor(node.inputs[0]).unwrap();
    let y = output(graph, node);
    for t in 0..step.tokens as usize {
        let column = x.offset as usize + t * x.strides[1] as usize;
        let values = f32_of_bytes(&buffers[x.buffer as usize][column..column + 4 * x.dims[0] as usize]);
        let mut ids: Vec<i32> = (0..x.dims[0] as i32).rev().collect();
        ids.sort_by(|&a, &b| {
            values[b as usize]
                .partial_cmp(&values[a as usize])
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        let at = y.offset as usize + t * y.strides[1] as usize;
        let k = y.dims[0] as usize;
        buffers[y.buffer as usize][at..at + 4 * k].copy_from_slice(&bytes_of_i32(&ids[..k]));
    }
    Ok(())
});

fault!(ClampsIds, |graph, node, buffers, step| {
    let last = graph.tensor(node.inputs[0]).unwrap().dims[1] as i32 - 1;
    with_input(graph, node, (buffers, step), 1, |ids| {
        each_i32(ids, |id| id.clamp(0, last))
    })
});

fault!(TakesExpert0ForUnknown, |graph, node, buffers, step| {
    let n = graph.tensor(node.inputs[1]).unwrap().dims[2] as i32;
    with_input(graph, node, (buffers, step), 2, |ids| {
        each_i32(ids, |e| if (0..n).contains(&e) { e } else { 0 })
    })
});

fault!(StoresSkippedSlots, |graph, node, buffers, step| {
    with_input(graph, node, (buffers, step), 1, |slots| each_i32(slots, |s| s.max(0)))
});

fault!(TruncatesCodes, |graph, node, buffers, step| {
    let before = buffers.to_vec();
    evaluate(graph, node, buffers, step)?;
    let pool = output(graph, node);
    let (all, size) = (pool.buffer as usize, Type::Q8_0.block_bytes());
    for (i, (_, at)) in blocks(pool, step).into_iter().enumerate() {
        if before[all][at..at + size] != buffers[all][at..at + size] {
            let code = &mut buffers[all][at + 2 + i % 32];
            let towards_0 = (*code as i8) - (*code as i8).signum();
            *code = towards_0 as u8;
            let code = &mut buffers[all][at + 2 + (i + 1) % 32];
            *code = ((*code as i8) - (*code as i8).signum()) as u8;
        }
    }
    Ok(())
});

fault!(TruncatesCopies, |graph, node, buffers, step| {
    evaluate(graph, node, buffers, step)?;
    let (x, y) = (*graph.tensor(node.inputs[0]).unwrap(), output(graph, node));
    if (x.kind(), y.kind()) == (Some(Type::F32), Some(Type::BF16)) {
        for ((_, from), (_, to)) in blocks(&x, step).into_iter().zip(blocks(y, step)) {
            let high = [2, 3].map(|i| buffers[x.buffer as usize][from + i]);
            buffers[y.buffer as usize][to..to + 2].copy_from_slice(&high);
        }
    }
    Ok(())
});

fault!(MeanOfSquaresLessSquaredMean, |graph, node, buffers, step| {
    let (x, y) = (*graph.tensor(node.inputs[0]).unwrap(), output(graph, node));
    let d = x.dims[0] as usize;
    let values: Vec<f32> = blocks(&x, step)
        .into_iter()
        .map(|(_, at)| f32_of_bytes(&buffers[x.buffer as usize][at..at + 4])[0])
        .collect();
    let places = blocks(y, step);
    for (row, places) in values.chunks(d).zip(places.chunks(d)) {
        let mean = row.iter().sum::<f32>() / d as f32;
        let variance = row.iter().map(|x| x * x).sum::<f32>() / d as f32 - mean * mean;
        let cut = mean + node.f32(word::sparsify::S) * variance.max(0.0).sqrt();
        for (x, &(_, at)) in row.iter().zip(places) {
            buffers[y.buffer as usize][at..at + 4].copy_from_slice(&(x - cut).max(0.0).to_le_bytes());
        }
    }
    Ok(())
});

fault!(TakesFollowingRows, |graph, node, buffers, step| {
    let mut tensors = graph.tensors.to_vec();
    let w = &mut tensors[node.inputs[1] as usize];
    let row = Tensor::contiguous(w.kind().unwrap(), w.dims, 0, 0).unwrap().strides[1];
    w.strides[1] = row;
    let contiguous = Graph::new(&tensors, &graph.nodes, &graph.buffers, graph.tokens, graph.rows);
    evaluate(&contiguous, node, buffers, step)
});

fault!(FusesTheAngle, |graph, node, buffers, step| {
    let x = graph.tensor(node.inputs[0]).unwrap();
    if node.params[word::rope::LAYOUT] == 0 || !x.is_contiguous() || node.inputs[0] == node.output {
        return evaluate(graph, node, buffers, step);
    }
    let floats = |i: usize| f32_of_bytes(&buffers[graph.tensor(node.inputs[i]).unwrap().buffer as usize]);
    let (values, positions, freq) = (floats(0), floats(1), floats(2));
    evaluate(graph, node, buffers, step)?;
    let (hd, h) = (x.dims[0] as usize, x.dims[1] as usize);
    for row in 0..h * step.tokens as usize {
        let p = f64::from(positions[row / h].to_bits());
        for (j, f) in freq.iter().enumerate() {
            let at = row * hd + 2 * j;
            let (sin, cos) = (p * f64::from(*f)).sin_cos();
            let u = f64::from(node.f32(word::rope::MAGNITUDE))
                * (f64::from(values[at]) * cos - f64::from(values[at + 1]) * sin);
            let out = &mut buffers[output(graph, node).buffer as usize];
            out[4 * at..4 * at + 4].copy_from_slice(&(u as f32).to_le_bytes());
        }
    }
    Ok(())
});

fault!(SharesHeadsInTurn, |graph, node, buffers, step| {
    let [q, y] = [node.inputs[0], node.output].map(|t| *graph.tensor(t).unwrap());
    let swap = |tensor: &Tensor, buffers: &mut [Vec<u8>]| {
        let size = 4 * tensor.dims[0] as usize;
        for t in 0..step.tokens as usize {
            let at = tensor.offset as usize + t * tensor.strides[2] as usize;
            let heads = [1, 2].map(|h| at + h * tensor.strides[1] as usize);
            let bytes = &mut buffers[tensor.buffer as usize];
            let first = bytes[heads[0]..heads[0] + size].to_vec();
            bytes.copy_within(heads[1]..heads[1] + size, heads[0]);
            bytes[heads[1]..heads[1] + size].copy_from_slice(&first);
        }
    };
    if q.dims[1] != 4 || q.symbol != 1 {
        return evaluate(graph, node, buffers, step);
    }
    swap(&q, buffers);
    evaluate(graph, node, buffers, step)?;
    swap(&q, buffers);
    swap(&y, buffers);
    Ok(())
});

#[test]
fn writes_where_nothing_is_to_be_written() {
    caught::<WritesPastItsEnd>(Operation::RmsNorm, Type::F32, "was written: outside");
    caught::<WritesPastItsEnd>(Operation::Add, Type::F32, "it is no output element");
    caught::<WritesBetweenRows>(Operation::Mul, Type::F32, "strided output: Failed(\"byte");
    caught::<WritesAllOfT>(Operation::RmsNorm, Type::F32, "it is no output element");
    caught::<WritesAllOfT>(Operation::Unary, Type::F32, "in place: Failed(\"byte");
    caught::<ChangesItsInput>(Operation::Gated, Type::F32, "it is no output element");
    caught::<ChangesItsWeight>(Operation::Product, Type::Q8_0, "is only read");
    caught::<StoresSkippedSlots>(Operation::CacheStore, Type::F16, "was changed");
}

#[test]
fn reads_what_it_must_not() {
    caught::<ReadsGarbagePastT>(Operation::Add, Type::F32, "normalized mean squared error");
    caught::<ZeroesBeforeItReads>(Operation::RmsNorm, Type::F32, "in place: Failed(\"norm");
    caught::<OffByOnePage>(Operation::Attention, Type::F16, "is NaN");
    caught::<WindowTooWide>(Operation::Attention, Type::F32, "Sliding");
    caught::<TakesFollowingRows>(Operation::Product, Type::Q4_0, "strided inputs: Failed");
}

#[test]
fn computes_something_else() {
    caught::<WindowTooNarrow>(Operation::Attention, Type::Q8_0, "normalized mean squared error");
    caught::<SharesHeadsInTurn>(Operation::Attention, Type::F32, "normalized mean squared error");
    caught::<FusesTheAngle>(Operation::Rope, Type::F32, "Pairs");
    caught::<IgnoresSinks>(Operation::Attention, Type::F32, "sinks: Failed");
    caught::<IgnoresSoftcap>(Operation::Attention, Type::F32, "softcap: Failed");
    caught::<IgnoresTemperature>(Operation::Attention, Type::F32, "β: Failed");
    caught::<BreaksTiesUpwards>(Operation::TopK, Type::F32, "ties: Failed");
    caught::<TakesNaNForLargest>(Operation::TopK, Type::F32, "with NaN: Failed");
    caught::<ClampsIds>(Operation::Rows, Type::Q4_K, "normalized mean squared error");
    caught::<TakesExpert0ForUnknown>(Operation::ExpertProduct, Type::F32, "normalized mean squared error");
    caught::<MeanOfSquaresLessSquaredMean>(Operation::Sparsify, Type::F32, "mean 300: Failed");
}

#[test]
fn rounds_wrongly() {
    caught::<RoundsWhereItMustBeExact>(Operation::Product, Type::Q4_0, "exact: Failed");
    caught::<RoundsWhereItMustBeExact>(Operation::Product, Type::F16, "normalized mean squared error");
    caught::<TruncatesCodes>(Operation::CacheStore, Type::Q8_0, "no rounding to nearest");
    caught::<TruncatesCopies>(Operation::Copy, Type::F32, "expected exactly");
}

#[test]
fn rounding_within_the_class_of_the_type_passes() {
    let report = report::<RoundsWhereItMustBeExact>(Some(&[Operation::Product]), Some(&[Type::Q4_0]));
    let failed = |c: &super::super::CaseReport| matches!(c.verdict, Verdict::Failed(_));
    assert!(report.cases.iter().all(|c| failed(c) == c.label.ends_with("exact")));
}

#[test]
fn columns_depend_on_each_other() {
    caught::<SplitsByT>(Operation::Product, Type::F32, "has other bits");
    caught::<SplitsByT>(Operation::RmsNorm, Type::F32, "has other bits");
    caught::<SplitsByContext>(Operation::Attention, Type::F32, "has other bits");
}

struct KnowsEverything;

impl Fault for KnowsEverything {
    fn supports(_: &Graph<'_>, _: &Node) -> Result<()> {
        Ok(())
    }
}

struct RefusesViews;

impl Fault for RefusesViews {
    fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
        match graph.tensor(node.inputs[0]).is_none_or(Tensor::is_contiguous) {
            true => crate::validate::node(graph, node).map(drop),
            false => Err(crate::BackendError::unsupported("views are not served")),
        }
    }
}

#[test]
fn serves_or_refuses_against_its_duties() {
    for words in [
        "unknown operations",
        "unknown parameters",
        "missing inputs",
        "unknown types",
    ] {
        caught::<KnowsEverything>(Operation::RmsNorm, Type::F32, words);
    }
    caught::<KnowsEverything>(Operation::Attention, Type::F32, "unknown parameters");
    caught::<RefusesViews>(Operation::Copy, Type::F32, "whoever serves the operation serves this");
    let report = report::<RefusesViews>(Some(&[Operation::Add]), None);
    assert!(report.passed());
    assert!(report.refusals()["views are not served"] > 3);
}

struct ForgetsWorkspace;

impl Fault for ForgetsWorkspace {
    fn needs(workspace: u64) -> u64 {
        workspace / 2
    }
}

struct OverrunsWorkspace;

impl Fault for OverrunsWorkspace {
    fn scratch(memory: &mut [u8], workspace: u64) {
        memory[workspace as usize] = 0;
    }
}

static ASKED: AtomicU64 = AtomicU64::new(0);

struct ChangesItsMind;

impl Fault for ChangesItsMind {
    fn workspace(_: &Graph<'_>, _: &Node) -> u64 {
        ASKED.fetch_add(4, Ordering::Relaxed)
    }
}

struct NeedsMoreForLess;

impl Fault for NeedsMoreForLess {
    fn workspace(graph: &Graph<'_>, _: &Node) -> u64 {
        4096 / u64::from(graph.tokens.max(1))
    }
}

#[test]
fn plans_wrongly() {
    caught::<ForgetsWorkspace>(Operation::Add, Type::F32, "needs a workspace of");
    caught::<OverrunsWorkspace>(Operation::Add, Type::F32, "workspace: byte");
    caught::<ChangesItsMind>(Operation::Add, Type::F32, "answers differently");
    caught::<NeedsMoreForLess>(Operation::Add, Type::F32, "but more for T");
}

struct Lenient;

impl Fault for Lenient {
    const LENIENT: bool = true;
}

#[test]
fn does_not_check_handles_and_ranges() {
    let options = crate::conformance::Options::default();
    let module = crate::plugin::module::<Double<Lenient>>();
    let session = crate::conformance::open(module, super::SERVICES, 0, &options).unwrap();
    let failed: Vec<String> = crate::conformance::duties::of_device(&session)
        .into_iter()
        .filter(|(_, v)| matches!(v, Verdict::Failed(_)))
        .map(|(label, _)| label)
        .collect();
    let expected = [
        "refuses unknown buffers",
        "frees a buffer once",
        "refuses ranges outside of a buffer",
    ];
    assert_eq!(failed, expected);
}
