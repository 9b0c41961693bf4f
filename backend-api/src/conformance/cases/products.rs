//! Cases of products and of the composites made of them.

use super::{Cases, word};
use crate::{
    conformance::case::{Accuracy, Builder, Columns, E, IN_PLACE, PLAIN, Q, Shape, VIEWS, tokens, wanted},
    graph::ABSENT,
    operations::{Gate, Precision},
    types::Type,
};

/// The class of a product with a weight of this type.
pub(super) fn class(ty: Type, precision: Precision) -> f64 {
    match precision {
        Precision::OfType if ty.is_quantized() => Q,
        _ => E,
    }
}

/// The bound where two products meet in one value, such as gate and up: their errors add, and the gate's slope, at
/// most 1.13, multiplies one of them.
pub(super) fn of_two(class: f64) -> f64 {
    3.0 * class
}

/// Lengths along K that a type's blocks divide.
fn depths(ty: Type) -> [u32; 6] {
    match ty.block_values() {
        1 => [4, 16, 33, 288, 64, 1025],
        32 => [32, 64, 96, 288, 256, 1056],
        _ => [256, 256, 512, 768, 256, 1280],
    }
}

/// M and T for each of the depths: single rows and columns, block multiples, and tails of both.
const SHAPES: [[(u32, u32); 4]; 6] = [
    [(1, 1), (5, 2), (37, 8), (64, 32)],
    [(3, 7), (16, 3), (130, 1), (1, 33)],
    [(7, 9), (33, 5), (8, 64), (2, 1)],
    [(5, 7), (48, 4), (70, 6), (17, 17)],
    [(9, 300), (256, 1), (31, 16), (4, 4)],
    [(40, 33), (11, 1), (6, 8), (3, 2)],
];

/// A larger one, with tails everywhere.
fn large(ty: Type) -> (u32, u32, u32) {
    (if ty.block_values() > 32 { 2304 } else { 2080 }, 100, 37)
}

pub(super) fn product(cases: &mut Cases) {
    for ty in cases.types(Type::WEIGHTS) {
        for (k, shapes) in depths(ty).into_iter().zip(SHAPES) {
            for (m, t) in shapes {
                single(cases, ty, [k, m, t], Precision::OfType);
            }
            let (m, t) = shapes[0];
            single(cases, ty, [k, m + 1, t + 1], Precision::Exact);
        }
        let (k, m, t) = large(ty);
        single(cases, ty, [k, m, t], Precision::OfType);
        let k = depths(ty)[3];
        let label = format!("K={k} M=21 T=7");
        cases.add(ty, &label, &VIEWS[..3], |b| {
            one(b, [k, 21], tokens(&[k, 7]), tokens(&[21, 7]), Precision::OfType)
        });
        let label = format!("K={k} M=35 R=5");
        cases.add(ty, &label, &[PLAIN], |b| {
            one(b, [k, 35], wanted(&[k, 5]), wanted(&[35, 5]), Precision::OfType)
        });
    }
}

fn single(cases: &mut Cases, ty: Type, [k, m, t]: [u32; 3], precision: Precision) {
    let label = format!("K={k} M={m} T={t}{}", suffix(precision));
    cases.add(ty, &label, &[PLAIN], |b| {
        one(b, [k, m], tokens(&[k, t]), tokens(&[m, t]), precision)
    });
}

pub(super) fn suffix(precision: Precision) -> &'static str {
    match precision {
        Precision::OfType => "",
        Precision::Exact => " exact",
    }
}

fn one(b: &mut Builder, [k, m]: [u32; 2], x: Shape, y: Shape, precision: Precision) {
    let ty = b.ty();
    let x = b.input(x);
    let w = b.weight(ty, &[k, m]);
    let output = b.output(y);
    b.node(&[x, w], output, &[precision as u32]);
    b.check(output, Accuracy::Within(class(ty, precision)));
    b.independent(Columns::default());
}

/// K, M and T of the composites, for blocks of 1 or 32 values and for those of 256.
fn composite_shapes(ty: Type) -> [[u32; 3]; 4] {
    match ty.block_values() {
        256 => [[256, 5, 1], [512, 33, 7], [768, 16, 8], [256, 70, 33]],
        _ => [[32, 5, 1], [288, 33, 7], [96, 16, 8], [64, 70, 33]],
    }
}

/// Runs `build` for each type, shape and precision; the views and places in `more` for the second shape.
fn composite(
    cases: &mut Cases,
    more: &[crate::conformance::case::Variant],
    build: impl Fn(&mut Builder, [u32; 3], Precision),
) {
    for ty in cases.types(Type::WEIGHTS) {
        for (i, shape) in composite_shapes(ty).into_iter().enumerate() {
            let [k, m, t] = shape;
            let label = format!("K={k} M={m} T={t}");
            let variants = if i == 1 {
                [&[PLAIN][..], more].concat()
            } else {
                vec![PLAIN]
            };
            cases.add(ty, &label, &variants, |b| build(b, shape, Precision::OfType));
            if i == 2 {
                let label = label + suffix(Precision::Exact);
                cases.add(ty, &label, &[PLAIN], |b| build(b, shape, Precision::Exact));
            }
        }
    }
}

pub(super) fn product_add(cases: &mut Cases) {
    let more = [&[IN_PLACE][..], &VIEWS[..3]].concat();
    composite(cases, &more, |b, shape, p| added(b, shape, p, true, true));
    composite(cases, &[], |b, shape, p| {
        b.relabel("bias");
        added(b, shape, p, true, false)
    });
    composite(cases, &[IN_PLACE], |b, shape, p| {
        b.relabel("residual");
        added(b, shape, p, false, true)
    });
}

fn added(b: &mut Builder, [k, m, t]: [u32; 3], precision: Precision, bias: bool, residual: bool) {
    let ty = b.ty();
    let x = b.input(tokens(&[k, t]));
    let w = b.weight(ty, &[k, m]);
    let bias = if bias { b.vector(m) } else { ABSENT };
    let r = if residual { b.input(tokens(&[m, t])) } else { ABSENT };
    let output = if residual {
        b.result(r, tokens(&[m, t]))
    } else {
        b.output(tokens(&[m, t]))
    };
    b.node(&[x, w, bias, r], output, &[precision as u32]);
    b.check(output, Accuracy::Within(class(ty, precision)));
    b.independent(Columns::default());
}

pub(super) fn products(cases: &mut Cases) {
    composite(cases, &VIEWS[..3], |b, shape, p| {
        several(b, shape, p, &[(1, true), (2, false), (3, true)])
    });
    composite(cases, &[], |b, shape, p| {
        b.relabel("one");
        several(b, shape, p, &[(0, true)])
    });
    composite(cases, &[], |b, shape, p| {
        b.relabel("four");
        several(b, shape, p, &[(0, false), (5, false), (1, false), (2, true)])
    });
}

/// Weights of M plus these many rows, with and without biases.
fn several(b: &mut Builder, [k, m, t]: [u32; 3], precision: Precision, parts: &[(u32, bool)]) {
    let ty = b.ty();
    let mut inputs = vec![b.input(tokens(&[k, t]))];
    let mut total = 0;
    for &(more, bias) in parts {
        inputs.push(b.weight(ty, &[k, m + more]));
        inputs.push(if bias { b.vector(m + more) } else { ABSENT });
        total += m + more;
    }
    let output = b.output(tokens(&[total, t]));
    b.node(&inputs, output, &[precision as u32]);
    b.check(output, Accuracy::Within(class(ty, precision)));
    b.independent(Columns::default());
}

pub(super) fn gated_product(cases: &mut Cases) {
    composite(cases, &VIEWS[..3], |b, shape, p| {
        gate_and_up(b, shape, p, Gate::Silu, false)
    });
    composite(cases, &[], |b, shape, p| {
        b.relabel("gelu_tanh");
        gate_and_up(b, shape, p, Gate::GeluTanh, false)
    });
    composite(cases, &[], |b, shape, p| {
        b.relabel("swiglu_oai with biases");
        gate_and_up(b, shape, p, Gate::SwigluOai, true)
    });
}

fn gate_and_up(b: &mut Builder, [k, m, t]: [u32; 3], precision: Precision, gate: Gate, biases: bool) {
    let ty = b.ty();
    // Sums of K unit normals are scaled back to about 1: that is where gates are curved.
    let values: Vec<f32> = b.random.normals((k * t) as usize);
    let values: Vec<f32> = values.iter().map(|x| x / (k as f32).sqrt()).collect();
    let x = b.input_of(tokens(&[k, t]), &values);
    let mut inputs = vec![x, b.weight(ty, &[k, m]), b.weight(ty, &[k, m])];
    if biases {
        inputs.extend([b.vector(m), b.vector(m)]);
    }
    let output = b.output(tokens(&[m, t]));
    b.node(
        &inputs,
        output,
        &[precision as u32, gate as u32, word(1.702), word(7.0)],
    );
    b.check(output, Accuracy::Within(of_two(class(ty, precision))));
    b.independent(Columns::default());
}
