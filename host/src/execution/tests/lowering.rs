use backend_api::{
    graph::{ABSENT, Node, Symbol, Tensor},
    operations::Operation::{self, *},
    types::Type,
};
use models::graph::{Buffer, Content, Graph, Input, Part};

use super::Double;
use crate::execution::{
    device::Target,
    lower::{Lowered, NotServed, lower},
};

/// A graph by hand, for steps of up to 4 tokens.
struct Sketch(Graph);

impl Sketch {
    fn new() -> Sketch {
        Sketch(Graph {
            tokens: 4,
            rows: 1,
            ..Graph::default()
        })
    }

    fn tensor(&mut self, content: Content, ty: Type, dims: [u32; 4], axis: Option<u8>) -> u32 {
        let tensor = Tensor::contiguous(ty, dims, self.0.buffers.len() as u32, 0).unwrap();
        self.0.buffers.push(Buffer {
            content,
            bytes: tensor.extent().unwrap(),
            layer: None,
        });
        self.0
            .tensors
            .push(axis.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis)));
        self.0.tensors.len() as u32 - 1
    }

    /// An activation `[d, T]`.
    fn values(&mut self, d: u32) -> u32 {
        self.tensor(Content::Activation, Type::F32, [d, 4, 1, 1], Some(1))
    }

    fn weight(&mut self, dims: [u32; 4]) -> u32 {
        self.tensor(Content::Weight(0), Type::F32, dims, None)
    }

    /// Entries `from..from + d` of each column.
    fn slice(&mut self, of: u32, from: u32, d: u32) -> u32 {
        let mut view = self.0.tensors[of as usize];
        view.dims[0] = d;
        view.offset = 4 * u64::from(from);
        self.0.tensors.push(view);
        self.0.tensors.len() as u32 - 1
    }

    fn node(&mut self, operation: Operation, inputs: &[u32], output: u32) {
        self.0.nodes.push(Node::new(operation.id(), inputs, output));
        self.0.node_layers.push(None);
    }

    /// Stores keys and values of one head of 8, and attends to them.
    fn cache(&mut self) {
        let [q, k, v, out] = [(); 4].map(|()| self.tensor(Content::Activation, Type::F32, [8, 1, 4, 1], Some(2)));
        let pools = [Part::Keys, Part::Values]
            .map(|part| self.tensor(Content::Pool { layer: 0, part }, Type::F32, [8, 16, 1, 2], None));
        let mut ids = |input, dims, axis| self.tensor(Content::Input(input), Type::I32, dims, axis);
        let [slots, positions] = [Input::Slots(0), Input::Positions].map(|input| ids(input, [4, 1, 1, 1], Some(0)));
        let (starts, table) = (
            ids(Input::Starts, [2, 1, 1, 1], None),
            ids(Input::Table(0), [2, 1, 1, 1], None),
        );
        self.node(CacheStore, &[k, slots], pools[0]);
        self.node(CacheStore, &[v, slots], pools[1]);
        self.node(Attention, &[q, pools[0], pools[1], positions, starts, table], out);
    }

    fn lower(self, doubles: &[Double<'_>]) -> Result<Lowered, NotServed> {
        let targets: Vec<Target> = ["a", "b", "c"].iter().zip(doubles).map(|(n, d)| d.target(n)).collect();
        let homes = vec![0; self.0.nodes.len()];
        lower(self.0, &targets, &homes)
    }
}

fn refusing(refuses: &[Operation]) -> Double<'_> {
    Double {
        refuses,
        ..Double::default()
    }
}

const NO_VIEWS: Double<'static> = Double {
    refuses: &[],
    refuses_views: true,
    discrete: false,
};

fn placed(lowered: &Lowered) -> Vec<(Operation, usize)> {
    let operation = |id| Operation::from_id(id).unwrap();
    lowered
        .nodes
        .iter()
        .map(|p| (operation(p.node.operation), p.target))
        .collect()
}

/// y = view + bias, in the place of a view of [12, T].
fn bias_on_a_view() -> Sketch {
    let mut sketch = Sketch::new();
    let whole = sketch.values(12);
    let (view, bias) = (sketch.slice(whole, 4, 8), sketch.weight([8, 1, 1, 1]));
    sketch.node(Add, &[view, bias], view);
    sketch
}

#[test]
fn a_refused_composite_becomes_its_parts_on_the_same_device() {
    let mut sketch = Sketch::new();
    let (x, r) = (sketch.values(8), sketch.values(6));
    let w = sketch.weight([8, 6, 1, 1]);
    sketch.node(ProductAdd, &[x, w, ABSENT, r], r);
    let lowered = sketch.lower(&[refusing(&[ProductAdd]), refusing(&[])]).unwrap();
    assert_eq!(placed(&lowered), [(Product, 0), (Add, 0)]);
    assert_eq!(lowered.refusals, []);
    assert_eq!(lowered.contents.len(), lowered.buffers.len());
}

#[test]
fn a_composite_falls_apart_only_as_far_as_it_must() {
    let mut sketch = Sketch::new();
    let (x, y) = (sketch.values(8), sketch.values(6));
    let (g, u) = (sketch.weight([8, 6, 1, 1]), sketch.weight([8, 6, 1, 1]));
    sketch.node(GatedProduct, &[x, g, u], y);
    let lowered = sketch
        .lower(&[refusing(&[GatedProduct, Gated]), refusing(&[])])
        .unwrap();
    assert_eq!(placed(&lowered), [(Products, 0), (Gated, 1)]);
}

#[test]
fn what_a_device_refuses_goes_to_the_next_that_serves_it_and_is_reported_with_the_first_reason() {
    let mut sketch = Sketch::new();
    let (x, y) = (sketch.values(8), sketch.values(8));
    sketch.node(RmsNorm, &[x], y);
    sketch.node(Sparsify, &[y], x);
    sketch.node(Sparsify, &[x], y);
    let doubles = [refusing(&[Sparsify]), refusing(&[Sparsify]), refusing(&[])];
    let lowered = sketch.lower(&doubles).unwrap();
    assert_eq!(placed(&lowered), [(RmsNorm, 0), (Sparsify, 2), (Sparsify, 2)]);
    let [refusal] = lowered.refusals.as_slice() else {
        panic!("{:?}", lowered.refusals)
    };
    assert_eq!((refusal.operation, refusal.nodes, refusal.target), ("sparsify", 2, 2));
    assert_eq!(refusal.reason, "no sparsify");
}

#[test]
fn what_no_device_serves_is_an_error_with_every_devices_reason() {
    let mut sketch = Sketch::new();
    let x = sketch.values(8);
    sketch.node(Sparsify, &[x], x);
    let error = sketch
        .lower(&[refusing(&[Sparsify]), refusing(&[Sparsify])])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no device serves operation sparsify: double:0 a: no sparsify; double:0 b: no sparsify"
    );
}

#[test]
fn a_refused_view_is_copied_before_and_after() {
    let lowered = bias_on_a_view().lower(&[NO_VIEWS]).unwrap();
    assert_eq!(placed(&lowered), [(Copy, 0), (Add, 0), (Copy, 0)]);
    let [before, node, after] = [0, 1, 2].map(|i| lowered.nodes[i].node);
    assert_eq!((before.inputs[0], after.output), (1, 1));
    // still in place, on the copy
    assert_eq!(
        (node.inputs[0], node.output, after.inputs[0]),
        (before.output, before.output, before.output)
    );
    let (copy, view) = (lowered.tensors[node.output as usize], lowered.tensors[1]);
    assert!(copy.is_contiguous());
    assert_eq!((copy.dims, copy.symbol, copy.axis), (view.dims, view.symbol, view.axis));
    assert_eq!(lowered.buffers[copy.buffer as usize].bytes, 4 * 8 * 4);
    assert_eq!(lowered.contents[copy.buffer as usize], Content::Activation);
}

#[test]
fn an_input_that_stands_twice_is_copied_once() {
    let mut sketch = Sketch::new();
    let (whole, y) = (sketch.values(12), sketch.values(8));
    let view = sketch.slice(whole, 0, 8);
    sketch.node(Gated, &[view, view], y);
    let lowered = sketch.lower(&[NO_VIEWS]).unwrap();
    assert_eq!(placed(&lowered), [(Copy, 0), (Gated, 0)]);
}

#[test]
fn where_copies_do_not_help_none_are_left() {
    let no_views_no_copies = Double {
        refuses: &[Copy],
        ..NO_VIEWS
    };
    let lowered = bias_on_a_view().lower(&[no_views_no_copies, refusing(&[])]).unwrap();
    assert_eq!(placed(&lowered), [(Add, 1)]);
    assert_eq!((lowered.tensors.len(), lowered.buffers.len()), (3, 2));
    assert_eq!(lowered.refusals[0].reason, "no views");
}

#[test]
fn the_next_device_gets_copies_too() {
    let lowered = bias_on_a_view().lower(&[refusing(&[Add]), NO_VIEWS]).unwrap();
    assert_eq!(placed(&lowered), [(Copy, 1), (Add, 1), (Copy, 1)]);
    assert_eq!((lowered.refusals[0].nodes, lowered.refusals[0].target), (1, 1));
}

#[test]
fn all_that_touch_a_pool_run_where_the_last_of_them_must() {
    for refused in [Attention, CacheStore] {
        let mut sketch = Sketch::new();
        sketch.cache();
        let lowered = sketch.lower(&[refusing(&[refused]), refusing(&[])]).unwrap();
        assert_eq!(placed(&lowered), [(CacheStore, 1), (CacheStore, 1), (Attention, 1)]);
        let followed = lowered.refusals.iter().find(|r| r.operation != refused.name()).unwrap();
        assert_eq!(followed.reason, "its cache lies on another device");
    }
}

#[test]
fn a_pool_that_no_device_serves_whole_is_an_error() {
    let mut sketch = Sketch::new();
    sketch.cache();
    let error = sketch
        .lower(&[refusing(&[Attention]), refusing(&[CacheStore])])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no device serves operation cache_store: double:0 b: no cache_store"
    );
}
