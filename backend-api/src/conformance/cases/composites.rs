//! Cases of the composites that are made around norms.

use super::{
    Cases,
    norms::{all_variants, angles, exact_enough},
    products::of_two,
    word,
};
use crate::{
    conformance::case::{Accuracy, Builder, Columns, E, IN_PLACE, PLAIN, VIEWS, tokens},
    operations::RopeLayout,
    types::Type,
};

pub(super) fn norm_add(cases: &mut Cases) {
    for dims in [&[1, 3][..], &[64, 7], &[257, 9], &[2051, 2], &[33, 2, 5]] {
        cases.add(Type::F32, &format!("{dims:?}"), &[PLAIN, IN_PLACE], |b| {
            added(b, dims, dims, false)
        });
        cases.add(Type::F32, &format!("{dims:?} over x"), &[IN_PLACE], |b| {
            added(b, dims, dims, true)
        });
    }
    cases.add(Type::F32, "[40, 3, 6]", &all_variants(), |b| {
        added(b, &[40, 3, 6], &[40, 3, 6], false)
    });
    cases.add(
        Type::F32,
        "[40, 3, 6] x [40, 1, 6]",
        &[PLAIN, IN_PLACE, VIEWS[2]],
        |b| {
            added(b, &[40, 3, 6], &[40, 1, 6], false);
        },
    );
}

fn added(b: &mut Builder, dims: &[u32], of_x: &[u32], over_x: bool) {
    let shape = b.broadcast(dims, of_x);
    let x = b.input(shape);
    let w = b.vector(dims[0]);
    let r = b.input(tokens(dims));
    let output = b.result(if over_x { x } else { r }, tokens(dims));
    b.node(&[x, w, r], output, &[word(1e-5)]);
    exact_enough(b, output);
}

pub(super) fn norm_rope(cases: &mut Cases) {
    for layout in [RopeLayout::Halves, RopeLayout::Pairs] {
        for (hd, h, t, rotated) in [(8, 1, 1, 8), (64, 3, 7, 64), (128, 5, 2, 96), (256, 2, 9, 256)] {
            let label = format!("{layout:?} hd={hd} h={h} T={t} n={rotated}");
            cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
                turned(b, [hd, h, t, rotated], layout)
            });
        }
        let label = format!("{layout:?} hd=40 h=3 T=6 n=24");
        cases.add(Type::F32, &label, &all_variants(), |b| {
            turned(b, [40, 3, 6, 24], layout)
        });
    }
}

fn turned(b: &mut Builder, [hd, h, t, rotated]: [u32; 4], layout: RopeLayout) {
    let x = b.input(tokens(&[hd, h, t]));
    let w = b.vector(hd);
    let (positions, freq) = angles(b, t, rotated);
    let output = b.result(x, tokens(&[hd, h, t]));
    b.node(
        &[x, w, positions, freq],
        output,
        &[word(1e-6), layout as u32, word(0.9)],
    );
    exact_enough(b, output);
}

pub(super) fn mix_coefficients(cases: &mut Cases) {
    for ty in cases.types(&[Type::F32, Type::F16, Type::BF16]) {
        for (d, n, m, t) in [(64, 4, 16, 7), (257, 4, 4, 1), (1024, 2, 8, 9), (8, 8, 5, 33)] {
            let label = format!("d={d} n={n} n′={m} T={t}");
            cases.add(ty, &label, &[PLAIN], |b| mixed(b, [d, n, m, t]));
        }
        cases.add(ty, "d=64 n=4 n′=16 T=6", &VIEWS[..3], |b| mixed(b, [64, 4, 16, 6]));
    }
}

fn mixed(b: &mut Builder, [d, n, m, t]: [u32; 4]) {
    let ty = b.ty();
    let x = b.input(tokens(&[d, t]));
    let w = b.vector(d);
    let (first, second) = (b.weight(ty, &[d, n]), b.weight(ty, &[n, m]));
    let output = b.output(tokens(&[m, t]));
    b.node(
        &[x, w, first, second],
        output,
        &[word(1e-6), word(1.0 / (d as f32).sqrt())],
    );
    b.check(output, Accuracy::Within(of_two(E)));
    b.independent(Columns::default());
}
