//! Cases of products with chosen experts.

use super::{
    Cases,
    products::{class, of_two, suffix},
    word,
};
use crate::{
    conformance::case::{Accuracy, Builder, Columns, PLAIN, VIEWS, Variant, fixed, tokens},
    operations::{Gate, Precision},
    types::Type,
};

/// The sizes of a case.
#[derive(Clone, Copy)]
struct Sizes {
    k: u32,
    m: u32,
    experts: u32,
    chosen: u32,
    t: u32,
    /// Whether each slot has its own x.
    own: bool,
}

fn shapes(ty: Type) -> Vec<Sizes> {
    let wide = ty.block_values() as u32 > 32;
    let sizes = |k: u32, m, experts, chosen, t, own| Sizes {
        k: if wide { k.next_multiple_of(256) } else { k },
        m,
        experts,
        chosen,
        t,
        own,
    };
    vec![
        sizes(32, 5, 1, 1, 1, false),
        sizes(96, 17, 8, 2, 7, false),
        sizes(64, 16, 4, 4, 8, true),
        sizes(288, 7, 33, 8, 3, true),
        sizes(64, 20, 3, 2, 40, false),
    ]
}

fn generate(cases: &mut Cases, name: &str, views: &[Variant], build: impl Fn(&mut Builder, Sizes, Precision)) {
    for ty in cases.types(Type::WEIGHTS) {
        for (i, sizes) in shapes(ty).into_iter().enumerate() {
            let Sizes {
                k,
                m,
                experts,
                chosen,
                t,
                own,
            } = sizes;
            let own = if own { " own x" } else { "" };
            let label = format!("K={k} M={m} n={experts} k={chosen} T={t}{own}{name}");
            let variants = if i == 1 {
                [&[PLAIN][..], views].concat()
            } else {
                vec![PLAIN]
            };
            cases.add(ty, &label, &variants, |b| build(b, sizes, Precision::OfType));
            if i == 2 {
                let label = label + suffix(Precision::Exact);
                cases.add(ty, &label, &[PLAIN], |b| build(b, sizes, Precision::Exact));
            }
        }
    }
    if name.is_empty() && cases.types(&[Type::F32]).next().is_some() {
        let sizes = Sizes {
            k: 16,
            m: 3,
            experts: 512,
            chosen: 16,
            t: 2,
            own: false,
        };
        cases.add(Type::F32, "K=16 M=3 n=512 k=16 T=2", &[PLAIN], |b| {
            build(b, sizes, Precision::OfType)
        });
    }
}

/// Ids of which some are out of range and some repeat in other columns.
fn choose(b: &mut Builder, sizes: Sizes, wrong: bool) -> u32 {
    let Sizes { experts, chosen, t, .. } = sizes;
    let mut ids = Vec::new();
    for _ in 0..t {
        ids.extend(
            b.random
                .shuffled(experts)
                .into_iter()
                .take(chosen as usize)
                .map(|e| e as i32),
        );
    }
    for (at, id) in [(3, -1), (5, experts as i32), (8, i32::MAX), (9, i32::MIN)] {
        if let Some(place) = ids.get_mut(at).filter(|_| wrong) {
            *place = id;
        }
    }
    b.numbers(tokens(&[chosen, t]), &ids)
}

fn activations(b: &mut Builder, sizes: Sizes, scale: f32) -> u32 {
    let slots = if sizes.own { sizes.chosen } else { 1 };
    let shape = tokens(&[sizes.k, slots, sizes.t]);
    let values: Vec<f32> = b.random.normals(shape.values()).iter().map(|x| x * scale).collect();
    b.input_of(shape, &values)
}

fn result(b: &mut Builder, sizes: Sizes, inputs: &[u32], params: &[u32], bound: f64) {
    let output = b.output(tokens(&[sizes.m, sizes.chosen, sizes.t]));
    b.node(inputs, output, params);
    b.check(output, Accuracy::Within(bound));
    b.independent(Columns::default());
}

pub(super) fn expert_product(cases: &mut Cases) {
    generate(cases, "", &VIEWS, |b, sizes, precision| {
        let ty = b.ty();
        let x = activations(b, sizes, 1.0);
        let w = b.weight(ty, &[sizes.k, sizes.m, sizes.experts]);
        let ids = choose(b, sizes, true);
        result(b, sizes, &[x, w, ids], &[precision as u32], class(ty, precision));
    });
}

pub(super) fn expert_product_add(cases: &mut Cases) {
    generate(cases, "", &VIEWS[..3], |b, sizes, precision| {
        let ty = b.ty();
        let x = activations(b, sizes, 1.0);
        let w = b.weight(ty, &[sizes.k, sizes.m, sizes.experts]);
        let ids = choose(b, sizes, false);
        let bias = biases(b, sizes);
        result(b, sizes, &[x, w, ids, bias], &[precision as u32], class(ty, precision));
    });
}

fn biases(b: &mut Builder, sizes: Sizes) -> u32 {
    b.weight(Type::F32, &fixed(&[sizes.m, sizes.experts]).dims[..2])
}

pub(super) fn gated_expert_product(cases: &mut Cases) {
    generate(cases, "", &VIEWS[..3], |b, sizes, p| {
        gated(b, sizes, p, Gate::Silu, false)
    });
    generate(cases, " swiglu_oai with biases", &[], |b, sizes, p| {
        gated(b, sizes, p, Gate::SwigluOai, true)
    });
}

fn gated(b: &mut Builder, sizes: Sizes, precision: Precision, gate: Gate, with_biases: bool) {
    let ty = b.ty();
    let x = activations(b, sizes, 1.0 / (sizes.k as f32).sqrt());
    let dims = [sizes.k, sizes.m, sizes.experts];
    let (wg, wu) = (b.weight(ty, &dims), b.weight(ty, &dims));
    let ids = choose(b, sizes, false);
    let mut inputs = vec![x, wg, wu, ids];
    if with_biases {
        inputs.extend([biases(b, sizes), biases(b, sizes)]);
    }
    let params = [precision as u32, gate as u32, word(1.702), word(7.0)];
    result(b, sizes, &inputs, &params, of_two(class(ty, precision)));
}
