//! `rows`, `copy` and `cache_store`: values by index, and from one type to another.

use backend_api::{decode::decode_row, encode::encode_row, operations::word, types::Type};
use half::{bf16, f16};

use super::split;
use crate::{
    lanes::{WIDTH, kernel, padded},
    program::{Context, Operands},
    view::View,
};

/// Decoded rows of a table by ids; ids outside of it take row 0.
pub fn rows(context: &Context<'_>, operands: &Operands<'_>) {
    let (table, ids, output) = (operands.input(0), operands.input(1), operands.output());
    let scale = operands.f32(word::rows::SCALE);
    let [d, n, ..] = table.dims();
    if n == 0 {
        return;
    }
    split::rows(context, output.rows(), 4 * d, |row| {
        let [a, b, c] = output.row_index(row);
        let id = usize::try_from(ids.i32(a, [b, c, 0])).unwrap_or(0);
        // SAFETY: rows are disjoint, and the table shares no byte with the output.
        let y = unsafe { output.row_mut([a, b, c]) };
        decode(table, [if id < n { id } else { 0 }, 0, 0], y);
        if scale != 1.0 {
            y.iter_mut().for_each(|y| *y *= scale);
        }
    });
}

/// Decodes row `i` of a view, which may skip elements if it is f32.
pub fn decode(view: &View, i: [usize; 3], out: &mut [f32]) {
    if view.is_dense() {
        // A validated tensor's rows are whole blocks of a type that decodes.
        let _ = decode_row(view.ty(), view.bytes(i), out);
    } else {
        out.iter_mut().enumerate().for_each(|(j, y)| *y = view.f32(j, i));
    }
}

/// Encodes keys or values into the cells of the cache that the slots name; slots outside of it are skipped.
pub fn cache_store(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, slots, pool) = (operands.input(0), operands.input(1), operands.output());
    let [hd, heads, tokens, _] = x.dims();
    let [_, per_page, _, pages] = pool.dims();
    split::rows(context, tokens, 4 * hd * heads, |t| {
        let slot = usize::try_from(slots.i32(t, [0; 3])).ok();
        let Some(slot) = slot.filter(|slot| slot / per_page < pages) else {
            return;
        };
        for head in 0..heads {
            // SAFETY: the slots of a step differ, so no other thread has this cell.
            let cell = unsafe { pool.bytes_mut([slot % per_page, head, slot / per_page]) };
            match pool.ty() {
                Type::F16 => narrow(context.kernels, x.row([head, t, 0]), cell),
                // A validated pool has one of the types that encode, and whole blocks.
                ty => drop(encode_row(ty, x.row([head, t, 0]), cell)),
            }
        }
    });
}

kernel! {
    /// Encodes numbers as f16.
    fn narrow(x: &[f32], out: &mut [u8]) {
        for (x, out) in x.chunks(WIDTH).zip(out.chunks_mut(2 * WIDTH)) {
            for (half, out) in L::narrow(padded::<L>(x)).iter().zip(out.as_chunks_mut().0) {
                *out = half.to_le_bytes();
            }
        }
    }
}

/// The same values, in another type or place.
pub fn copy(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, output) = (operands.input(0), operands.output());
    split::pieces(context, output, |i, range| {
        let bytes = output.ty().block_bytes();
        // SAFETY: pieces are disjoint, lie inside their row, and share no byte with `x`.
        let y = unsafe {
            let start = output.row_ptr(i).add(range.start * bytes);
            std::slice::from_raw_parts_mut(start, range.len() * bytes)
        };
        if x.ty() == output.ty() && x.is_dense() {
            y.copy_from_slice(&x.bytes(i)[range.start * bytes..range.end * bytes]);
        } else if bytes == 4 {
            let word = |j| word_at(x, j, i).to_le_bytes();
            y.as_chunks_mut()
                .0
                .iter_mut()
                .zip(range)
                .for_each(|(y, j)| *y = word(j));
        } else {
            let half = |j| half_at(x, j, i, output.ty()).to_le_bytes();
            y.as_chunks_mut()
                .0
                .iter_mut()
                .zip(range)
                .for_each(|(y, j)| *y = half(j));
        }
    });
}

/// An element as the bits of an f32, or of the i32 that it is.
fn word_at(x: &View, j: usize, i: [usize; 3]) -> u32 {
    match x.ty() {
        Type::F16 => f16::from_bits(x.load(j, i)).to_f32().to_bits(),
        Type::BF16 => bf16::from_bits(x.load(j, i)).to_f32().to_bits(),
        _ => x.i32(j, i) as u32,
    }
}

/// An element as the bits of an f16 or bf16.
fn half_at(x: &View, j: usize, i: [usize; 3], ty: Type) -> u16 {
    if x.ty() == ty {
        return x.load(j, i);
    }
    let value = f32::from_bits(word_at(x, j, i));
    match ty {
        Type::BF16 => bf16::from_f32(value).to_bits(),
        _ => f16::from_f32(value).to_bits(),
    }
}
