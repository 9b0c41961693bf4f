//! Cases of routers: `top_k` and `pick`.

use super::{Cases, norms::exact_enough, word};
use crate::{
    conformance::case::{Accuracy, Builder, Columns, PLAIN, VIEWS, tokens},
    operations::PickMode,
    types::Type,
};

pub(super) fn top_k(cases: &mut Cases) {
    for (n, k, t) in [
        (1, 1, 1),
        (8, 2, 9),
        (32, 4, 7),
        (128, 8, 33),
        (512, 16, 5),
        (5, 5, 4),
        (37, 1, 3),
    ] {
        cases.add(Type::F32, &format!("n={n} k={k} T={t}"), &[PLAIN], |b| {
            let values = b.random.normals((n * t) as usize);
            largest(b, [n, k, t], &values);
        });
        cases.add(Type::F32, &format!("n={n} k={k} T={t} ties"), &[PLAIN], |b| {
            let values = tied(b, n * t);
            largest(b, [n, k, t], &values);
        });
        cases.add(Type::F32, &format!("n={n} k={k} T={t} with NaN"), &[PLAIN], |b| {
            let values = with_nan(b, n, t);
            largest(b, [n, k, t], &values);
        });
    }
    cases.add(Type::F32, "n=24 k=3 T=6", &VIEWS[..3], |b| {
        let values = tied(b, 24 * 6);
        largest(b, [24, 3, 6], &values);
    });
}

fn largest(b: &mut Builder, [n, k, t]: [u32; 3], values: &[f32]) {
    let x = b.input_of(tokens(&[n, t]), values);
    let output = b.output_of(Type::I32, tokens(&[k, t]));
    b.node(&[x], output, &[]);
    b.check(output, Accuracy::Indices(x));
    b.independent(Columns::default());
}

/// Few different values, zeros of both signs and infinities among them: nearly everything is a tie.
fn tied(b: &mut Builder, count: u32) -> Vec<f32> {
    const FEW: [f32; 7] = [1.5, 0.0, -0.0, -2.0, f32::INFINITY, f32::NEG_INFINITY, 1.5];
    (0..count).map(|_| FEW[b.random.below(7) as usize]).collect()
}

/// One column without numbers, the others with ever fewer NaN of both signs.
fn with_nan(b: &mut Builder, n: u32, t: u32) -> Vec<f32> {
    let mut values = b.random.normals((n * t) as usize);
    for (i, x) in values.iter_mut().enumerate() {
        let column = i as u32 / n;
        if b.random.below(column + 1) == 0 {
            *x = if i % 2 == 0 { f32::NAN } else { -f32::NAN };
        }
    }
    values
}

pub(super) fn pick(cases: &mut Cases) {
    for mode in [PickMode::Scale, PickMode::SoftmaxPicked, PickMode::SoftmaxAll] {
        for (n, k, t) in [(1, 1, 1), (8, 2, 9), (32, 4, 7), (128, 8, 33), (512, 16, 5)] {
            let label = format!("{mode:?} n={n} k={k} T={t}");
            cases.add(Type::F32, &label, &[PLAIN], |b| picked(b, [n, k, t], mode, 1.0));
        }
        let label = format!("{mode:?} n=24 k=3 T=6");
        cases.add(Type::F32, &label, &VIEWS[..3], |b| picked(b, [24, 3, 6], mode, 1.0));
        // Without the maximum subtracted, e^v overflows.
        let label = format!("{mode:?} n=24 k=3 T=6 large");
        cases.add(Type::F32, &label, &[PLAIN], |b| picked(b, [24, 3, 6], mode, 100.0));
    }
}

fn picked(b: &mut Builder, [n, k, t]: [u32; 3], mode: PickMode, deviation: f32) {
    let values: Vec<f32> = b
        .random
        .normals((n * t) as usize)
        .iter()
        .map(|x| x * deviation)
        .collect();
    let x = b.input_of(tokens(&[n, t]), &values);
    let ids: Vec<i32> = (0..t)
        .flat_map(|_| b.random.shuffled(n).into_iter().take(k as usize))
        .map(|e| e as i32)
        .collect();
    let ids = b.numbers(tokens(&[k, t]), &ids);
    let output = b.output(tokens(&[k, t]));
    b.node(&[x, ids], output, &[mode as u32, word(2.5)]);
    exact_enough(b, output);
}
