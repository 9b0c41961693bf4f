use super::*;
use crate::{graph::ABSENT, operations::Gate};

#[test]
fn product_add_adds_bias_and_residual_in_place() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[1, 2], &[1., 2.]);
    let w = b.weight(&[1, 2], &[3., 4.]);
    let bias = b.values(&[2], &[10., 20.]);
    let r = b.values(&[2, 2], &[100., 200., 300., 400.]);
    let y = b.blank(&[2, 2]);
    b.run(node(Operation::ProductAdd, &[x, w, bias], y)).unwrap();
    assert_eq!(b.read(y), [13., 24., 16., 28.]);
    b.run(node(Operation::ProductAdd, &[x, w, bias, r], r)).unwrap();
    assert_eq!(b.read(r), [113., 224., 316., 428.]);
    b.run(node(Operation::ProductAdd, &[x, w, ABSENT, r], y)).unwrap();
    assert_eq!(b.read(y), [116., 228., 322., 436.]);
}

#[test]
fn products_stack_their_rows() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[1, 2], &[1., 2.]);
    let (w1, w2, w3) = (
        b.weight(&[1, 2], &[1., 2.]),
        b.weight(&[1, 1], &[3.]),
        b.weight(&[1, 1], &[4.]),
    );
    let bias = b.values(&[1], &[0.5]);
    let y = b.blank(&[4, 2]);
    b.run(node(Operation::Products, &[x, w1, ABSENT, w2, bias, w3], y))
        .unwrap();
    assert_eq!(b.read(y), [1., 2., 3.5, 4., 2., 4., 6.5, 8.]);
}

#[test]
fn gated_product_gates_the_up_projection() {
    let mut b = Bench::new(3, 1);
    let x = b.values(&[1, 3], &[1., 2., 3.]);
    let (gate, up) = (b.weight(&[1, 2], &[1., -1.]), b.weight(&[1, 2], &[5., 7.]));
    let bias = b.values(&[2], &[1., 2.]);
    let y = b.values(&[2, 3], &[0.; 6]);
    b.tokens(&[(x, 1), (y, 1)]);
    let gated = node(Operation::GatedProduct, &[x, gate, up, ABSENT, bias], y).with(1, Gate::Silu as u32);
    b.step(gated, 2, 1).unwrap();
    let silu = |g: f64| g / (1. + (-g).exp());
    assert_close(
        &b.read(y),
        &[silu(1.) * 6., silu(-1.) * 9., silu(2.) * 11., silu(-2.) * 16., 0., 0.],
    );
}

#[test]
fn expert_product_add_takes_biases_by_ids() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 1, 1], &[2.]);
    let w = b.weight(&[1, 2, 2], &[1., 2., 3., 4.]);
    let ids = b.ids(&[2, 1], &[1, 0]);
    let bias = b.values(&[2, 2], &[10., 20., 30., 40.]);
    let y = b.blank(&[2, 2, 1]);
    b.run(node(Operation::ExpertProductAdd, &[x, w, ids, bias], y)).unwrap();
    assert_eq!(b.read(y), [36., 48., 12., 24.]);
}

#[test]
fn gated_expert_product_passes_the_gates_parameters_on() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 1, 1], &[2.]);
    let (gate, up) = (b.weight(&[1, 1, 2], &[1., 50.]), b.weight(&[1, 1, 2], &[0.5, 50.]));
    let ids = b.ids(&[2, 1], &[1, 0]);
    let bias = b.values(&[1, 2], &[1., 0.]);
    let y = b.blank(&[1, 2, 1]);
    let words = |n: Node| n.with(1, Gate::SwigluOai as u32).with_f32(2, 1.702).with_f32(3, 7.);
    b.run(words(node(Operation::GatedExpertProduct, &[x, gate, up, ids, bias], y)))
        .unwrap();
    let gate = |g: f64| g / (1. + (-f64::from(1.702f32) * g).exp());
    assert_close(&b.read(y), &[gate(7.) * 8., gate(3.) * 2.]);
}

#[test]
fn norm_add_broadcasts_the_normed_tensor_over_the_residual() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 1], &[1., 7.]);
    let w = b.values(&[2], &[5., 10.]);
    let r = b.values(&[2, 2], &[1., 2., 3., 4.]);
    b.run(node(Operation::NormAdd, &[x, w, r], r)).unwrap();
    assert_close(&b.read(r), &[2., 16., 4., 18.]);
    let x = b.values(&[2, 2], &[1., 7., 7., 1.]);
    let r = b.values(&[2, 2], &[0.; 4]);
    b.run(node(Operation::NormAdd, &[x, w, r], x)).unwrap();
    assert_close(&b.read(x), &[1., 14., 7., 2.]);
}

#[test]
fn norm_rope_rotates_what_it_normed() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 1, 1], &[1., 7.]);
    let w = b.values(&[2], &[5., 10.]);
    let positions = b.ids(&[1], &[1]);
    let freq = b.values(&[1], &[1.]);
    b.run(node(Operation::NormRope, &[x, w, positions, freq], x).with_f32(2, 1.0))
        .unwrap();
    let (s, c) = 1f64.sin_cos();
    assert_close(&b.read(x), &[c - 14. * s, 14. * c + s]);
}

#[test]
fn mix_coefficients_are_a_product_of_tanh() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 1], &[1., 7.]);
    let w = b.values(&[2], &[5., 5.]);
    let a = b.weight(&[2, 1], &[1., 1.]);
    let f = b.weight(&[1, 3], &[1., 2., -1.]);
    let y = b.blank(&[3, 1]);
    b.run(node(Operation::MixCoefficients, &[x, w, a, f], y).with_f32(1, 0.125))
        .unwrap();
    let t = 1f64.tanh();
    assert_close(&b.read(y), &[t, 2. * t, -t]);
}
