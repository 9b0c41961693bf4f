//! The kernels for many columns alone.

use backend_api::types::Type;

use super::{Case, blocks, nmse};
use crate::{
    kernel_set::{KernelSet, Kernels},
    product::{
        panel::{
            BLOCK_COLUMNS, BLOCK_ROWS, Columns, Panels, SPARE, Sums,
            packing::{Packing, RECORD},
            panels,
        },
        select::{Way, select},
    },
};

const UNTOUCHED: f32 = -12345.0;

/// The sets that this machine has, those with emulated tiles among them.
fn sets() -> Vec<(Kernels, Panels)> {
    let forced = KernelSet::ALL.into_iter().filter_map(|set| Kernels::forced(set).ok());
    let with_tiles = |k: Kernels| {
        [
            Some(k),
            Some(k.without_vnni()),
            k.with_amx(),
            Some(k.with_emulated_tiles()),
        ]
    };
    let mut sets: Vec<Kernels> = forced.flat_map(with_tiles).flatten().collect();
    sets.dedup();
    if Kernels::best().with_amx().is_none() {
        println!("skipped: this machine has no AMX");
    }
    let sets = sets.into_iter();
    sets.filter_map(|kernels| Some((kernels, panels(kernels)?))).collect()
}

/// A record.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Record(#[allow(dead_code)] [u8; RECORD]);

/// The products of some of a case's columns, each of them its rows long.
fn run(case: &Case, panels: &Panels, columns: &[usize]) -> Vec<Vec<f32>> {
    let kernel = panels.kernel(case.ty, case.way == Way::Exact).unwrap();
    let records = kernel.packing.records(case.values);
    let mut packed = vec![Record([0x77; RECORD]); columns.len() * records + SPARE];
    for (i, &column) in columns.iter().enumerate() {
        let to = packed[i..].as_mut_ptr().cast();
        // SAFETY: the column has its records, and the set is available.
        unsafe { panels.pack(kernel.packing, &case.columns[column], to, columns.len() * RECORD) };
    }
    let (unaligned, weights) = case.weights();
    let columns = Columns {
        start: packed.as_ptr().cast(),
        chunk: columns.len() * RECORD,
        count: columns.len(),
    };
    let mut sums: Vec<Sums> = vec![[UNTOUCHED; BLOCK_ROWS]; columns.count + SPARE + 1];
    // SAFETY: rows and columns are whole, columns and sums have spare ones behind them, and the set is available.
    unsafe { (kernel.product)(&weights, &columns, sums.as_mut_ptr()) };
    drop(unaligned);
    let whole = case.rows.next_multiple_of(32);
    let past = sums
        .iter()
        .flat_map(|sums| &sums[whole..])
        .chain(&sums[columns.count + SPARE]);
    assert!(past.into_iter().all(|&v| v == UNTOUCHED), "written past the block");
    sums[..columns.count]
        .iter()
        .map(|sums| sums[..case.rows].to_vec())
        .collect()
}

fn check(case: &Case, (kernels, panels): &(Kernels, Panels), bound: f64) {
    let all: Vec<usize> = (0..case.columns.len()).collect();
    let found = run(case, panels, &all).concat();
    let error = nmse(&found, &case.expected());
    let Case {
        ty, way, values, rows, ..
    } = case;
    assert!(
        error <= bound,
        "{ty} {way:?} {kernels} K={values} M={rows} T={}: {error:e}",
        all.len()
    );
}

/// Blocks of K, rows and columns: tails of every kind.
const SHAPES: [(usize, usize, usize); 7] = [
    (1, 32, 16),
    (5, 33, 9),
    (2, 5, 24),
    (9, 17, 35),
    (17, 100, 17),
    (8, 128, 7),
    (41, 1, 11),
];

#[test]
fn quantized_panels_are_of_class_q() {
    for (set, ty) in sets().iter().flat_map(|s| blocks().map(move |t| (s, t))) {
        for (blocks, rows, columns) in SHAPES {
            let blocks = if ty.block_values() == 256 {
                blocks.div_ceil(4)
            } else {
                blocks
            };
            check(
                &Case::new(ty, Way::Integer, blocks * ty.block_values(), rows, columns),
                set,
                1e-4,
            );
        }
    }
}

#[test]
fn whole_blocks_are_of_class_q() {
    for set in &sets() {
        for ty in [Type::Q8_0, Type::Q4_K, Type::Q6_K] {
            check(&Case::new(ty, Way::Integer, 768, BLOCK_ROWS, BLOCK_COLUMNS), set, 1e-4);
        }
    }
}

#[test]
fn exact_panels_are_of_class_e_for_every_type() {
    for (set, &ty) in sets().iter().flat_map(|s| Type::WEIGHTS.iter().map(move |t| (s, t))) {
        for (blocks, rows, columns) in SHAPES {
            let blocks = if ty.block_values() == 256 {
                blocks.div_ceil(4)
            } else {
                blocks
            };
            check(
                &Case::new(ty, Way::Exact, blocks * ty.block_values(), rows, columns),
                set,
                1e-10,
            );
        }
    }
}

#[test]
fn plain_weights_take_any_number_of_values() {
    for (set, ty) in sets()
        .iter()
        .flat_map(|s| [Type::F32, Type::F16, Type::BF16].map(|t| (s, t)))
    {
        for values in [1, 7, 15, 16, 17, 127, 128, 129, 255, 300] {
            check(&Case::new(ty, Way::Exact, values, 35, 13), set, 1e-10);
        }
    }
}

#[test]
fn rows_without_values_give_zeros() {
    for (_, panels) in sets() {
        let case = Case::new(Type::F32, Way::Exact, 0, 3, 2);
        assert_eq!(run(&case, &panels, &[0, 1]), [[0.0; 3]; 2]);
    }
}

#[test]
fn panels_compute_what_single_columns_do() {
    // over columns that are quantized alike
    for (kernels, panels) in sets().into_iter().filter(|(kernels, _)| kernels.tiles().is_none()) {
        for ty in blocks() {
            let case = Case::new(ty, Way::Integer, 9 * ty.block_values(), 8, 13);
            let columns: Vec<usize> = (0..13).collect();
            let found = run(&case, &panels, &columns).concat();
            let expected = case.run(&select(kernels), &columns).concat();
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            let error = nmse(&found, &expected);
            assert!(error <= 1e-11, "{ty} {kernels}: {error:e}");
        }
    }
}

#[test]
fn bf16_is_finer_than_activations_in_8_bits() {
    for (kernels, panels) in sets().iter().filter(|(kernels, _)| kernels.tiles().is_some()) {
        for ty in blocks() {
            assert_eq!(panels.kernel(ty, false).unwrap().packing, Packing::Halves, "{kernels}");
            check(&Case::new(ty, Way::Integer, 1280, 48, 40), &(*kernels, *panels), 1e-5);
        }
    }
}

#[test]
fn a_column_has_the_same_bits_beside_any_others() {
    for ((kernels, panels), &ty) in sets().iter().flat_map(|s| Type::WEIGHTS.iter().map(move |t| (s, t))) {
        for way in [Way::Exact, Way::Integer]
            .into_iter()
            .filter(|&way| way == Way::Exact || ty.is_quantized())
        {
            let case = Case::new(ty, way, 512, 3, 19);
            let alone = run(&case, panels, &[5]).concat();
            for columns in [vec![5, 0], vec![1, 2, 5], vec![5; 7], (0..19).collect()] {
                let beside = run(&case, panels, &columns);
                for (_, found) in columns.iter().zip(&beside).filter(|(c, _)| **c == 5) {
                    assert_eq!(found, &alone, "{ty} {way:?} {kernels} among {columns:?}");
                }
            }
        }
    }
}

#[test]
fn values_that_are_no_numbers_show_in_the_product() {
    for (kernels, panels) in sets() {
        for (way, value) in [
            (Way::Exact, f32::NAN),
            (Way::Integer, f32::NAN),
            (Way::Integer, f32::INFINITY),
        ] {
            let mut case = Case::new(Type::Q8_0, way, 64, 2, 9);
            case.columns[3][40] = value;
            let found = run(&case, &panels, &[3, 4]);
            assert!(found[0].iter().all(|v| !v.is_finite()), "{kernels} {way:?} {value}");
            assert!(
                found[1].iter().all(|v| v.is_finite()),
                "{kernels} {way:?} {value}: its neighbour"
            );
        }
    }
}
