//! Keys and values as f32.

use backend_api::types::Type;
use half::f16;

use crate::{kernel_set::Kernels, lanes::kernel, view::View};

/// Decodes the row at `cell` (entry, head, page) of a pool.
pub fn decode(kernels: Kernels, pool: &View, cell: [usize; 3], row: &mut [f32]) {
    let bytes = match pool.ty() {
        Type::F32 => return row.copy_from_slice(pool.row(cell)),
        _ => pool.bytes(cell),
    };
    match pool.ty() {
        Type::F16 => from_f16(kernels, row, bytes),
        Type::Q8_0 => from_q8_0(kernels, row, bytes),
        _ => from_q4_0(kernels, row, bytes),
    }
}

kernel! {
    fn from_f16(row: &mut [f32], bytes: &[u8]) {
        let (chunks, rest) = row.as_chunks_mut::<16>();
        let halves = bytes.as_chunks::<2>().0;
        let (sixteens, last) = halves.as_chunks::<16>();
        for (out, halves) in chunks.iter_mut().zip(sixteens) {
            *out = L::store(L::widen(&halves.map(u16::from_le_bytes)));
        }
        for (out, half) in rest.iter_mut().zip(last) {
            *out = f16::from_le_bytes(*half).to_f32();
        }
    }
}

kernel! {
    fn from_q8_0(row: &mut [f32], bytes: &[u8]) {
        for (out, block) in row.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
            let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (out, &code) in out.iter_mut().zip(&block[2..]) {
                *out = d * f32::from(code as i8);
            }
        }
    }
}

kernel! {
    fn from_q4_0(row: &mut [f32], bytes: &[u8]) {
        for (out, block) in row.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
            let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
            let (low, high) = out.split_at_mut(16);
            for ((low, high), &code) in low.iter_mut().zip(high).zip(&block[2..]) {
                *low = d * (f32::from(code & 15) - 8.0);
                *high = d * (f32::from(code >> 4) - 8.0);
            }
        }
    }
}
