//! What is written to a device before it runs: weights as the file has them, and what the file has in another form than
//! graphs do.

use backend_api::{BackendError, Result, contract::BufferId, decode, graph::Tensor, types::Type};
use models::gguf::{Gguf, TensorInfo, TensorType};

use super::{
    device::Device,
    plan::{Plan, Source},
};

/// Writes what `source` says to `offset` of a buffer.
pub fn write(device: &Device, buffer: BufferId, offset: u64, source: Source, plan: &Plan, file: &Gguf) -> Result<()> {
    let info = |tensor: usize| &file.tensors()[tensor];
    let alone = |weight: Tensor| Tensor {
        buffer: 0,
        offset: 0,
        ..weight
    };
    match source {
        Source::Weight(tensor, weight) => device.upload(buffer, offset, &alone(weight), file.data(info(tensor))),
        Source::Rewritten(tensor, weight) => {
            let data = rewritten(info(tensor), file.data(info(tensor)))?;
            device.upload(buffer, offset, &alone(weight), &data)
        }
        Source::Widened(tensor) => {
            let values = widened(info(tensor), file.data(info(tensor)))?;
            device.write(buffer, offset, &bytes_of(&values))
        }
        Source::Constant(index) => device.write(buffer, offset, &bytes_of(&plan.constants[&index])),
    }
}

/// Bytes that are read of a source.
pub fn bytes(source: Source, plan: &Plan, file: &Gguf) -> u64 {
    match source {
        Source::Weight(tensor, _) | Source::Rewritten(tensor, _) | Source::Widened(tensor) => {
            file.data(&file.tensors()[tensor]).len() as u64
        }
        Source::Constant(index) => size_of_val(&plan.constants[&index][..]) as u64,
    }
}

/// Gives the pages of the map back that `source` was read from.
pub fn release(source: Source, file: &Gguf) {
    match source {
        Source::Weight(tensor, _) | Source::Rewritten(tensor, _) | Source::Widened(tensor) => {
            file.release(&file.tensors()[tensor]);
        }
        Source::Constant(_) => {}
    }
}

/// A tensor as f32.
fn widened(info: &TensorInfo, data: &[u8]) -> Result<Vec<f32>> {
    let TensorType::Known(ty) = info.kind else {
        return Err(unsupported(info));
    };
    let mut values = vec![0.0; info.values() as usize];
    decode::decode_row(ty, data, &mut values)?;
    Ok(values)
}

/// A tensor of the older MXFP4 in the usual order.
fn rewritten(info: &TensorInfo, data: &[u8]) -> Result<Vec<u8>> {
    let (TensorType::Mxfp4Old, (blocks, [])) = (info.kind, data.as_chunks::<MXFP4>()) else {
        return Err(unsupported(info));
    };
    let mut usual = vec![0; data.len()];
    for (to, from) in usual.as_chunks_mut().0.iter_mut().zip(blocks) {
        *to = usual_order(from);
    }
    Ok(usual)
}

const MXFP4: usize = Type::MXFP4.block_bytes();

/// A block of 32 nibbles after their exponent: byte j holds values 2j and 2j + 1 in older files, j and j + 16 usually.
fn usual_order(block: &[u8; MXFP4]) -> [u8; MXFP4] {
    let mut usual = *block;
    let (first, second) = (&block[1..9], &block[9..]);
    for j in 0..8 {
        usual[1 + 2 * j] = first[j] & 15 | second[j] << 4;
        usual[2 + 2 * j] = first[j] >> 4 | second[j] & 0xF0;
    }
    usual
}

fn unsupported(info: &TensorInfo) -> BackendError {
    BackendError::unsupported(format!("tensor {} of type {}", info.name, info.kind))
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_were_neighbours_come_to_lie_in_the_two_halves() {
        let value = |i: usize| (i * 7 % 16) as u8;
        let older = |j: usize| value(2 * j) | value(2 * j + 1) << 4;
        let usual = |j: usize| value(j) | value(j + 16) << 4;
        let block = |byte: &dyn Fn(usize) -> u8| {
            let mut block = [120; MXFP4];
            (0..16).for_each(|j| block[1 + j] = byte(j));
            block
        };
        assert_eq!(usual_order(&block(&older)), block(&usual));
    }
}
