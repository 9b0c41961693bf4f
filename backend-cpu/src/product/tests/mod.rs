//! The kernels alone: every type, instruction set and way against f64 sums of decoded weights.

mod nodes;
mod panels;

use backend_api::{decode::decode_row, types::Type};

use super::{
    kernel::{Takes, Weights},
    select::{SETS, Selected, Way, select},
};
use crate::kernel_set::{KernelSet, Kernels};

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A sum of uniform numbers with the mean and the deviation of the unit normal.
    fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }

    /// Blocks of random codes with scales of moderate size.
    fn weights(&mut self, ty: Type, values: usize, rows: usize) -> Vec<u8> {
        let bytes = ty.row_bytes(values as u64).unwrap() as usize * rows;
        if ty == Type::F32 {
            return self
                .normals(values * rows)
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect();
        }
        let mut data: Vec<u8> = (0..bytes).map(|_| self.next() as u8).collect();
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            for (place, exponents) in halves(ty) {
                let half = (self.next() as u16 & 0x83ff) | exponents << 10;
                block[*place..place + 2].copy_from_slice(&half.to_le_bytes());
            }
            match ty {
                Type::MXFP4 => block[0] = 120 + (self.next() % 8) as u8,
                Type::BF16 => block[1] = block[1] & 0x80 | 0x3f,
                _ => {}
            }
        }
        data
    }
}

/// Where a block has f16 numbers, and an exponent for them.
fn halves(ty: Type) -> &'static [(usize, u16)] {
    match ty {
        Type::F16 => &[(0, 14)],
        Type::Q4_0 | Type::Q5_0 | Type::Q8_0 | Type::IQ4_NL | Type::IQ4_XS => &[(0, 10)],
        Type::Q4_1 | Type::Q5_1 => &[(0, 10), (2, 12)],
        Type::Q4_K | Type::Q5_K => &[(0, 8), (2, 9)],
        Type::Q2_K => &[(80, 8), (82, 8)],
        Type::Q3_K => &[(108, 8)],
        Type::Q6_K => &[(208, 8)],
        Type::F32 | Type::BF16 | Type::MXFP4 | Type::I32 => &[],
    }
}

/// The sets that this machine has; the others are named.
fn sets() -> Vec<Selected> {
    let available = |set: &KernelSet| {
        let here = set.is_available();
        if !here {
            println!("skipped: this machine has no {set}");
        }
        here
    };
    let forced = KernelSet::ALL
        .into_iter()
        .filter(available)
        .map(|set| Kernels::forced(set).unwrap());
    let mut sets: Vec<Kernels> = forced.flat_map(|k| [k, k.without_vnni()]).collect();
    sets.dedup();
    sets.into_iter().map(select).collect()
}

fn name(set: &Selected, way: Way) -> &'static str {
    SETS[set.kernel(Type::Q8_0, way).unwrap().set]
}

/// W·x of one column, in f64.
fn expected(ty: Type, weights: &[u8], x: &[f32], rows: usize) -> Vec<f64> {
    let mut row = vec![0.0; x.len()];
    let sum = |bytes: &[u8]| {
        decode_row(ty, bytes, &mut row).unwrap();
        row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()
    };
    weights.chunks_exact(weights.len() / rows).map(sum).collect()
}

/// Σ (a − b)² / Σ b².
fn nmse(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let errors = found.iter().zip(expected).map(|(&f, e)| (f64::from(f) - e).powi(2));
    errors.sum::<f64>() / expected.iter().map(|e| e * e).sum::<f64>()
}

/// Bytes at an address that columns may have.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

struct Case {
    ty: Type,
    way: Way,
    values: usize,
    rows: usize,
    weights: Vec<u8>,
    columns: Vec<Vec<f32>>,
}

impl Case {
    fn new(ty: Type, way: Way, values: usize, rows: usize, columns: usize) -> Case {
        let mut random = Random((values * 100 + rows) as u64);
        Case {
            ty,
            way,
            values,
            rows,
            weights: random.weights(ty, values, rows),
            columns: (0..columns).map(|_| random.normals(values)).collect(),
        }
    }

    /// The products of some of the columns, each of them `rows` long, from weights at an odd address.
    fn run(&self, set: &Selected, columns: &[usize]) -> Vec<Vec<f32>> {
        let kernel = set.kernel(self.ty, self.way).unwrap();
        let bytes = Takes::QUANTIZED
            .map(|(_, bytes)| bytes(self.values))
            .into_iter()
            .max()
            .unwrap();
        let mut quantized = vec![vec![Line([0; 64]); bytes.div_ceil(64)]; columns.len()];
        let mut pointers = Vec::new();
        for (quantized, &column) in quantized.iter_mut().zip(columns) {
            let (x, to) = (&self.columns[column], quantized.as_mut_ptr().cast::<u8>());
            pointers.push(match kernel.takes {
                Takes::Plain => x.as_ptr().cast(),
                kind => {
                    // SAFETY: the column has the bytes that it takes, and the set is available.
                    unsafe { set.quantize(kind as usize, x, to) };
                    to.cast_const()
                }
            });
        }
        let (_unaligned, weights) = self.weights();
        let stride = self.rows + 1;
        let mut tile = vec![f32::NAN; stride * columns.len()];
        // SAFETY: rows and columns are whole, and the set is available.
        unsafe { (kernel.product)(&weights, &pointers, &mut tile, stride) };
        let columns = || tile.chunks(stride).map(|column| column.split_at(self.rows));
        assert!(columns().all(|(_, past)| past[0].is_nan()), "written past the tile");
        columns().map(|(values, _)| values.to_vec()).collect()
    }

    /// The weights at an odd address, and the memory that they are in.
    fn weights(&self) -> (Vec<u8>, Weights) {
        let unaligned: Vec<u8> = [0].iter().chain(&self.weights).copied().collect();
        let weights = Weights {
            start: unaligned[1..].as_ptr(),
            stride: self.weights.len() / self.rows,
            rows: self.rows,
            values: self.values,
        };
        (unaligned, weights)
    }

    /// The products of all columns in f64.
    fn expected(&self) -> Vec<f64> {
        let expected = |x: &Vec<f32>| expected(self.ty, &self.weights, x, self.rows);
        self.columns.iter().flat_map(expected).collect()
    }

    fn check(&self, set: &Selected, bound: f64) {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let found = self.run(set, &all).concat();
        let error = nmse(&found, &self.expected());
        let Case {
            ty, way, values, rows, ..
        } = self;
        let set = name(set, *way);
        assert!(
            error <= bound,
            "{ty} {way:?} {set} K={values} M={rows} T={}: {error:e}",
            all.len()
        );
    }
}

fn blocks() -> impl Iterator<Item = Type> {
    Type::WEIGHTS.iter().copied().filter(|t| t.is_quantized())
}

#[test]
fn integer_products_are_of_class_q() {
    for (set, ty) in sets().iter().flat_map(|s| blocks().map(move |t| (s, t))) {
        for (blocks, rows, columns) in [(1, 8, 16), (5, 8, 9), (2, 5, 24), (9, 8, 32), (3, 7, 13), (26, 3, 7)] {
            if blocks > 9 && ty.block_values() == 256 {
                continue; // for tails of sixteen smaller blocks; so few sums of so many values vary too much
            }
            Case::new(ty, Way::Integer, blocks * ty.block_values(), rows, columns).check(set, 1e-4);
        }
    }
}

#[test]
fn exact_products_are_of_class_e_for_every_type() {
    for (set, &ty) in sets().iter().flat_map(|s| Type::WEIGHTS.iter().map(move |t| (s, t))) {
        for (blocks, rows, columns) in [(1, 1, 1), (7, 8, 1), (3, 5, 3), (9, 8, 32), (31, 7, 13)] {
            let blocks = if ty.block_values() == 256 { blocks % 4 } else { blocks };
            Case::new(ty, Way::Exact, blocks * ty.block_values(), rows, columns).check(set, 1e-10);
        }
    }
}

#[test]
fn plain_weights_take_any_number_of_values() {
    for (set, ty) in sets()
        .iter()
        .flat_map(|s| [Type::F32, Type::F16, Type::BF16].map(|t| (s, t)))
    {
        for values in [1, 4, 7, 15, 16, 17, 255, 257, 300] {
            Case::new(ty, Way::Exact, values, 3, 2).check(set, 1e-10);
        }
    }
}

#[test]
fn a_column_has_the_same_bits_beside_any_others() {
    for (set, &ty) in sets().iter().flat_map(|s| Type::WEIGHTS.iter().map(move |t| (s, t))) {
        for way in [Way::Exact, Way::Integer]
            .into_iter()
            .filter(|&way| way == Way::Exact || ty.is_quantized())
        {
            let case = Case::new(ty, way, 512, 3, 12);
            let alone = case.run(set, &[5]).concat();
            for columns in [
                vec![5, 0],
                vec![1, 2, 5],
                vec![5, 5, 5, 5, 5],
                (0..8).collect(),
                (0..12).collect(),
            ] {
                let beside = case.run(set, &columns);
                for (_, found) in columns.iter().zip(&beside).filter(|(c, _)| **c == 5) {
                    assert_eq!(found, &alone, "{ty} {way:?} {} among {columns:?}", name(set, way));
                }
            }
        }
    }
}

#[test]
fn values_that_are_no_numbers_show_in_the_product() {
    for set in sets() {
        for (way, value) in [
            (Way::Exact, f32::NAN),
            (Way::Integer, f32::NAN),
            (Way::Integer, f32::INFINITY),
        ] {
            let mut case = Case::new(Type::Q8_0, way, 64, 2, 1);
            case.columns[0][40] = value;
            assert!(
                case.run(&set, &[0]).concat().iter().all(|v| !v.is_finite()),
                "{way:?} {value}"
            );
        }
    }
}

#[test]
fn a_column_of_zeros_gives_zeros() {
    for (set, ty) in sets().iter().flat_map(|s| blocks().map(move |t| (s, t))) {
        let mut case = Case::new(ty, Way::Integer, 256, 2, 1);
        case.columns[0].fill(0.0);
        assert_eq!(case.run(set, &[0]), [[0.0; 2]], "{ty}");
    }
}
