//! Queries in whole numbers, which are multiplied with the codes of keys as they are.

use backend_api::types::Type;

use super::{
    WIDEST,
    part::{CELLS, HEADS},
};
use crate::{
    kernel_set::Kernels,
    lanes::{WIDTH, kernel},
};

/// Values of a block.
pub const BLOCK: usize = 32;
/// Blocks of a head at most.
pub const BLOCKS: usize = WIDEST / BLOCK;

/// Sixteens of positions that are scored at a time.
pub const SIXTEENS: usize = CELLS / WIDTH;

/// What the values of the positions at work are multiplied with.
#[repr(C, align(64))]
pub struct Room {
    /// The scales of their blocks, and zeros after the last sixteen.
    pub scales: [[[f32; WIDTH]; BLOCKS]; SIXTEENS + 1],
    /// What a one of the weights is worth, by block.
    pub units: [f32; BLOCKS],
    /// The largest weight of each head, which the others are relative to.
    pub tops: [f32; HEADS],
    /// Weights times scales in 16 bits, those of two sixteens side by side.
    pub weights: [[[[i32; WIDTH]; SIXTEENS / 2]; HEADS]; BLOCKS],
}

/// Queries rounded to 8 bits, and room for weights.
#[repr(C, align(64))]
pub struct Queries {
    pub room: Room,
    pub codes: [[i8; WIDEST]; HEADS],
    /// What the sum over a block begins with, so that what makes the keys' codes unsigned is taken off.
    pub starts: [[i32; BLOCKS]; HEADS],
    pub scales: [f32; HEADS],
}

impl Queries {
    /// Queries of zeros.
    pub fn new() -> Queries {
        Queries {
            room: Room {
                scales: [[[0.0; WIDTH]; BLOCKS]; SIXTEENS + 1],
                units: [0.0; BLOCKS],
                tops: [1.0; HEADS],
                weights: [[[[0; WIDTH]; SIXTEENS / 2]; HEADS]; BLOCKS],
            },
            codes: [[0; WIDEST]; HEADS],
            starts: [[0; BLOCKS]; HEADS],
            scales: [0.0; HEADS],
        }
    }

    /// Rounds query `i`, for keys of a type.
    pub fn set(&mut self, kernels: Kernels, i: usize, q: &[f32], ty: Type) {
        self.scales[i] = round(kernels, q, &mut self.codes[i], &mut self.starts[i], offset(ty));
    }
}

/// What is added to the codes of a type, so that they are unsigned.
fn offset(ty: Type) -> i32 {
    if ty == Type::Q4_0 { 8 } else { 128 }
}

kernel! {
    /// Rounds a query of whole blocks to codes; gives their scale.
    fn round(q: &[f32], codes: &mut [i8; WIDEST], starts: &mut [i32; BLOCKS], offset: i32) -> f32 {
        let mut largest = L::splat(0.0);
        for x in q.as_chunks().0 {
            let x = L::load(x);
            largest = L::max(x, L::max(L::mul_add(x, L::splat(-1.0), L::splat(0.0)), largest));
        }
        let largest = L::largest(largest);
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (code, x) in codes.iter_mut().zip(q) {
            *code = (x * inverse).round_ties_even() as i8;
        }
        for (start, codes) in starts.iter_mut().zip(codes.as_chunks::<BLOCK>().0) {
            *start = -offset * codes.iter().map(|&code| i32::from(code)).sum::<i32>();
        }
        largest / 127.0
    }
}

/// Whether attention to pages of these types goes through whole numbers, where it may round.
pub fn serves(kernels: Kernels, keys: Type, values: Type) -> bool {
    cfg!(target_arch = "x86_64") && kernels.vnni() && keys == values && matches!(keys, Type::Q8_0 | Type::Q4_0)
}
