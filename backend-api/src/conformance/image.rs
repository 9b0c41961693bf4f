//! What lies in memory before a run: garbage, and over it the elements that a step may read.

use super::random::mix;
use crate::graph::{Step, Tensor};

/// What memory holds where nothing was written. Both kinds differ from place to place, so that a value computed from
/// garbage is not garbage that was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbage {
    /// NaN as f32, f16, bf16 and as the scale of a block; as i32 far out of range.
    NotNumbers,
    /// Numbers around 50 as f32 and bf16, around 3 as f16: what `max` and NaN-blind comparisons would not notice.
    Numbers,
}

/// Fills memory with garbage; `seed` tells memories apart.
pub(super) fn litter(kind: Garbage, seed: u64, bytes: &mut [u8]) {
    let base: u16 = match kind {
        Garbage::NotNumbers => 0x7fc0,
        Garbage::Numbers => 0x4240,
    };
    for (i, half) in bytes.chunks_mut(2).enumerate() {
        let low = mix(seed ^ (i as u64)) as u16 & 0x3f;
        half.copy_from_slice(&(base | low).to_le_bytes()[..half.len()]);
    }
}

/// The blocks (or elements) of a tensor in a step: (index in the order of the largest step, byte in the buffer).
pub(super) fn blocks(tensor: &Tensor, step: &Step) -> Vec<(usize, usize)> {
    let block = tensor.kind().map_or(1, |ty| ty.block_values() as u32);
    let (mut most, mut dims) = (tensor.dims, tensor.dims_in(step));
    (most[0], dims[0]) = (most[0].div_ceil(block), dims[0].div_ceil(block));
    let mut all = Vec::new();
    for i3 in 0..dims[3] {
        for i2 in 0..dims[2] {
            for i1 in 0..dims[1] {
                for i0 in 0..dims[0] {
                    let index = [i0, i1, i2, i3];
                    all.push((flat(index, most), byte_of(tensor, index)));
                }
            }
        }
    }
    all
}

fn flat(index: [u32; 4], dims: [u32; 4]) -> usize {
    (0..4).rev().fold(0, |at, i| at * dims[i] as usize + index[i] as usize)
}

fn byte_of(tensor: &Tensor, index: [u32; 4]) -> usize {
    let along = |i: usize| i64::from(index[i]) * if index[i] == 0 { 0 } else { tensor.strides[i] };
    (tensor.offset as i64 + (0..4).map(along).sum::<i64>()) as usize
}

/// The values of a tensor.
#[derive(Clone)]
pub(super) struct Content {
    /// Index of the tensor.
    pub tensor: u32,
    /// Its blocks at the largest step, side by side.
    pub bytes: Vec<u8>,
    /// The rows (along dim 0) that hold values, the rest being garbage; all where it is empty.
    pub rows: Vec<bool>,
}

impl Content {
    /// Every element.
    pub fn new(tensor: u32, bytes: Vec<u8>) -> Content {
        Content {
            tensor,
            bytes,
            rows: Vec::new(),
        }
    }

    /// Writes the elements of a step into the tensor's buffer.
    pub fn place(&self, tensor: &Tensor, step: &Step, buffer: &mut [u8]) {
        let Some(ty) = tensor.kind() else { return };
        let (size, row) = (
            ty.block_bytes(),
            (tensor.dims[0] as usize).div_ceil(ty.block_values()).max(1),
        );
        for (index, at) in blocks(tensor, step) {
            if self.rows.is_empty() || self.rows[index / row] {
                buffer[at..at + size].copy_from_slice(&self.bytes[index * size..(index + 1) * size]);
            }
        }
    }

    /// The content whose column i along `axis`, above which there are no dims, is this one's column `columns[i]`.
    pub fn select(&self, tensor: &Tensor, columns: &[u32]) -> Content {
        let most = tensor.dims[usize::from(tensor.axis & 3)] as usize;
        let (column, row) = (self.bytes.len() / most, self.rows.len() / most);
        let mut chosen = self.clone();
        for (to, from) in columns.iter().map(|&c| c as usize).enumerate() {
            chosen.bytes[to * column..(to + 1) * column]
                .copy_from_slice(&self.bytes[from * column..(from + 1) * column]);
            chosen.rows[to * row..(to + 1) * row].copy_from_slice(&self.rows[from * row..(from + 1) * row]);
        }
        chosen
    }
}

/// Values as bytes.
pub(super) fn bytes_of_f32(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Numbers as bytes.
pub(super) fn bytes_of_i32(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// f32 values of bytes.
pub(super) fn f32_of_bytes(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<4>().0;
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{graph::Symbol, types::Type};

    #[test]
    fn only_the_elements_of_the_step_are_placed() {
        let mut tensor = Tensor::contiguous(Type::F32, [2, 3, 1, 1], 0, 4)
            .unwrap()
            .symbolic(Symbol::Tokens, 1);
        tensor.strides[1] = 12;
        let step = Step {
            tokens: 2,
            ..Step::default()
        };
        let mut buffer = vec![0; 40];
        let content = Content::new(0, bytes_of_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        content.place(&tensor, &step, &mut buffer);
        let values = f32_of_bytes(&buffer);
        assert_eq!(values, [0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn garbage_is_no_number_in_any_float_type_and_differs_from_place_to_place() {
        let mut bytes = [0; 64];
        litter(Garbage::NotNumbers, 3, &mut bytes);
        assert!(f32_of_bytes(&bytes).iter().all(|x| x.is_nan()));
        assert!(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .all(|&b| half::f16::from_le_bytes(b).is_nan())
        );
        assert_ne!(bytes[..32], bytes[32..]);
    }
}
