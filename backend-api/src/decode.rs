//! Decoding of every element and block type to f32, bit for bit as the file format defines it.
//!
//! Layouts and formulas are those of GGUF, as ggml's `ggml-quants.c` and the `gguf` Python package have them. Scales are
//! multiplied before values: `(d·scale)·q − dmin·min`, each step rounded to f32.

use half::{bf16, f16};

use crate::{
    error::{BackendError, Result},
    types::Type,
};

/// The values of IQ4_NL and IQ4_XS.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of MXFP4, doubled: E2M1 numbers are halves. Zero has no sign.
pub const MXFP4_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Decodes a row of `out.len()` values.
///
/// # Errors
/// `Invalid` where the block does not divide the row or `bytes` has not exactly the row's length; `Unsupported` for I32,
/// whose numbers are ids and not values.
pub fn decode_row(ty: Type, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if ty.row_bytes(out.len() as u64) != Some(bytes.len() as u64) {
        return Err(BackendError::invalid(format!(
            "{} bytes are no row of {} values of {ty}: {} bytes hold {} values",
            bytes.len(),
            out.len(),
            ty.block_bytes(),
            ty.block_values(),
        )));
    }
    match ty {
        Type::F32 => blocks(bytes, out, |b, [v]: &mut [f32; 1]| *v = f32::from_le_bytes(*b)),
        Type::F16 => blocks(bytes, out, |b: &[u8; 2], [v]: &mut [f32; 1]| *v = f16_at(b, 0)),
        Type::BF16 => blocks(bytes, out, |b, [v]: &mut [f32; 1]| {
            *v = bf16::from_le_bytes(*b).to_f32()
        }),
        Type::Q4_0 => blocks(bytes, out, q4_0),
        Type::Q4_1 => blocks(bytes, out, q4_1),
        Type::Q5_0 => blocks(bytes, out, q5_0),
        Type::Q5_1 => blocks(bytes, out, q5_1),
        Type::Q8_0 => blocks(bytes, out, q8_0),
        Type::Q2_K => blocks(bytes, out, q2_k),
        Type::Q3_K => blocks(bytes, out, q3_k),
        Type::Q4_K => blocks(bytes, out, q4_k),
        Type::Q5_K => blocks(bytes, out, q5_k),
        Type::Q6_K => blocks(bytes, out, q6_k),
        Type::IQ4_NL => blocks(bytes, out, iq4_nl),
        Type::IQ4_XS => blocks(bytes, out, iq4_xs),
        Type::MXFP4 => blocks(bytes, out, mxfp4),
        Type::I32 => return Err(BackendError::unsupported("I32 holds ids, which decode to no values")),
    }
    Ok(())
}

/// Two to the power e − 127 for MXFP4's scale byte. 255 is NaN by the standard; files are read as 2^128.
pub fn e8m0(e: u8) -> f64 {
    f64::from_bits((u64::from(e) + 1023 - 127) << 52)
}

fn blocks<const B: usize, const V: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn(&[u8; B], &mut [f32; V])) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Sets `out[j]` from the low nibble of byte j, and `out[j + n]` from its high nibble, n being the number of bytes.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let n = bytes.len();
    for (j, &byte) in bytes.iter().enumerate() {
        out[j] = value(j, byte & 15);
        out[j + n] = value(j + n, byte >> 4);
    }
}

fn q4_0(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    nibbles(&b[2..], out, |_, q| (f32::from(q) - 8.0) * d);
}

fn q4_1(b: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (f16_at(b, 0), f16_at(b, 2));
    nibbles(&b[4..], out, |_, q| f32::from(q) * d + m);
}

/// The fifth bit of value `j`, in place.
fn fifth(high: u32, j: usize) -> u8 {
    ((high >> j & 1) << 4) as u8
}

fn q5_0(b: &[u8; 22], out: &mut [f32; 32]) {
    let (d, high) = (f16_at(b, 0), u32_at(b, 2));
    nibbles(&b[6..], out, |j, q| (f32::from(q | fifth(high, j)) - 16.0) * d);
}

fn q5_1(b: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m, high) = (f16_at(b, 0), f16_at(b, 2), u32_at(b, 4));
    nibbles(&b[8..], out, |j, q| f32::from(q | fifth(high, j)) * d + m);
}

fn q8_0(b: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    for (value, &q) in out.iter_mut().zip(&b[2..]) {
        *value = f32::from(q as i8) * d;
    }
}

/// Bits 2k and 2k + 1 of byte l of each half's 32 bytes: value 32k + l of that half (Q2_K, Q3_K, high bits of Q6_K).
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
    bytes[32 * half + l] >> (2 * k) & 3
}

fn q2_k(b: &[u8; 84], out: &mut [f32; 256]) {
    let (scales, quants) = (&b[..16], &b[16..80]);
    let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
    for (g, group) in out.chunks_exact_mut(16).enumerate() {
        let (scale, min) = (d * f32::from(scales[g] & 15), dmin * f32::from(scales[g] >> 4));
        for (l, value) in group.iter_mut().enumerate() {
            *value = scale * f32::from(two_bits(quants, 16 * g + l)) - min;
        }
    }
}

/// Scale `g` of Q3_K: four low bits in bytes 0–7, two high bits in bytes 8–11, less 32.
fn q3_k_scale(s: &[u8], g: usize) -> f32 {
    let low = s[g % 8] >> (4 * (g / 8)) & 15;
    let high = s[8 + g % 4] >> (2 * (g / 4)) & 3;
    f32::from(low | high << 4) - 32.0
}

fn q3_k(b: &[u8; 110], out: &mut [f32; 256]) {
    let (mask, quants, scales, d) = (&b[..32], &b[32..96], &b[96..108], f16_at(b, 108));
    for (g, group) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * q3_k_scale(scales, g);
        for (l, value) in group.iter_mut().enumerate() {
            let i = 16 * g + l;
            let high = mask[i % 32] >> (i / 32) & 1;
            *value = scale * (f32::from(two_bits(quants, i) | high << 2) - 4.0);
        }
    }
}

/// Scale and minimum of group `g` of Q4_K and Q5_K, six bits each in twelve bytes.
fn k_scale_min(s: &[u8], g: usize) -> (u8, u8) {
    if g < 4 {
        return (s[g] & 63, s[g + 4] & 63);
    }
    let (low, high) = (s[g + 4] & 15, s[g + 4] >> 4);
    (low | s[g - 4] >> 6 << 4, high | s[g] >> 6 << 4)
}

/// Q4_K and Q5_K: 64 values from every 32 bytes, the fifth bit of group g's value l from bit g of `high(l)`.
fn k_nibbles(head: &[u8], quants: &[u8], out: &mut [f32; 256], high: impl Fn(usize) -> u8) {
    let (d, dmin, scales) = (f16_at(head, 0), f16_at(head, 2), &head[4..16]);
    let affine: [(f32, f32); 8] = std::array::from_fn(|g| {
        let (scale, min) = k_scale_min(scales, g);
        (d * f32::from(scale), dmin * f32::from(min))
    });
    for (pair, (bytes, values)) in quants.chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        nibbles(bytes, values, |j, q| {
            let (g, l) = (2 * pair + j / 32, j % 32);
            let (scale, min) = affine[g];
            scale * f32::from(q | (high(l) >> g & 1) << 4) - min
        });
    }
}

fn q4_k(b: &[u8; 144], out: &mut [f32; 256]) {
    k_nibbles(&b[..16], &b[16..], out, |_| 0);
}

fn q5_k(b: &[u8; 176], out: &mut [f32; 256]) {
    k_nibbles(&b[..16], &b[48..], out, |l| b[16 + l]);
}

fn q6_k(b: &[u8; 210], out: &mut [f32; 256]) {
    let (low, high, scales, d) = (&b[..128], &b[128..192], &b[192..208], f16_at(b, 208));
    for (g, group) in out.chunks_exact_mut(16).enumerate() {
        let scale = d * f32::from(scales[g] as i8);
        for (l, value) in group.iter_mut().enumerate() {
            let i = 16 * g + l;
            let (half, j) = (i / 128, i % 128);
            let nibble = low[64 * half + j % 64] >> (4 * (j / 64)) & 15;
            *value = scale * (f32::from(nibble | two_bits(high, i) << 4) - 32.0);
        }
    }
}

fn iq4_nl(b: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at(b, 0);
    nibbles(&b[2..], out, |_, q| d * f32::from(IQ4_VALUES[usize::from(q)]));
}

fn iq4_xs(b: &[u8; 136], out: &mut [f32; 256]) {
    let (d, scales_high, scales_low) = (f16_at(b, 0), u16::from_le_bytes([b[2], b[3]]), &b[4..8]);
    for (g, (bytes, values)) in b[8..].chunks_exact(16).zip(out.chunks_exact_mut(32)).enumerate() {
        let low = scales_low[g / 2] >> (4 * (g % 2)) & 15;
        let high = (scales_high >> (2 * g) & 3) as u8;
        let scale = d * (f32::from(low | high << 4) - 32.0);
        nibbles(bytes, values, |_, q| scale * f32::from(IQ4_VALUES[usize::from(q)]));
    }
}

fn mxfp4(b: &[u8; 17], out: &mut [f32; 32]) {
    let half = e8m0(b[0]) / 2.0;
    nibbles(&b[1..], out, |_, q| {
        (half * f64::from(MXFP4_DOUBLED[usize::from(q)])) as f32
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn quants() -> Vec<u8> {
        std::fs::read(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fixtures/quants.safetensors"
        ))
        .unwrap()
    }

    #[test]
    fn every_block_type_decodes_to_the_bits_of_an_independent_implementation() {
        let file = quants();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        for ty in Type::ALL.into_iter().filter(|t| t.is_quantized()) {
            let raw = tensors.tensor(&format!("{ty}.raw")).unwrap();
            let expected = tensors.tensor(&format!("{ty}.f32")).unwrap();
            let rows = raw.data().chunks_exact(raw.shape()[1]);
            for (r, (row, expected)) in rows.zip(expected.data().chunks_exact(4096)).enumerate() {
                let mut values = [0.0; 1024];
                decode_row(ty, row, &mut values).unwrap();
                for (i, (value, expected)) in values.iter().zip(expected.as_chunks().0).enumerate() {
                    let expected = f32::from_le_bytes(*expected);
                    assert_eq!(
                        value.to_bits(),
                        expected.to_bits(),
                        "{ty} row {r} value {i}: {value} for {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn plain_types_widen_exactly() {
        let mut out = [0.0; 2];
        decode_row(Type::F32, &[0, 0, 128, 63, 1, 0, 0, 0], &mut out).unwrap();
        assert_eq!(out, [1.0, f32::from_bits(1)]);
        decode_row(Type::F16, &[0, 0x3c, 1, 0], &mut out).unwrap();
        assert_eq!(out, [1.0, 2f32.powi(-24)]);
        decode_row(Type::BF16, &[0x80, 0x3f, 0x80, 0xff], &mut out).unwrap();
        assert_eq!(out, [1.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn mxfp4_reads_scale_255_as_2_to_the_128() {
        let mut out = [0.0; 32];
        let block: [u8; 17] = std::array::from_fn(|i| if i == 0 { 255 } else { [0x10, 0x92][i % 2] });
        decode_row(Type::MXFP4, &block, &mut out).unwrap();
        assert_eq!(&out[..2], &[f32::INFINITY, 0.0]);
        assert_eq!(&out[16..18], &[-(2f32.powi(127)), 2f32.powi(127)]);
    }

    #[test]
    fn mxfp4_keeps_the_smallest_scale() {
        let mut out = [0.0; 32];
        decode_row(Type::MXFP4, &[[0, 1].as_slice(), &[0; 15]].concat(), &mut out).unwrap();
        assert_eq!(out[0], f32::from_bits(1 << 21));
    }

    #[test]
    fn a_row_of_another_length_is_refused() {
        let mut out = [0.0; 32];
        assert!(decode_row(Type::Q8_0, &[0; 33], &mut out).is_err());
        assert!(decode_row(Type::Q8_0, &[0; 68], &mut out).is_err());
        assert!(decode_row(Type::Q4_K, &[0; 18], &mut out).is_err());
        assert!(decode_row(Type::I32, &[0; 128], &mut out).unwrap_err().is_refusal());
    }
}
