use super::*;
use crate::{
    decode::decode_row,
    error::Result,
    graph::Tensor,
    operations::{Window, word},
    types::Type,
};

/// A pool [1, 2, 1, 2] of f32 after a store of 1, 2, … to these slots.
fn stored(slots: &[i32]) -> Vec<f32> {
    let mut b = Bench::new(slots.len() as u32, 1);
    let values: Vec<f32> = (1..=slots.len()).map(|v| v as f32).collect();
    let x = b.values(&[1, 1, slots.len() as u32], &values);
    let slots = b.ids(&[slots.len() as u32], slots);
    let pool = b.pool(Type::F32, &[1, 2, 1, 2], &[0.; 4]);
    b.run(node(Operation::CacheStore, &[x, slots], pool)).unwrap();
    b.read(pool)
}

#[test]
fn cache_store_skips_slots_out_of_range_and_changes_nothing_else() {
    assert_eq!(stored(&[3, -1, 0]), [3., 0., 0., 1.]);
    assert_eq!(stored(&[4, i32::MAX, i32::MIN]), [0.; 4]);
}

#[test]
fn cache_store_writes_a_cell_of_every_head() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 2, 1], &[5., 6.]);
    let slots = b.ids(&[1], &[3]);
    let pool = b.pool(Type::F32, &[1, 2, 2, 2], &[0.; 8]);
    b.run(node(Operation::CacheStore, &[x, slots], pool)).unwrap();
    assert_eq!(b.read(pool), [0., 0., 0., 0., 0., 5., 0., 6.]);
}

#[test]
fn cache_store_encodes_as_the_pools_type_says() {
    for (ty, error) in [(Type::F16, 0.001), (Type::Q8_0, 0.02), (Type::Q4_0, 0.3)] {
        let mut b = Bench::new(1, 1);
        let values: Vec<f32> = (0..32).map(|i| (i as f32 - 16.) / 8.).collect();
        let x = b.values(&[32, 1, 1], &values);
        let slots = b.ids(&[1], &[1]);
        let pool = b.pool(ty, &[32, 2, 1, 1], &[0.; 64]);
        b.run(node(Operation::CacheStore, &[x, slots], pool)).unwrap();
        let Tensor {
            buffer,
            offset,
            strides,
            ..
        } = b.draft.tensors[pool as usize];
        let cell = &b.memory[buffer as usize][offset as usize + strides[1] as usize..][..strides[1] as usize];
        let mut decoded = [0.; 32];
        decode_row(ty, cell, &mut decoded).unwrap();
        let worst = decoded
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).abs())
            .fold(0., f32::max);
        assert!(worst <= error, "{ty}: {worst}");
    }
}

/// A cache of two-token pages with one head of one entry; the value of token i of a sequence is in `values`.
struct Attention {
    bench: Bench,
    node: Node,
    output: u32,
}

/// One column of query `q` at each of `positions`, in the sequences that `starts` and `table` describe.
fn attention(q: &[f32], positions: &[i32], starts: &[i32], table: &[i32], k: &[f32], v: &[f32]) -> Attention {
    let (t, s) = (q.len() as u32, starts.len() as u32 - 1);
    let mut b = Bench::new(t, 1);
    let pages = k.len() as u32 / 2;
    let inputs = [
        b.values(&[1, 1, t], q),
        b.pool(Type::F32, &[1, 2, 1, pages], k),
        b.pool(Type::F32, &[1, 2, 1, pages], v),
        b.ids(&[t], positions),
        b.ids(&[s + 1], starts),
        b.ids(&[table.len() as u32 / s, s], table),
    ];
    let output = b.blank(&[1, 1, t]);
    Attention {
        bench: b,
        node: node(Operation::Attention, &inputs, output).with_f32(word::attention::SCALE, 1.0),
        output,
    }
}

impl Attention {
    fn with(mut self, word: usize, value: f32) -> Self {
        self.node = self.node.with_f32(word, value);
        self
    }

    fn windowed(mut self, kind: Window, w: u32) -> Self {
        self.node = self
            .node
            .with(word::attention::WINDOW_KIND, kind as u32)
            .with(word::attention::WINDOW, w);
        self
    }

    fn evaluated(mut self) -> Result<Vec<f32>> {
        self.bench.run(self.node)?;
        Ok(self.bench.read(self.output))
    }
}

const NAN: f32 = f32::NAN;

#[test]
fn a_position_sees_itself_and_what_came_before() {
    let v = [1., 3., 8., NAN];
    let all = attention(&[0., 0., 0.], &[0, 1, 2], &[0, 3], &[0, 1], &[0.; 4], &v);
    assert_close(&all.evaluated().unwrap(), &[1., 2., 4.]);
}

#[test]
fn weights_are_the_softmax_of_scaled_scores() {
    let one = attention(&[2.], &[1], &[0, 1], &[0], &[0., 1.], &[0., 1.]).with(word::attention::SCALE, 0.5);
    assert_close(&one.evaluated().unwrap(), &[1. / (1. + (-1f64).exp())]);
}

#[test]
fn tables_give_each_sequence_its_pages_and_absent_sequences_are_empty() {
    let v = [10., 20., 30., NAN, 5., 7.];
    let table = [2, -1, -1, -1, 0, 1];
    let two = attention(&[0., 0.], &[1, 2], &[0, 1, 1, 2], &table, &[0.; 6], &v);
    assert_close(&two.evaluated().unwrap(), &[6., 20.]);
}

#[test]
fn windows_never_look_at_pages_that_slid_out() {
    let (k, v, table) = ([0.; 4], [4., 8., NAN, NAN], [-1, -1, 0]);
    let sliding = || attention(&[0.], &[5], &[0, 1], &table, &k, &v);
    assert_close(&sliding().windowed(Window::Sliding, 2).evaluated().unwrap(), &[6.]);
    assert_close(&sliding().windowed(Window::Sliding, 1).evaluated().unwrap(), &[8.]);
    assert_close(&sliding().windowed(Window::Chunked, 4).evaluated().unwrap(), &[6.]);
    let error = sliding().windowed(Window::Sliding, 3).evaluated().unwrap_err();
    assert!(
        error.message.contains("position 3 of sequence 0 is in page -1"),
        "{error}"
    );
    let early = attention(&[0.], &[1], &[0, 1], &[0], &[0.; 2], &[1., 3.]).windowed(Window::Sliding, 9);
    assert_close(&early.evaluated().unwrap(), &[2.]);
}

#[test]
fn chunks_begin_at_multiples_of_the_window() {
    let v = [1., 2., 4., 8.];
    let columns = attention(&[0.; 4], &[0, 1, 2, 3], &[0, 4], &[0, 1], &[0.; 4], &v).windowed(Window::Chunked, 2);
    assert_close(&columns.evaluated().unwrap(), &[1., 1.5, 4., 6.]);
}

#[test]
fn the_cap_bends_scores() {
    let capped = attention(&[100.], &[1], &[0, 1], &[0], &[0., 1.], &[0., 1.]).with(word::attention::SOFTCAP, 2.);
    assert_close(&capped.evaluated().unwrap(), &[1. / (1. + (-2. * 50f64.tanh()).exp())]);
}

#[test]
fn beta_raises_the_scale_with_every_span() {
    for (position, spans) in [(1, 0.), (2, 1.), (3, 1.)] {
        let mut k = [0.; 4];
        k[position] = 1.;
        let mut at = attention(&[1.], &[position as i32], &[0, 1], &[0, 1], &k, &k).with(word::attention::BETA, 0.5);
        at.node = at.node.with(word::attention::SPAN, 2);
        let e = (1.0 + 0.5 * (1.0f64 + spans).ln()).exp();
        assert_close(&at.evaluated().unwrap(), &[e / (e + position as f64)]);
    }
}

#[test]
fn sinks_take_a_share_that_carries_no_value() {
    let mut at = attention(&[0.], &[1], &[0, 1], &[0], &[0., 0.], &[2., 4.]);
    at.node.inputs[6] = at.bench.values(&[1], &[2f32.ln()]);
    assert_close(&at.evaluated().unwrap(), &[1.5]);
}

#[test]
fn a_sink_is_neither_scaled_nor_capped() {
    let mut at = attention(&[0.], &[0], &[0, 1], &[0], &[0., 0.], &[1., 0.]).with(word::attention::SOFTCAP, 1.);
    at = at.with(word::attention::SCALE, 0.1);
    at.node.inputs[6] = at.bench.values(&[1], &[200.]);
    let expected = (-200f64).exp();
    assert!((f64::from(at.evaluated().unwrap()[0]) - expected).abs() <= 1e-30);
}

#[test]
fn query_heads_share_the_heads_of_the_cache() {
    let mut b = Bench::new(1, 1);
    let inputs = [
        b.values(&[1, 4, 1], &[0.; 4]),
        b.pool(Type::F32, &[1, 1, 2, 1], &[0.; 2]),
        b.pool(Type::F32, &[2, 1, 2, 1], &[1., 2., 3., 4.]),
        b.ids(&[1], &[0]),
        b.ids(&[2], &[0, 1]),
        b.ids(&[1, 1], &[0]),
    ];
    let y = b.blank(&[2, 4, 1]);
    b.run(node(Operation::Attention, &inputs, y)).unwrap();
    assert_eq!(b.read(y), [1., 2., 1., 2., 3., 4., 3., 4.]);
}

#[test]
fn what_the_host_vouches_for_is_named_where_it_is_wrong() {
    let broken = |positions: &[i32], starts: &[i32], table: &[i32]| {
        let at = attention(&[0.], positions, starts, table, &[0.; 2], &[0.; 2]);
        at.evaluated().unwrap_err().message.into_string()
    };
    assert!(broken(&[0], &[0, 0], &[0]).contains("column 0 is in no sequence"));
    assert!(broken(&[-1], &[0, 1], &[0]).contains("negative position"));
    assert!(broken(&[2], &[0, 1], &[0]).contains("position 2 lies beyond"));
    assert!(broken(&[0], &[0, 1], &[1]).contains("page 1 of 1"));
}
