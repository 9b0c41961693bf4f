use super::*;
use crate::{
    error::Code,
    graph::{Step, Tensor},
    reference::run,
};

#[test]
fn a_step_writes_its_own_columns_only() {
    let mut b = Bench::new(3, 1);
    let x = b.values(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let w = b.weight(&[2, 1], &[1., 1.]);
    let y = b.values(&[1, 3], &[-1., -2., -3.]);
    b.tokens(&[(x, 1), (y, 1)]);
    b.step(node(Operation::Product, &[x, w], y), 2, 1).unwrap();
    assert_eq!(b.read(y), [3., 7., -3.]);
}

#[test]
fn an_empty_step_does_nothing() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[2, 1, 2], &[1.; 4]);
    let (positions, freq) = (b.ids(&[2], &[0, 1]), b.values(&[1], &[1.]));
    b.tokens(&[(x, 2), (positions, 0)]);
    b.step(node(Operation::Rope, &[x, positions, freq], x), 0, 0).unwrap();
    assert_eq!(b.read(x), [1.; 4]);

    let pool = b.pool(crate::types::Type::F32, &[2, 2, 1, 1], &[0.; 4]);
    b.step(node(Operation::CacheStore, &[x, positions], pool), 0, 0)
        .unwrap();
    assert_eq!(b.read(pool), [0.; 4]);

    let w = b.values(&[2], &[1.; 2]);
    b.step(node(Operation::NormRope, &[x, w, positions, freq], x), 0, 0)
        .unwrap();
    assert_eq!(b.read(x), [1.; 4]);
}

#[test]
fn run_takes_nodes_in_order() {
    let mut b = Bench::new(1, 1);
    let (x, w) = (b.values(&[1, 1], &[3.]), b.weight(&[1, 1], &[2.]));
    let (y, z) = (b.blank(&[1, 1]), b.blank(&[1, 1]));
    b.draft.nodes = vec![
        node(Operation::Product, &[x, w], y),
        node(Operation::Product, &[y, w], z),
    ];
    let step = b.draft.graph().largest_step();
    run(&b.draft.graph(), &mut b.memory, &step).unwrap();
    assert_eq!(b.read(z), [12.]);
    b.draft.nodes[1].operation = 99;
    let error = run(&b.draft.graph(), &mut b.memory, &step).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.message.starts_with("node 1, operation 99"), "{error}");
}

#[test]
fn memory_that_does_not_fit_the_graph_is_refused() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 1], &[3.]);
    let copy = node(Operation::Unary, &[x], x);
    let too_large = Step {
        tokens: 2,
        ..Step::default()
    };
    assert!(crate::reference::evaluate(&b.draft.graph(), &copy, &mut b.memory, &too_large).is_err());
    b.memory[0].pop();
    assert!(
        b.run(copy)
            .unwrap_err()
            .message
            .contains("buffer 0 has 19 bytes, expected 20")
    );
    b.memory.clear();
    assert!(
        b.run(copy)
            .unwrap_err()
            .message
            .contains("0 buffers are bound, the graph has 1")
    );
}

#[test]
fn strided_outputs_leave_the_gaps_alone() {
    let mut b = Bench::new(2, 1);
    let streams = b.values(&[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let stream = |b: &mut Bench, i: u64| {
        b.view(streams, |t: &mut Tensor| {
            (t.dims, t.offset) = ([2, 2, 1, 1], t.offset + 8 * i);
            t.strides[1] = t.strides[2];
        })
    };
    let (first, second) = (stream(&mut b, 0), stream(&mut b, 1));
    b.run(
        node(Operation::Add, &[first, second], first)
            .with_f32(0, 1.0)
            .with_f32(1, 10.0),
    )
    .unwrap();
    assert_eq!(b.read(streams), [31., 42., 3., 4., 75., 86., 7., 8.]);
}
