//! Rows that are longer than the conformance suite's, which a whole block shares.

use backend_api::{
    graph::Role,
    operations::{Operation, word},
    types::Type,
};

use crate::{
    device::opened,
    single::{Numbers, Single},
};

/// Columns of a step.
const T: u32 = 3;

#[test]
fn the_largest_of_a_vocabulary_are_found_in_order() {
    let Some(devices) = opened() else { return };
    for (seed, n) in [(1, 2049), (2, 5000), (3, 50_000)] {
        // few different values, so that many are equal
        let mut values: Vec<f32> = Numbers::new(seed)
            .values(n * T)
            .iter()
            .map(|v| (v * 9.0).round())
            .collect();
        values[7] = f32::NAN;
        values[9] = f32::INFINITY;
        let mut single = Single::new(T, 1);
        let x = single.values(Role::Activation, &[n, T], Some(1), &values);
        single.node(Operation::TopK, &[x], Type::I32, &[16, T], 1);
        assert_eq!(single.on(&devices[0]), single.expected(), "{n} entries");
    }
}

#[test]
fn rows_of_all_lengths_are_normalized() {
    let Some(devices) = opened() else { return };
    for d in [511, 512, 513, 1025, 2049, 5376, 17_408] {
        let mut random = Numbers::new(d.into());
        let mut single = Single::new(T, 1);
        let x = single.values(Role::Activation, &[d, T], Some(1), &random.values(d * T));
        let w = single.values(Role::Weight, &[d], None, &random.values(d));
        let r = single.values(Role::Activation, &[d, T], Some(1), &random.values(d * T));
        let node = single.node(Operation::NormAdd, &[x, w, r], Type::F32, &[d, T], 1);
        *node = node.with_f32(word::rms_norm::EPSILON, 1e-6);
        let error = single.error(&devices[0]);
        assert!(error <= 1e-10, "rows of {d}: {error:e}");
    }
}

#[test]
fn far_positions_are_rotated_exactly() {
    let Some(devices) = opened() else { return };
    let positions = [131_071, 1_048_575, 16_777_215];
    let freq: Vec<f32> = (0..32).map(|j| 1e6f32.powf(-(j as f32) / 32.0)).collect();
    for layout in 0..2 {
        let mut single = Single::new(T, 1);
        let x = single.values(
            Role::Activation,
            &[80, 9, T],
            Some(2),
            &Numbers::new(5).values(80 * 9 * T),
        );
        let places = single.ids(&[T], Some(0), &positions);
        let freq = single.values(Role::Constant, &[32], None, &freq);
        let node = single.node(Operation::Rope, &[x, places, freq], Type::F32, &[80, 9, T], 2);
        *node = node
            .with(word::rope::LAYOUT, layout)
            .with_f32(word::rope::MAGNITUDE, 1.0);
        let error = single.error(&devices[0]);
        assert!(error <= 1e-12, "layout {layout}: {error:e}");
    }
}
