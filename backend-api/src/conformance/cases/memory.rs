//! Cases of what moves and converts values: `rows`, `copy`, `cache_store`.

use half::f16;

use super::{Cases, word};
use crate::{
    conformance::{
        case::{Accuracy, Builder, Columns, E, Layout, PLAIN, Shape, VIEWS, Variant, fixed, tokens, wanted},
        image::{bytes_of_f32, bytes_of_i32},
    },
    graph::Role,
    types::Type,
};

/// Row lengths that a type's blocks divide: the shortest, an odd number of blocks, a longer one.
fn row_lengths(ty: Type) -> [u32; 3] {
    match ty.block_values() as u32 {
        1 => [1, 37, 512],
        block => [block, 3 * block, 9 * block],
    }
}

pub(super) fn rows(cases: &mut Cases) {
    for ty in cases.types(Type::WEIGHTS) {
        for (d, n, t) in row_lengths(ty)
            .into_iter()
            .zip([1, 19, 40])
            .zip([5, 9, 3])
            .map(|((d, n), t)| (d, n, t))
        {
            let label = format!("d={d} n={n} T={t}");
            cases.add(ty, &label, &[PLAIN], |b| rows_of_weight(b, [d, n], tokens(&[t])));
        }
        let d = row_lengths(ty)[1];
        let label = format!("d={d} n=11 T=6");
        cases.add(ty, &label, &VIEWS[..3], |b| rows_of_weight(b, [d, 11], tokens(&[6])));
        let label = format!("d={d} n=11 ids=[3, T=4]");
        cases.add(ty, &label, &[PLAIN, VIEWS[3]], |b| {
            rows_of_weight(b, [d, 11], tokens(&[3, 4]))
        });
    }
    if cases.types(&[Type::F32]).next().is_some() {
        wanted_rows(cases);
    }
}

/// Rows of a weight by ids of which some are out of range.
fn rows_of_weight(b: &mut Builder, [d, n]: [u32; 2], ids: Shape) {
    let ty = b.ty();
    let table = b.weight(ty, &[d, n]);
    let mut values: Vec<i32> = (0..ids.values()).map(|_| b.random.below(n) as i32).collect();
    for (at, wrong) in [(1, -1), (2, n as i32), (4, i32::MAX), (5, i32::MIN)] {
        if let Some(id) = values.get_mut(at) {
            *id = wrong;
        }
    }
    let input = b.numbers(ids, &values);
    let [a, c, ..] = ids.dims;
    let output = b.output(if c > 1 { tokens(&[d, a, c]) } else { tokens(&[d, a]) });
    b.node(&[table, input], output, &[word(1.75)]);
    b.check(output, Accuracy::Within(E));
    b.independent(Columns::default());
}

/// The wanted columns of activations: ids from T′ on take row 0.
fn wanted_rows(cases: &mut Cases) {
    let skips = Variant {
        name: "table with gaps between elements",
        inputs: Layout::Skips,
        ..PLAIN
    };
    let variants = [&[PLAIN, skips][..], &VIEWS].concat();
    cases.add(Type::F32, "wanted columns d=33 T=9 R=4", &variants, |b| {
        let table = b.input(tokens(&[33, 9]));
        let ids = b.numbers(wanted(&[4]), &[8, 0, 5, -3]);
        let output = b.output(wanted(&[33, 4]));
        b.node(&[table, ids], output, &[word(1.0)]);
        b.check(output, Accuracy::Within(E));
        b.steps(&[9, 3, 6, 0]);
    });
}

pub(super) fn copy(cases: &mut Cases) {
    let floats = [Type::F32, Type::F16, Type::BF16];
    for from in cases.types(&floats) {
        for to in floats {
            for dims in [&[1, 1][..], &[7, 5], &[64, 33], &[257, 2], &[16, 5, 3], &[5, 2, 3, 4]] {
                cases.add(from, &format!("to {to} {dims:?}"), &[PLAIN], |b| copied(b, to, dims));
            }
            copied_views(cases, from, to);
        }
    }
    if cases.types(&[Type::I32]).next().is_some() {
        cases.add(Type::I32, "to I32 [7, 5]", &[PLAIN], |b| copied(b, Type::I32, &[7, 5]));
        copied_views(cases, Type::I32, Type::I32);
    }
}

/// Views that whoever copies may not refuse.
fn copied_views(cases: &mut Cases, from: Type, to: Type) {
    let skips = Variant {
        name: "gaps between elements",
        inputs: Layout::Skips,
        ..PLAIN
    };
    let variants = [&[skips][..], &VIEWS].concat();
    cases.add(from, &format!("to {to} [19, 4, 3]"), &variants, |b| {
        b.obligatory();
        copied(b, to, &[19, 4, 3]);
    });
}

fn copied(b: &mut Builder, to: Type, dims: &[u32]) {
    let shape = tokens(dims);
    let from = b.ty();
    let x = b.tensor(Role::Input, from, shape, b.variant.inputs);
    let bytes = match from {
        Type::F32 => bytes_of_f32(&awkward_floats(b, shape.values())),
        Type::I32 => bytes_of_i32(&(0..shape.values()).map(|_| b.random.next() as i32).collect::<Vec<_>>()),
        _ => b.random.values(from, shape.values()),
    };
    b.fill(x, bytes);
    let output = b.output_of(to, shape);
    b.node(&[x], output, &[]);
    b.check(output, Accuracy::Exact);
}

/// Unit normals among which stand ties, the borders of f16's range, its subnormals, and infinities.
fn awkward_floats(b: &mut Builder, n: usize) -> Vec<f32> {
    const AWKWARD: [f32; 14] = [
        1.000_488_3, // between two f16 numbers: to even, down
        1.001_464_8, // as well: to even, up
        1.003_906_3, // between two bf16 numbers: to even, down
        1.011_718_8, // as well: to even, up
        65519.0,
        65520.0,
        -1e30,
        6e-8,
        2.98e-8,
        -3e-6,
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];
    let mut values = b.random.normals(n);
    values
        .iter_mut()
        .skip(2)
        .step_by(3)
        .zip(AWKWARD)
        .for_each(|(v, a)| *v = a);
    values
}

pub(super) fn cache_store(cases: &mut Cases) {
    for ty in cases.types(&Type::CACHE) {
        for (hd, page, heads, t) in [
            (64, 16, 2, 7),
            (32, 32, 1, 1),
            (128, 64, 3, 40),
            (256, 256, 1, 9),
            (96, 16, 8, 3),
        ] {
            let label = format!("hd={hd} P={page} Hkv={heads} T={t}");
            cases.add(ty, &label, &[PLAIN], |b| store(b, [hd, page, heads, t]));
        }
        cases.add(ty, "hd=64 P=16 Hkv=2 T=7", &VIEWS, |b| store(b, [64, 16, 2, 7]));
        if !ty.is_quantized() {
            cases.add(ty, "hd=8 P=16 Hkv=2 T=5", &[PLAIN], |b| store(b, [8, 16, 2, 5]));
        }
    }
}

/// Stores to different random cells; some slots are skipped.
fn store(b: &mut Builder, [hd, page, heads, t]: [u32; 4]) {
    let pages = 3 + t.div_ceil(page);
    let shape = tokens(&[hd, heads, t]);
    let mut values = awkward_heads(b, shape, hd as usize);
    values.iter_mut().for_each(|x| *x *= 1.5);
    let x = b.input_of(shape, &values);
    let cells = b.random.shuffled(page * pages);
    let mut slots: Vec<i32> = cells.iter().take(t as usize).map(|&c| c as i32).collect();
    for (at, wrong) in [(1, -1), (4, (page * pages) as i32), (6, i32::MIN), (8, i32::MAX)] {
        if let Some(slot) = slots.get_mut(at) {
            *slot = wrong;
        }
    }
    let slots = b.numbers(tokens(&[t]), &slots);
    let pool = b.tensor(Role::Pool, b.ty(), fixed(&[hd, page, heads, pages]), b.variant.output);
    b.node(&[x, slots], pool, &[]);
    b.check(pool, Accuracy::Stored);
}

/// Unit normals; the second head of a step is 0, and there are values on the borders of f16.
fn awkward_heads(b: &mut Builder, shape: Shape, hd: usize) -> Vec<f32> {
    let mut values = b.random.normals(shape.values());
    for (i, x) in values.iter_mut().enumerate() {
        if i / hd == 1 {
            *x = 0.0;
        } else if b.ty() == Type::F16 && i % 11 == 3 {
            *x = f16::from_f32(*x).to_f32() * (1.0 + 1.0 / 2048.0);
        }
    }
    values
}
