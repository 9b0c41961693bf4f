//! Weights that files spell in several ways: other names, and rows of larger tensors.

use backend_api::{graph::Tensor, types::Type};
use models::{
    gguf::{Gguf, GgufWriter},
    graph::{Builder, CacheLayout, Content, Graph, Shape},
    names::{Names, Rows},
    weights::{Weight, Weights},
};

fn file(tensors: &[(&str, &[u64], Type)]) -> Gguf {
    let mut writer = GgufWriter::new();
    for (name, dims, ty) in tensors {
        let values: u64 = dims.iter().product();
        let bytes = values as usize / ty.block_values() * ty.block_bytes();
        writer.tensor(name, dims, *ty, vec![0; bytes]).unwrap();
    }
    Gguf::from_bytes("test.gguf", writer.to_bytes()).unwrap()
}

fn shape() -> Shape {
    Shape {
        tokens: 1,
        rows: 1,
        sequences: 1,
        context: 16,
        page_tokens: 16,
        pages: Vec::new(),
        cache_types: [Type::F32; 2],
    }
}

/// The tensors of a graph that asks for these weights in order, and the graph.
fn built(weights: &[Weight]) -> Graph {
    let (shape, cache) = (shape(), CacheLayout::default());
    let mut builder = Builder::new(&shape, &cache);
    weights.iter().for_each(|weight| {
        builder.weight(weight);
    });
    builder.finish()
}

fn dims_strides_offset(tensor: &Tensor) -> ([u32; 4], [i64; 2], u64) {
    (tensor.dims, [tensor.strides[0], tensor.strides[1]], tensor.offset)
}

#[test]
fn parts_of_a_fused_matrix_are_views_of_one_buffer() {
    let file = file(&[("fused", &[32, 10], Type::Q8_0)]);
    let weights = Weights::new(&file);
    let [a, b] = Rows::in_order([6, 4]);
    let part = |name, rows, m| {
        let names = Names::new(name).or_rows("fused", rows);
        weights.matrix(names, &[32, m]).unwrap()
    };
    let parts = [part("a", a, 6), part("b", b, 4), part("a", a, 6)];
    let graph = built(&parts);
    assert_eq!(graph.buffers.len(), 1);
    assert_eq!(
        (&graph.buffers[0].content, graph.buffers[0].bytes),
        (&Content::Weight(0), 340)
    );
    let views: Vec<_> = graph.tensors.iter().map(dims_strides_offset).collect();
    let whole = ([32, 10, 1, 1], [34, 34], 0);
    assert_eq!(
        views,
        [whole, ([32, 6, 1, 1], [34, 34], 0), ([32, 4, 1, 1], [34, 34], 204)]
    );
}

#[test]
fn rows_that_take_turns_are_views_that_step_over_each_other() {
    let file = file(&[("fused", &[32, 6, 2], Type::MXFP4), ("bias", &[6, 2], Type::F32)]);
    let weights = Weights::new(&file);
    let [_, odd] = Rows::in_turn::<2>(3);
    let weight = weights
        .matrix(Names::new("up").or_rows("fused", odd), &[32, 3, 2])
        .unwrap();
    let bias = weights.vector(Names::new("up").or_rows("bias", odd), &[3, 2]).unwrap();
    let graph = built(&[weight, bias]);
    let [_, weight, _, bias] = graph.tensors.as_slice() else {
        panic!("{} tensors", graph.tensors.len())
    };
    assert_eq!(dims_strides_offset(weight), ([32, 3, 2, 1], [17, 34], 17));
    assert_eq!(weight.strides[2], 6 * 17);
    assert_eq!(dims_strides_offset(bias), ([3, 2, 1, 1], [8, 24], 4));
}

#[test]
fn parts_of_a_widened_bias_are_views_of_what_it_is_widened_to() {
    let file = file(&[("fused", &[10], Type::F16)]);
    let [_, b] = Rows::in_order([6, 4]);
    let b = Weights::new(&file)
        .vector(Names::new("b").or_rows("fused", b), &[4])
        .unwrap();
    let graph = built(&[b]);
    assert_eq!(
        (&graph.buffers[0].content, graph.buffers[0].bytes),
        (&Content::Widened(0), 40)
    );
    assert_eq!(dims_strides_offset(&graph.tensors[1]), ([4, 1, 1, 1], [4, 40], 24));
}

#[test]
fn a_tensor_of_its_own_comes_before_rows_of_another_and_one_name_may_mean_both() {
    let both = file(&[("up", &[4, 8], Type::F32), ("gate_up", &[4, 16], Type::F32)]);
    let [_, second] = Rows::in_order([8, 8]);
    let names = || Names::new("up").or_rows("gate_up", second);
    assert_eq!(Weights::new(&both).matrix(names(), &[4, 8]).unwrap().slice, None);

    let fused = file(&[("up", &[4, 16], Type::F32)]);
    let names = || Names::new("up").or_rows("up", second);
    assert_eq!(
        Weights::new(&fused)
            .matrix(names(), &[4, 8])
            .unwrap()
            .slice
            .unwrap()
            .rows,
        second
    );
}

#[test]
fn an_error_names_every_spelling_that_would_do() {
    let file = file(&[("qkv.weight", &[4, 7], Type::F32)]);
    let [q, _] = Rows::in_order([6, 2]);
    let names = Names::new("q")
        .or("query")
        .or_rows("qkv", q)
        .with(".weight")
        .within("blk.0");
    let error = Weights::new(&file).matrix(names, &[4, 6]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.gguf: tensor \"blk.0.q.weight\" is missing; the architecture needs it as [4, 6]\n\
         hint: \"blk.0.query.weight\", or \"blk.0.qkv.weight\" of 8 rows that hold it would do as well"
    );
    let names = Names::new("q").or_rows("qkv", q).with(".weight");
    let error = Weights::new(&file).matrix(names, &[4, 6]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test.gguf: tensor \"qkv.weight\" is F32 [4, 7], where [4, 8] is expected"
    );
}

#[test]
fn a_tensor_that_is_not_fused_is_not_blamed_for_one_that_is_missing() {
    let file = file(&[("up", &[4, 8], Type::F32)]);
    let [first, _] = Rows::in_order([8, 8]);
    let names = Names::new("gate").or_rows("up", first);
    let error = Weights::new(&file).matrix(names, &[4, 8]).unwrap_err().to_string();
    assert!(error.contains("\"gate\" is missing"), "{error}");
}

#[test]
fn a_bias_may_be_absent_beside_one_whose_name_could_stand_for_both() {
    let file = file(&[("up", &[8], Type::F32)]);
    let [first, _] = Rows::in_order([8, 8]);
    let names = || Names::new("gate").or_rows("up", first);
    assert_eq!(Weights::new(&file).optional_vector(names(), &[8]).unwrap(), None);
    assert!(Weights::new(&file).optional_vector(names(), &[7]).is_err());
}
