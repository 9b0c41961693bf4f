use super::*;
use crate::operations::RopeLayout;

#[test]
fn rms_norm_divides_by_the_root_mean_square_in_place() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 2], &[1., 7., 0., 0.]);
    let w = b.values(&[2], &[2., 1.]);
    b.run(node(Operation::RmsNorm, &[x, w], x).with_f32(0, 0.25)).unwrap();
    let r = 1.0 / 25.25f64.sqrt();
    assert_close(&b.read(x), &[2. * r, 7. * r, 0., 0.]);
}

#[test]
fn rms_norm_takes_heads_as_rows_and_no_weight() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[1, 2, 2], &[3., -2., 5., 0.5]);
    let y = b.blank(&[1, 2, 2]);
    b.run(node(Operation::RmsNorm, &[x], y)).unwrap();
    assert_eq!(b.read(y), [1., -1., 1., 1.]);
}

#[test]
fn rms_match_scales_to_the_reference_with_a_floor_under_x() {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[2, 2, 1], &[1., 1., 0.5, 0.]);
    let reference = b.values(&[2, 1, 1], &[3., -3.]);
    b.run(node(Operation::RmsMatch, &[x, reference], x).with_f32(0, 0.25))
        .unwrap();
    assert_close(&b.read(x), &[3., 3., 3., 0.]);
}

#[test]
fn sparsify_keeps_what_exceeds_mean_and_deviations() {
    let mut b = Bench::new(2, 1);
    let x = b.values(&[4, 2], &[1., 1., 1., 5., 2., 2., 2., 2.]);
    b.run(node(Operation::Sparsify, &[x], x).with_f32(0, 1.0)).unwrap();
    let sigma = 3f64.sqrt();
    assert_close(&b.read(x), &[0., 0., 0., 3. - sigma, 0., 0., 0., 0.]);
}

fn rotated(layout: RopeLayout, position: i32) -> Vec<f32> {
    let mut b = Bench::new(1, 1);
    let x = b.values(&[5, 1, 1], &[1., 2., 3., 4., 5.]);
    let positions = b.ids(&[1], &[position]);
    let freq = b.values(&[2], &[1., 0.1]);
    let rope = node(Operation::Rope, &[x, positions, freq], x);
    b.run(rope.with(0, layout as u32).with_f32(1, 2.0)).unwrap();
    b.read(x)
}

#[test]
fn rope_rotates_pairs_of_either_layout_and_leaves_the_rest() {
    let ((s, c), (s1, c1)) = (3f64.sin_cos(), f64::from(3f32 * 0.1).sin_cos());
    let halves = [c - 3. * s, 2. * c1 - 4. * s1, 3. * c + s, 4. * c1 + 2. * s1];
    let pairs = [c - 2. * s, 2. * c + s, 3. * c1 - 4. * s1, 4. * c1 + 3. * s1];
    for (layout, expected) in [(RopeLayout::Halves, halves), (RopeLayout::Pairs, pairs)] {
        let found = rotated(layout, 3);
        assert_close(&found[..4], &expected.map(|v| 2. * v));
        assert_eq!(found[4], 5.);
    }
}

#[test]
fn rope_rounds_the_angle_to_f32() {
    let position = 16_000_003;
    let angle = f64::from(position as f32 * 0.1);
    assert!((angle - f64::from(position) * f64::from(0.1f32)).abs() > 0.01);
    let found = rotated(RopeLayout::Pairs, position);
    assert_close(&found[2..3], &[2. * (3. * angle.cos() - 4. * angle.sin())]);
}
