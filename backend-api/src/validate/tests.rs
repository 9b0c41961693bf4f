use super::*;
use crate::{
    graph::{Buffer, Node},
    operations::Operation,
    testing::Bench,
};

/// A bench with x [2, T = 4], W [2, 3] and y [3, T], and their product.
fn product() -> (Bench, Node) {
    let mut b = Bench::new(4, 2);
    let (x, w, y) = (b.values(&[2, 4], &[]), b.weight(&[2, 3], &[]), b.blank(&[3, 4]));
    b.tokens(&[(x, 1), (y, 1)]);
    (b, Node::new(Operation::Product.id(), &[x, w], y))
}

/// Checks the product after a change to its graph.
fn changed(change: impl FnOnce(&mut Bench, &mut Node)) -> Result<Operation> {
    let (mut b, mut n) = product();
    change(&mut b, &mut n);
    node(&b.draft.graph(), &n)
}

#[track_caller]
fn refused(code: Code, sentence: &str, change: impl FnOnce(&mut Bench, &mut Node)) {
    let error = changed(change).unwrap_err();
    assert_eq!((error.code(), error.message.as_str()), (code, sentence));
}

fn check(b: &Bench, operation: Operation, inputs: &[u32], output: u32) -> Result<Operation> {
    node(&b.draft.graph(), &Node::new(operation.id(), inputs, output))
}

#[track_caller]
fn fails(found: Result<Operation>, part: &str) {
    let error = found.unwrap_err();
    assert!(error.message.contains(part), "{error}");
}

const X: usize = 0;
const W: usize = 1;
const Y: usize = 2;

#[test]
fn a_proper_node_is_known_by_its_operation() {
    assert_eq!(changed(|_, _| ()), Ok(Operation::Product));
}

#[test]
fn every_operation_has_a_shape_for_each_input_and_the_output() {
    for operation in Operation::ALL {
        assert_eq!(
            shapes(operation).len(),
            operation.inputs().len() + 1,
            "{}",
            operation.name()
        );
        assert!(
            in_place(operation)
                .iter()
                .all(|n| operation.inputs().iter().any(|i| i.trim_end_matches('?') == *n))
        );
        assert!(parameters(operation).len() <= 7);
    }
}

#[test]
fn inputs_are_those_of_the_operation() {
    refused(Code::Unsupported, "operation 18 is not known", |_, n| n.operation = 18);
    refused(Code::Invalid, "product: w is missing", |_, n| n.inputs[1] = ABSENT);
    refused(Code::Invalid, "product: output is missing", |_, n| n.output = ABSENT);
    refused(
        Code::Invalid,
        "product: takes 2 inputs, but input 3 is there",
        |_, n| n.inputs[3] = 0,
    );
    refused(Code::Invalid, "product: x is tensor 9 of 3", |_, n| n.inputs[0] = 9);
}

#[test]
fn types_are_those_of_the_operand() {
    refused(
        Code::Unsupported,
        "product: w has type 4, which is not known",
        |b, _| b.draft.tensors[W].ty = 4,
    );
    refused(Code::Invalid, "product: x is F16, expected F32", |b, _| {
        (b.draft.tensors[X].ty, b.draft.tensors[X].strides) = (1, [2, 4, 0, 0]);
    });
    refused(
        Code::Invalid,
        "product: w has rows of 2 values, no multiple of Q8_0's 32",
        |b, _| {
            b.draft.tensors[W].ty = Type::Q8_0.id();
        },
    );
}

#[test]
fn sizes_and_symbols_agree() {
    refused(
        Code::Invalid,
        "product: w has 1 in dimension 0, expected 2 as in x",
        |b, _| {
            b.draft.tensors[W].dims[0] = 1;
        },
    );
    refused(
        Code::Invalid,
        "product: output has 4 in dimension 1, expected T (up to 4) as in x",
        |b, _| {
            b.draft.tensors[Y].symbol = 0;
        },
    );
    refused(
        Code::Invalid,
        "product: x has 4 for Rows, whose maximum is 2",
        |b, _| b.draft.tensors[X].symbol = 2,
    );
    refused(
        Code::Unsupported,
        "product: x has symbol 3, which is not known",
        |b, _| b.draft.tensors[X].symbol = 3,
    );
    refused(
        Code::Invalid,
        "product: x is symbolic along dimension 4 of 4",
        |b, _| b.draft.tensors[X].axis = 4,
    );
    refused(Code::Invalid, "product: w has 4 in dimension 2, expected 1", |b, _| {
        b.draft.tensors[W].dims = [2, 1, 4, 1];
        b.draft.tensors[W].strides[2] = 8;
        b.draft.buffers[W].bytes = 1000;
    });
    refused(
        Code::Invalid,
        "product: w is symbolic along dimension 1, which must be fixed",
        |b, _| {
            b.draft.tensors[W] = b.draft.tensors[W].symbolic(Symbol::Tokens, 1);
            b.draft.tensors[W].dims[1] = 4;
            b.draft.buffers[W].bytes = 1000;
        },
    );
    refused(
        Code::Invalid,
        "product: w has a dimension of 0: [2, 0, 1, 1]",
        |b, _| b.draft.tensors[W].dims[1] = 0,
    );
}

#[test]
fn no_dimension_above_the_symbolic_one_exceeds_1() {
    let sentence = "product: x has dims [2, 4, 2, 1]: those above the symbolic 1 must be 1, the others not 0";
    refused(Code::Invalid, sentence, |b, _| b.draft.tensors[X].dims[2] = 2);
}

#[test]
fn views_lie_within_buffers_of_their_role() {
    refused(Code::Invalid, "product: x lies in buffer 3 of 3", |b, _| {
        b.draft.tensors[X].buffer = 3
    });
    refused(
        Code::Invalid,
        "product: x ends at byte 44 of buffer 0, which has 43",
        |b, _| {
            (b.draft.tensors[X].offset, b.draft.buffers[X].bytes) = (12, 43);
        },
    );
    refused(
        Code::Invalid,
        "product: x ends at byte 2^64 and more of buffer 0, which has 48",
        |b, _| {
            b.draft.tensors[X].offset = u64::MAX - 3;
        },
    );
    refused(
        Code::Invalid,
        "product: w (F32) lies in a buffer of role Activation, where it cannot be",
        |b, _| {
            b.set_role(W as u32, Role::Activation);
        },
    );
    for role in [Role::Input, Role::Weight, Role::Constant] {
        assert!(changed(|b, _| b.set_role(Y as u32, role)).is_err());
    }
    assert!(changed(|b, _| b.set_role(Y as u32, Role::Output)).is_ok());
    refused(
        Code::Unsupported,
        "product: x has a buffer of role 6, which is not known",
        |b, _| {
            b.draft.buffers[X].role = 6;
        },
    );
}

#[test]
fn rows_are_dense_and_strides_are_multiples() {
    refused(
        Code::Invalid,
        "product: x skips elements along dimension 0: stride 8, expected 4",
        |b, _| {
            b.draft.tensors[X].strides[0] = 8;
        },
    );
    refused(
        Code::Invalid,
        "product: x has stride 6 in dimension 1, expected a positive multiple of 4",
        |b, _| {
            b.draft.tensors[X].strides[1] = 6;
        },
    );
    refused(
        Code::Invalid,
        "product: x has stride 0 in dimension 1, expected a positive multiple of 4",
        |b, _| {
            b.draft.tensors[X].strides[1] = 0;
        },
    );
    refused(
        Code::Invalid,
        "product: x begins at byte 6, expected a multiple of 4",
        |b, _| {
            b.draft.tensors[X].offset = 6;
        },
    );
    assert!(
        changed(|b, _| b.draft.tensors[W].offset = 3).is_ok(),
        "weights are aligned to nothing"
    );
}

#[test]
fn weights_are_never_cut_along_dimension_0() {
    refused(
        Code::Invalid,
        "product: w has stride 12 in dimension 1, expected a positive multiple of 8",
        |b, _| {
            (b.draft.tensors[W].strides[1], b.draft.buffers[W].bytes) = (12, 100);
        },
    );
    assert!(
        changed(|b, _| (b.draft.tensors[W].strides[1], b.draft.buffers[W].bytes) = (16, 100)).is_ok(),
        "every second row"
    );
}

#[test]
fn parameter_words_are_known() {
    refused(Code::Unsupported, "product: precision 2 is not known", |_, n| {
        n.params[0] = 2
    });
    refused(
        Code::Unsupported,
        "product: parameter word 1 is not 0, and has no meaning here",
        |_, n| n.params[1] = 1,
    );
    refused(
        Code::Unsupported,
        "product: x has reserved words that are not 0",
        |b, _| b.draft.tensors[X].reserved2 = 1,
    );
    let (mut b, _) = product();
    let x = b.values(&[2], &[]);
    let norm = Node::new(Operation::RmsNorm.id(), &[x], x).with_f32(0, f32::NAN);
    fails(node(&b.draft.graph(), &norm), "parameter word 0 is not a number");
}

#[test]
fn an_output_replaces_only_what_its_row_names() {
    let mut b = Bench::new(4, 1);
    let (x, other) = (b.values(&[4, 4], &[]), b.values(&[4, 4], &[]));
    assert!(check(&b, Operation::Add, &[x, other], x).is_ok());
    fails(check(&b, Operation::Add, &[other, x], x), "output shares bytes with b");
    fails(check(&b, Operation::Add, &[x, x], x), "output shares bytes with b");
    assert!(check(&b, Operation::Gated, &[x, x], x).is_ok());
    let shifted = b.view(x, |t| (t.dims[1], t.offset) = (3, t.offset + 16));
    let start = b.slice(x, 1, 0, 3);
    fails(
        check(&b, Operation::Unary, &[start], shifted),
        "output shares bytes with x",
    );
}

#[test]
fn an_output_may_interleave_with_its_inputs() {
    let mut b = Bench::new(4, 1);
    let fused = b.blank(&[6, 4]);
    let (q, k) = (b.slice(fused, 0, 0, 3), b.slice(fused, 0, 3, 3));
    assert!(check(&b, Operation::Add, &[q, k], q).is_ok());
    assert!(check(&b, Operation::Unary, &[q], k).is_ok());
    let overlapping = b.slice(fused, 0, 2, 3);
    fails(
        check(&b, Operation::Unary, &[q], overlapping),
        "output shares bytes with x",
    );
    fails(
        check(&b, Operation::Add, &[q, overlapping], q),
        "output shares bytes with b",
    );
    let folded = b.view(fused, |t| (t.dims, t.strides[1]) = ([4, 3, 1, 1], 8));
    let x = b.blank(&[4, 3]);
    fails(
        check(&b, Operation::Unary, &[x], folded),
        "elements of output share bytes",
    );
}

#[test]
fn the_same_bytes_as_another_view_are_not_in_place() {
    let mut b = Bench::new(4, 1);
    let x = b.values(&[4, 4], &[]);
    let folded = b.view(x, |t| t.dims = [2, 4, 1, 1]);
    let output = b.view(folded, |t| t.strides[1] = 8);
    fails(check(&b, Operation::Unary, &[folded], output), "not that same view");
    let symbolic = b.view(x, |t| *t = t.symbolic(Symbol::Tokens, 1));
    assert!(check(&b, Operation::Unary, &[symbolic], symbolic).is_ok());
}

fn attention(b: &mut Bench, heads: u32, sequences: u32) -> Node {
    let inputs = [
        b.values(&[8, heads, 4], &[]),
        b.pool(Type::F32, &[8, 2, 2, 3], &[]),
        b.pool(Type::F16, &[8, 2, 2, 3], &[]),
        b.ids(&[4], &[]),
        b.ids(&[3], &[]),
        b.ids(&[5, sequences], &[]),
    ];
    let output = b.blank(&[8, heads, 4]);
    Node::new(Operation::Attention.id(), &inputs, output)
}

#[test]
fn attention_has_whole_groups_of_heads_windows_and_spans() {
    let mut b = Bench::new(4, 1);
    let good = attention(&mut b, 4, 2);
    let at = |b: &Bench, n: &Node| node(&b.draft.graph(), n);
    assert_eq!(at(&b, &good), Ok(Operation::Attention));
    let odd = attention(&mut b, 3, 2);
    fails(at(&b, &odd), "q has 3 heads, no multiple of k's 2");
    let sequences = attention(&mut b, 4, 3);
    fails(
        at(&b, &sequences),
        "starts has 3 entries, expected one more than table's 3 sequences",
    );
    fails(
        at(&b, &good.with(word::attention::WINDOW_KIND, 1)),
        "the window has no positions",
    );
    fails(
        at(&b, &good.with(word::attention::WINDOW_KIND, 3)),
        "window 3 is not known",
    );
    fails(
        at(&b, &good.with_f32(word::attention::BETA, 0.1)),
        "beta stands without a span",
    );
    b.set_role(good.inputs[1], Role::Activation);
    fails(at(&b, &good), "k (F32) lies in a buffer of role Activation");
}

#[test]
fn products_have_pairs_in_order_whose_rows_fill_the_output() {
    let mut b = Bench::new(4, 1);
    let (x, w, bias) = (b.values(&[2, 4], &[]), b.weight(&[2, 3], &[]), b.values(&[3], &[]));
    let (y, short) = (b.blank(&[6, 4]), b.blank(&[5, 4]));
    assert!(check(&b, Operation::Products, &[x, w, bias, w], y).is_ok());
    fails(
        check(&b, Operation::Products, &[x, w, ABSENT, ABSENT, bias], y),
        "b2 is there without w2",
    );
    fails(
        check(&b, Operation::Products, &[x, w, ABSENT, ABSENT, ABSENT, w], y),
        "w3 is there without w2",
    );
    fails(
        check(&b, Operation::Products, &[x, w, bias, w], short),
        "output has 5 in dimension 0",
    );
}

#[test]
fn rope_turns_no_more_entries_than_a_head_has() {
    let mut b = Bench::new(4, 1);
    let (x, positions, freq) = (b.values(&[4, 2, 4], &[]), b.ids(&[4], &[]), b.values(&[3], &[]));
    fails(
        check(&b, Operation::Rope, &[x, positions, freq], x),
        "freq has 3 frequencies, but x only 4 entries",
    );
}

#[test]
fn tables_of_activations_are_f32() {
    let mut b = Bench::new(4, 1);
    let table = b.bytes(Role::Activation, Type::F16, &[2, 3], &[]);
    let (ids, y) = (b.ids(&[4], &[]), b.blank(&[2, 4]));
    fails(
        check(&b, Operation::Rows, &[table, ids], y),
        "table (F16) lies in a buffer of role Activation",
    );
    b.set_role(table, Role::Weight);
    assert!(check(&b, Operation::Rows, &[table, ids], y).is_ok());
}

#[test]
fn a_graph_names_the_node_at_fault() {
    let (mut b, n) = product();
    b.draft.nodes = vec![n, Node { output: 7, ..n }];
    let error = graph(&b.draft.graph()).unwrap_err();
    assert_eq!(error.message.as_str(), "node 1: product: output is tensor 7 of 3");
    b.draft.nodes.pop();
    assert_eq!(graph(&b.draft.graph()), Ok(()));
    b.draft.rows = 5;
    assert!(graph(&b.draft.graph()).is_err());
}

#[test]
fn no_words_of_a_graph_make_it_panic() {
    let (b, n) = product();
    let wild = [0, 1, 4, 7, 0x7fff_ffff, u32::MAX];
    for word in wild {
        for i in 0..4 {
            let mut draft = b.draft.clone();
            draft.tensors[X].dims[i] = word;
            draft.tensors[X].strides[i] = i64::from(word as i32) << 32;
            draft.tensors[Y].strides[i] = i64::MAX - i64::from(word);
            draft.buffers.push(Buffer {
                role: word,
                reserved: 0,
                bytes: u64::MAX,
            });
            draft.tensors[W].offset = u64::from(word) << 32;
            assert!(node(&draft.graph(), &n).is_err());
        }
        for operation in Operation::ALL {
            let all = Node {
                operation: operation.id(),
                inputs: [word; 12],
                output: word,
                params: [word; 16],
            };
            assert!(node(&b.draft.graph(), &all).is_err());
        }
    }
}
