use super::*;
use crate::{
    graph::{Role, Symbol},
    operations::{Gate, UnaryKind},
    types::Type,
};

#[test]
fn add_broadcasts_dimensions_of_1_but_never_dimension_0() {
    let mut b = Bench::new(2, 1);
    let a = b.values(&[2, 1, 2], &[1., 2., 3., 4.]);
    let bias = b.values(&[2], &[10., 20.]);
    b.run(node(Operation::Add, &[a, bias], a).with_f32(0, 0.5).with_f32(1, -1.0))
        .unwrap();
    assert_eq!(b.read(a), [-4.5, -9., -3.5, -8.]);
    let one = b.values(&[1], &[1.]);
    assert!(b.run(node(Operation::Add, &[a, one], a)).is_err());
}

#[test]
fn add_reads_b_through_any_stride() {
    let mut b = Bench::new(1, 1);
    let a = b.values(&[2, 2], &[0.; 4]);
    let whole = b.values(&[2, 2], &[1., 2., 3., 4.]);
    let transposed = b.view(whole, |t| t.strides.swap(0, 1));
    b.run(
        node(Operation::Add, &[a, transposed], a)
            .with_f32(0, 1.0)
            .with_f32(1, 1.0),
    )
    .unwrap();
    assert_eq!(b.read(a), [1., 3., 2., 4.]);
}

#[test]
fn mul_multiplies_with_broadcast() {
    let mut b = Bench::new(2, 1);
    let a = b.values(&[2, 2], &[1., 2., 3., 4.]);
    let s = b.values(&[2], &[2., -1.]);
    b.run(node(Operation::Mul, &[a, s], a)).unwrap();
    assert_eq!(b.read(a), [2., -2., 6., -4.]);
}

#[test]
fn unary_scales_inside_and_outside() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2], &[0.5, -2.]);
    let y = b.blank(&[2]);
    let unary = |kind: UnaryKind| {
        node(Operation::Unary, &[x], y)
            .with(0, kind as u32)
            .with_f32(1, 2.)
            .with_f32(2, 3.)
    };
    b.run(unary(UnaryKind::Identity)).unwrap();
    assert_eq!(b.read(y), [3., -12.]);
    b.run(unary(UnaryKind::Tanh)).unwrap();
    assert_close(&b.read(y), &[3. * 1f64.tanh(), -3. * 4f64.tanh()]);
}

fn gated(gate: Gate, g: f32, u: f32) -> f32 {
    let mut b = Bench::new(1, 1);
    let (g, u) = (b.values(&[1], &[g]), b.values(&[1], &[u]));
    let words = |n: Node| n.with(0, gate as u32).with_f32(1, 1.702).with_f32(2, 7.);
    b.run(words(node(Operation::Gated, &[g, u], u))).unwrap();
    let in_place_of_u = b.read(u)[0];
    b.run(node(Operation::Gated, &[g, u], g)).unwrap();
    in_place_of_u
}

#[test]
fn gates_have_their_published_values() {
    assert_close(&[gated(Gate::Silu, 1., 2.)], &[2. / (1. + (-1f64).exp())]);
    assert_eq!(gated(Gate::Silu, -200., 2.), 0.);
    // PyTorch's gelu(1, approximate="tanh").
    assert_close(&[gated(Gate::GeluTanh, 1., 2.)], &[2. * 0.841_192]);
    assert_close(
        &[gated(Gate::SwigluOai, 9., -9.)],
        &[7. / (1. + (-1.702f64 * 7.).exp()) * -6.],
    );
    assert_close(
        &[gated(Gate::SwigluOai, -9., 9.)],
        &[-9. / (1. + (1.702f64 * 9.).exp()) * 8.],
    );
}

#[test]
fn copy_gathers_strides_and_converts_to_nearest_even() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 2], &[1., 65519., 1. + 2f32.powi(-11), -0.]);
    let transposed = b.view(x, |t| t.strides.swap(0, 1));
    let halves = b.bytes(Role::Activation, Type::F16, &[2, 2], &[]);
    b.run(node(Operation::Copy, &[transposed], halves)).unwrap();
    let place = &b.draft.tensors[halves as usize];
    let found = &b.memory[place.buffer as usize][place.offset as usize..][..8];
    assert_eq!(
        found,
        [0x3c00u16, 0x3c00, 0x7bff, 0x8000].map(u16::to_le_bytes).concat()
    );
    let back = b.blank(&[2, 2]);
    b.run(node(Operation::Copy, &[halves], back)).unwrap();
    assert_eq!(b.read(back), [1., 1., 65504., -0.]);
}

#[test]
fn copy_of_one_type_keeps_every_bit() {
    let mut b = Bench::new(1, 1);
    let signalling = f32::from_bits(0x7f80_0001);
    let x = b.values(&[2], &[signalling, f32::from_bits(0xffff_ffff)]);
    let y = b.blank(&[2]);
    b.run(node(Operation::Copy, &[x], y)).unwrap();
    let bits: Vec<u32> = b.read_ids(y).into_iter().map(|i| i as u32).collect();
    assert_eq!(bits, [0x7f80_0001, 0xffff_ffff]);
    let ids = b.ids(&[2], &[i32::MIN, i32::MAX]);
    let copied = b.ids(&[2], &[]);
    b.run(node(Operation::Copy, &[ids], copied)).unwrap();
    assert_eq!(b.read_ids(copied), [i32::MIN, i32::MAX]);
    assert!(b.run(node(Operation::Copy, &[ids], y)).is_err());
}

#[test]
fn a_symbol_along_dimension_0_of_ids_is_served() {
    let mut b = Bench::new(3, 1);
    let x = b.ids(&[3], &[1, 2, 3]);
    let y = b.ids(&[3], &[]);
    b.tokens(&[(x, 0), (y, 0)]);
    b.step(node(Operation::Copy, &[x], y), 2, 1).unwrap();
    assert_eq!(b.read_ids(y), [1, 2, -1]);
    assert_eq!(b.draft.tensors[y as usize].symbol, Symbol::Tokens as u8);
}
