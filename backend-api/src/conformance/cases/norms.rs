//! Cases of what works along one row at a time: norms, `rope`, `sparsify`.

use super::{Cases, word};
use crate::{
    conformance::case::{Accuracy, Builder, Columns, E, IN_PLACE, IN_PLACE_VIEWS, PLAIN, VIEWS, Variant, tokens},
    graph::ABSENT,
    operations::RopeLayout,
    types::Type,
};

/// Plain, in place, and the views of both.
pub(super) fn all_variants() -> Vec<Variant> {
    [&[PLAIN, IN_PLACE][..], &VIEWS, &IN_PLACE_VIEWS].concat()
}

/// The class of everything here, and independent columns.
pub(super) fn exact_enough(b: &mut Builder, output: u32) {
    b.check(output, Accuracy::Within(E));
    b.independent(Columns::default());
}

pub(super) fn rms_norm(cases: &mut Cases) {
    for dims in [
        &[1, 3][..],
        &[7, 1],
        &[64, 2],
        &[128, 3, 5],
        &[257, 9],
        &[2051, 3],
        &[33, 2, 2, 3],
    ] {
        let label = format!("{dims:?}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| norm(b, dims, true, 1e-6));
    }
    cases.add(Type::F32, "[40, 3, 6]", &all_variants(), |b| {
        norm(b, &[40, 3, 6], true, 1e-5)
    });
    cases.add(Type::F32, "[65, 3, 6] without w", &[PLAIN, IN_PLACE], |b| {
        norm(b, &[65, 3, 6], false, 1e-5)
    });
    cases.add(Type::F32, "[64, 4] large ε", &[PLAIN], |b| {
        norm(b, &[64, 4], true, 3.0)
    });
}

fn norm(b: &mut Builder, dims: &[u32], weight: bool, epsilon: f32) {
    let x = b.input(tokens(dims));
    let w = if weight { b.vector(dims[0]) } else { ABSENT };
    let output = b.result(x, tokens(dims));
    b.node(&[x, w], output, &[word(epsilon)]);
    exact_enough(b, output);
}

pub(super) fn rms_match(cases: &mut Cases) {
    for (d, m, t) in [(1, 1, 1), (33, 3, 7), (256, 2, 9), (1027, 1, 3)] {
        let label = format!("d={d} m={m} T={t}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| matched(b, [d, m, t], 1e-5));
    }
    cases.add(Type::F32, "d=40 m=3 T=6", &all_variants(), |b| {
        matched(b, [40, 3, 6], 1e-5)
    });
    cases.add(Type::F32, "d=40 m=3 T=6 large floor", &[PLAIN], |b| {
        matched(b, [40, 3, 6], 4.0)
    });
}

fn matched(b: &mut Builder, [d, m, t]: [u32; 3], floor: f32) {
    let x = b.input(tokens(&[d, m, t]));
    let reference = b.input(tokens(&[d, 1, t]));
    let output = b.result(x, tokens(&[d, m, t]));
    b.node(&[x, reference], output, &[word(floor)]);
    exact_enough(b, output);
}

pub(super) fn sparsify(cases: &mut Cases) {
    for (d, t, s) in [(1, 2, 0.5), (40, 7, 1.0), (257, 3, 1.6448), (4099, 2, 0.0)] {
        let label = format!("d={d} T={t} s={s}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| sparse(b, [d, t], s, 0.0));
    }
    cases.add(Type::F32, "d=64 T=5 s=0.9", &all_variants(), |b| {
        sparse(b, [64, 5], 0.9, 0.0)
    });
    // With this mean, E[x²] − μ² in f32 is wrong by more than the bound.
    cases.add(Type::F32, "d=512 T=3 s=0.9 mean 300", &[PLAIN], |b| {
        sparse(b, [512, 3], 0.9, 300.0)
    });
}

fn sparse(b: &mut Builder, [d, t]: [u32; 2], s: f32, mean: f32) {
    let values = b.random.normals((d * t) as usize);
    // Halves of a small integer are sums that f32 holds exactly, whatever the order: the mean's rounding is not tested.
    let values: Vec<f32> = values.iter().map(|x| mean + (x * 64.0).round() / 64.0).collect();
    let x = b.input_of(tokens(&[d, t]), &values);
    let output = b.result(x, tokens(&[d, t]));
    b.node(&[x], output, &[word(s)]);
    exact_enough(b, output);
}

pub(super) fn rope(cases: &mut Cases) {
    for layout in [RopeLayout::Halves, RopeLayout::Pairs] {
        for (hd, h, t, rotated) in [
            (8, 1, 1, 8),
            (64, 3, 7, 64),
            (128, 14, 2, 96),
            (256, 2, 9, 128),
            (80, 1, 33, 20),
        ] {
            let label = format!("{layout:?} hd={hd} h={h} T={t} n={rotated}");
            cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
                rotated_heads(b, [hd, h, t, rotated], layout)
            });
        }
        let label = format!("{layout:?} hd=40 h=3 T=6 n=24");
        cases.add(Type::F32, &label, &all_variants(), |b| {
            rotated_heads(b, [40, 3, 6, 24], layout)
        });
    }
}

fn rotated_heads(b: &mut Builder, [hd, h, t, rotated]: [u32; 4], layout: RopeLayout) {
    let x = b.input(tokens(&[hd, h, t]));
    let (positions, freq) = angles(b, t, rotated);
    let output = b.result(x, tokens(&[hd, h, t]));
    b.node(&[x, positions, freq], output, &[layout as u32, word(1.2)]);
    exact_enough(b, output);
}

/// Positions from 0 to 2^20, and frequencies of θ = 10000 that are no short fractions.
pub(super) fn angles(b: &mut Builder, t: u32, rotated: u32) -> (u32, u32) {
    let mut positions: Vec<i32> = (0..t).map(|_| b.random.below(1 << 20) as i32).collect();
    for (place, p) in positions.iter_mut().skip(1).zip([0, (1 << 20) - 1, 1, 4095]) {
        *place = p;
    }
    let positions = b.numbers(tokens(&[t]), &positions);
    let freq = |j: u32| (0.999 * 1e4f64.powf(-2.0 * f64::from(j) / f64::from(rotated))) as f32;
    let freq: Vec<f32> = (0..rotated / 2).map(freq).collect();
    (positions, b.constant(&freq))
}
