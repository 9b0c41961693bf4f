use super::*;
use crate::operations::PickMode;

#[test]
fn top_k_is_descending_with_ties_by_index_and_nan_last() {
    let mut b = Bench::new(2, 1);
    let x = b.values(
        &[5, 2],
        &[
            1.,
            3.,
            f32::NAN,
            3.,
            f32::NEG_INFINITY,
            0.,
            -0.,
            f32::NAN,
            f32::NAN,
            f32::NAN,
        ],
    );
    let y = b.ids(&[5, 2], &[]);
    b.run(node(Operation::TopK, &[x], y)).unwrap();
    assert_eq!(b.read_ids(y), [1, 3, 0, 4, 2, 0, 1, 2, 3, 4]);
}

#[test]
fn top_k_takes_no_more_than_there_are() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 1], &[1., 2.]);
    let y = b.ids(&[3, 1], &[]);
    assert!(b.run(node(Operation::TopK, &[x], y)).is_err());
}

fn picked(mode: PickMode) -> Vec<f32> {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[3, 1], &[1000., 1001., 1002.]);
    let ids = b.ids(&[2, 1], &[2, 0]);
    let y = b.blank(&[2, 1]);
    b.run(
        node(Operation::Pick, &[x, ids], y)
            .with(0, mode as u32)
            .with_f32(1, 2.0),
    )
    .unwrap();
    b.read(y)
}

#[test]
fn pick_scales_or_normalizes_over_the_picked_or_over_all() {
    let e = std::f64::consts::E;
    assert_eq!(picked(PickMode::Scale), [2004., 2000.]);
    assert_close(
        &picked(PickMode::SoftmaxPicked),
        &[2. * e * e / (1. + e * e), 2. / (1. + e * e)],
    );
    let all = 1. + e + e * e;
    assert_close(&picked(PickMode::SoftmaxAll), &[2. * e * e / all, 2. / all]);
}

#[test]
fn pick_names_an_id_that_is_no_entry() {
    let mut b = Bench::new(1, 1);
    let (x, ids, y) = (b.values(&[2, 1], &[1., 2.]), b.ids(&[1, 1], &[2]), b.blank(&[1, 1]));
    let error = b.run(node(Operation::Pick, &[x, ids], y)).unwrap_err();
    assert!(error.message.contains("id 2 is none of 2"), "{error}");
}

#[test]
fn combine_sums_experts_onto_the_residual_in_place() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[2, 2, 2], &[1., 2., 3., 4., 5., 6., 7., 8.]);
    let c = b.values(&[2, 1, 2], &[0.5, 2., 1., 0.]);
    let base = b.values(&[2, 1, 2], &[100., 200., 300., 400.]);
    b.run(node(Operation::Combine, &[x, c, base], base)).unwrap();
    assert_eq!(b.read(base), [106.5, 209., 305., 406.]);
}

#[test]
fn combine_adds_c0_to_each_coefficient() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 1, 1], &[3.]);
    let c = b.values(&[1, 2, 1], &[0., 1.]);
    let y = b.blank(&[1, 2, 1]);
    b.run(node(Operation::Combine, &[x, c], y).with_f32(0, 1.0)).unwrap();
    assert_eq!(b.read(y), [3., 6.]);
}

#[test]
fn combine_without_coefficients_sums_over_streams() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[1, 3, 1], &[1., 2., 4.]);
    let y = b.blank(&[1, 1, 1]);
    let absent = crate::graph::ABSENT;
    b.run(node(Operation::Combine, &[x, absent, absent], y).with_f32(0, 0.5))
        .unwrap();
    assert_eq!(b.read(y), [3.5]);
    let two = b.blank(&[1, 2, 1]);
    assert!(b.run(node(Operation::Combine, &[x], two)).is_err());
}
