//! How near products with weights of each type come to double precision: what kernels do to have codes as numbers without
//! conversions must not cost digits.

#[path = "../make-model/fill.rs"]
mod fill;

use backend_api::{decode::decode_row, graph::Role, operations::Operation, types::Type};
use rstest::rstest;

use crate::{
    device::{Opened, opened},
    single::{Numbers, Single},
};

/// The root of the error's squares, by that of the product's own.
const MOST: f64 = 5e-6;

/// Values of a row, and rows.
const K: u32 = 4096;
const ROWS: u32 = 36;

/// The relative error of a product of random weights of a type with `columns` columns of x against the same product in f64
/// of what the weights are in the file.
fn error(on: &Opened, ty: Type, columns: u32, x: &[f32]) -> f64 {
    let mut weights = vec![0.0; (K * ROWS) as usize];
    let mut bytes = vec![0; ty.row_bytes(K.into()).unwrap() as usize * ROWS as usize];
    fill::fill(ty, 0.02, 1, &mut bytes);
    decode_row(ty, &bytes, &mut weights).unwrap();

    let mut single = Single::new(columns, 1);
    let w = single.place(Role::Weight, ty, &[K, ROWS], None, bytes);
    let input = single.values(Role::Activation, &[K, columns], Some(1), x);
    single.node(Operation::Product, &[input, w], Type::F32, &[ROWS, columns], 1);
    let output = single.on(on);
    let found = output.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));

    let dot = |w: &[f32], x: &[f32]| w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>();
    let rows = weights.chunks(K as usize);
    let expected = x.chunks(K as usize).flat_map(|x| rows.clone().map(move |w| dot(w, x)));
    let (mut wrong, mut whole) = (0.0, 0.0);
    for (found, expected) in found.zip(expected) {
        wrong += (f64::from(found) - expected).powi(2);
        whole += expected.powi(2);
    }
    (wrong / whole).sqrt()
}

/// As activations are, around zero; and none below zero, where a bias of codes would add up; and by far smaller ones and larger ones
/// than any model has.
#[rstest]
fn products_of_few_columns_are_as_near_to_double_precision_as_promised(
    #[values(false, true)] positive: bool,
    #[values(1e-10, 1.0, 1e9)] size: f32,
) {
    let Some(devices) = opened() else { return };
    for &ty in Type::WEIGHTS {
        for columns in [1, 4] {
            let mut x = Numbers::new(7).values(K * columns);
            x.iter_mut()
                .for_each(|x| *x = size * if positive { x.abs() } else { *x });
            let error = error(&devices[0], ty, columns, &x);
            println!("{ty}, {columns} columns: {error:.1e}");
            assert!(error <= MOST, "{ty}, {columns} columns: {error:e}");
        }
    }
}
