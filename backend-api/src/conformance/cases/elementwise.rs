//! Cases of `add`, `mul`, `unary`, `gated` and `combine`.

use super::{
    Cases,
    norms::{all_variants, exact_enough},
    word,
};
use crate::{
    conformance::case::{Builder, IN_PLACE, IN_PLACE_VIEWS, Layout, PLAIN, VIEWS, tokens},
    graph::ABSENT,
    operations::{Gate, UnaryKind},
    types::Type,
};

const DIMS: [&[u32]; 6] = [&[1, 1], &[7, 5], &[64, 33], &[1027, 2], &[17, 3, 4], &[8, 2, 3, 5]];

pub(super) fn add(cases: &mut Cases) {
    for (alpha, beta) in [(1.0, 1.0), (0.7, -1.0)] {
        binary(cases, &format!(" α={alpha} β={beta}"), &[word(alpha), word(beta)]);
    }
}

pub(super) fn mul(cases: &mut Cases) {
    binary(cases, "", &[]);
}

fn binary(cases: &mut Cases, name: &str, params: &[u32]) {
    for dims in DIMS {
        let label = format!("{dims:?}{name}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
            pair(b, dims, dims, b.variant.inputs, params)
        });
    }
    let dims = &[24, 3, 5];
    let label = format!("{dims:?}{name}");
    cases.add(Type::F32, &label, &all_variants(), |b| {
        pair(b, dims, dims, b.variant.inputs, params)
    });
    for broadcast in [&[24, 1, 5][..], &[24, 3, 1], &[24, 1, 1]] {
        let label = format!("{dims:?} and {broadcast:?}{name}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE, VIEWS[2]], |b| {
            pair(b, dims, broadcast, b.variant.inputs, params);
        });
    }
    let label = format!("{dims:?} b with gaps between elements{name}");
    cases.add(Type::F32, &label, &[PLAIN], |b| {
        pair(b, dims, dims, Layout::Skips, params)
    });
    let label = format!("[24, 5] and a bias{name}");
    cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
        let a = b.input(tokens(&[24, 5]));
        let bias = b.vector(24);
        let output = b.result(a, tokens(&[24, 5]));
        b.node(&[a, bias], output, params);
        exact_enough(b, output);
    });
}

fn pair(b: &mut Builder, dims: &[u32], other: &[u32], layout: Layout, params: &[u32]) {
    let x = b.input(tokens(dims));
    let shape = b.broadcast(dims, other);
    let values = b.random.normals(shape.values());
    let y = b.input_as(shape, &values, layout);
    let output = b.result(x, tokens(dims));
    b.node(&[x, y], output, params);
    exact_enough(b, output);
}

pub(super) fn unary(cases: &mut Cases) {
    for kind in [UnaryKind::Identity, UnaryKind::Tanh] {
        for dims in DIMS {
            let label = format!("{kind:?} {dims:?}");
            cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| mapped(b, dims, kind, 1.3));
        }
        cases.add(Type::F32, &format!("{kind:?} [24, 3, 5]"), &all_variants(), |b| {
            mapped(b, &[24, 3, 5], kind, 0.9)
        });
    }
    cases.add(Type::F32, "Tanh [33, 4] saturated", &[PLAIN], |b| {
        mapped(b, &[33, 4], UnaryKind::Tanh, 40.0)
    });
    cases.add(Type::F32, "Tanh [33, 4] near 0", &[PLAIN], |b| {
        mapped(b, &[33, 4], UnaryKind::Tanh, 1e-4)
    });
}

fn mapped(b: &mut Builder, dims: &[u32], kind: UnaryKind, inner: f32) {
    let x = b.input(tokens(dims));
    let output = b.result(x, tokens(dims));
    b.node(&[x], output, &[kind as u32, word(inner), word(0.8)]);
    exact_enough(b, output);
}

pub(super) fn gated(cases: &mut Cases) {
    for gate in [Gate::Silu, Gate::GeluTanh, Gate::SwigluOai] {
        for dims in DIMS {
            let label = format!("{gate:?} {dims:?}");
            cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
                gate_pair(b, dims, gate, 3.0, false)
            });
        }
        let variants = [&VIEWS[..], &IN_PLACE_VIEWS].concat();
        let label = format!("{gate:?} [24, 3, 5]");
        cases.add(Type::F32, &label, &variants, |b| {
            gate_pair(b, &[24, 3, 5], gate, 3.0, false)
        });
        let label = format!("{gate:?} [24, 5] over u");
        cases.add(Type::F32, &label, &[IN_PLACE], |b| {
            gate_pair(b, &[24, 5], gate, 3.0, true)
        });
        let label = format!("{gate:?} [64, 5] saturated");
        cases.add(Type::F32, &label, &[PLAIN], |b| {
            gate_pair(b, &[64, 5], gate, 60.0, false)
        });
    }
}

/// Gates of this deviation: a limit of 7 is passed now and then.
fn gate_pair(b: &mut Builder, dims: &[u32], gate: Gate, deviation: f32, over_u: bool) {
    let shape = tokens(dims);
    let draw = |b: &mut Builder| {
        let values: Vec<f32> = b.random.normals(shape.values()).iter().map(|x| x * deviation).collect();
        b.input_of(shape, &values)
    };
    let (g, u) = (draw(b), draw(b));
    let output = b.result(if over_u { u } else { g }, shape);
    b.node(&[g, u], output, &[gate as u32, word(1.702), word(7.0)]);
    exact_enough(b, output);
}

/// Which inputs a case of `combine` has beside x.
#[derive(Clone, Copy)]
struct Parts {
    coefficients: bool,
    base: bool,
}

pub(super) fn combine(cases: &mut Cases) {
    let both = Parts {
        coefficients: true,
        base: true,
    };
    for (d, i, j, t) in [
        (64, 8, 1, 7),
        (33, 4, 4, 5),
        (128, 1, 4, 9),
        (1, 1, 1, 1),
        (257, 16, 8, 3),
    ] {
        let label = format!("d={d} I={i} J={j} T={t}");
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
            combined(b, [d, i, j, t], both, 1.0)
        });
        let label = format!("{label} without base");
        let without = Parts { base: false, ..both };
        cases.add(Type::F32, &label, &[PLAIN], |b| combined(b, [d, i, j, t], without, 0.0));
        let label = format!("d={d} I={i} T={t} without C");
        let sum = Parts {
            coefficients: false,
            ..both
        };
        cases.add(Type::F32, &label, &[PLAIN, IN_PLACE], |b| {
            combined(b, [d, i, 1, t], sum, 0.25)
        });
    }
    cases.add(Type::F32, "d=24 I=3 J=2 T=5", &all_variants(), |b| {
        combined(b, [24, 3, 2, 5], both, 0.5)
    });
}

fn combined(b: &mut Builder, [d, i, j, t]: [u32; 4], parts: Parts, c0: f32) {
    let x = b.input(tokens(&[d, i, t]));
    let c = if parts.coefficients {
        b.input(tokens(&[i, j, t]))
    } else {
        ABSENT
    };
    let shape = tokens(&[d, j, t]);
    let base = if parts.base { b.input(shape) } else { ABSENT };
    let output = if parts.base {
        b.result(base, shape)
    } else {
        b.output(shape)
    };
    b.node(&[x, c, base], output, &[word(c0)]);
    exact_enough(b, output);
}
