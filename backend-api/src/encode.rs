//! Encoding of what a backend writes: the types of the cache, and f32 to f16 and bf16.

use half::{bf16, f16};

use crate::{
    error::{BackendError, Result},
    types::Type,
};

/// Encodes a row: f32, f16 and bf16 to nearest even, q8_0 and q4_0 in blocks of 32.
///
/// q8_0 has d = max|x|/127 and codes x/d to nearest; q4_0 has d = −m/8, m being the signed value of largest magnitude
/// (the first of equals), and codes min(15, ⌊x/d + 8.5⌋). Codes are taken with d before it is rounded to f16, and a block
/// of zeros has d = 0.
///
/// # Errors
/// `Unsupported` for other types; `Invalid` where the block does not divide the row or `out` has not exactly the row's
/// length.
pub fn encode_row(ty: Type, values: &[f32], out: &mut [u8]) -> Result<()> {
    if ty.row_bytes(values.len() as u64) != Some(out.len() as u64) {
        return Err(BackendError::invalid(format!(
            "{} values of {ty} do not fill {} bytes: {} values take {} bytes",
            values.len(),
            out.len(),
            ty.block_values(),
            ty.block_bytes(),
        )));
    }
    match ty {
        Type::F32 => blocks(values, out, |[x]: &[f32; 1], b| *b = x.to_le_bytes()),
        Type::F16 => blocks(values, out, |[x]: &[f32; 1], b| *b = f16::from_f32(*x).to_le_bytes()),
        Type::BF16 => blocks(values, out, |[x]: &[f32; 1], b| *b = bf16::from_f32(*x).to_le_bytes()),
        Type::Q8_0 => blocks(values, out, q8_0),
        Type::Q4_0 => blocks(values, out, q4_0),
        _ => return Err(BackendError::unsupported(format!("nothing is encoded to {ty}"))),
    }
    Ok(())
}

fn blocks<const V: usize, const B: usize>(values: &[f32], out: &mut [u8], encode: impl Fn(&[f32; V], &mut [u8; B])) {
    for (values, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        encode(values, block);
    }
}

/// The value of largest magnitude; the first of equals.
fn extreme(values: &[f32; 32]) -> f32 {
    values.iter().fold(0.0, |m, &x| if x.abs() > m.abs() { x } else { m })
}

/// x/d, and 0 for the block of zeros.
fn quotient(x: f32, d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { x / d }
}

fn q8_0(values: &[f32; 32], block: &mut [u8; 34]) {
    let d = extreme(values).abs() / 127.0;
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (code, &x) in block[2..].iter_mut().zip(values) {
        *code = quotient(x, d).round() as i8 as u8;
    }
}

fn q4_0(values: &[f32; 32], block: &mut [u8; 18]) {
    let d = extreme(values) / -8.0;
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let code = |x: f32| ((quotient(x, d) + 8.5) as u8).min(15);
    for j in 0..16 {
        block[2 + j] = code(values[j]) | code(values[j + 16]) << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode_row;

    fn encoded(ty: Type, values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0xAA; ty.row_bytes(values.len() as u64).unwrap() as usize];
        encode_row(ty, values, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn f16_and_bf16_round_to_nearest_even() {
        let between = 1.0 + 2f32.powi(-11);
        let values = [between, between + 2f32.powi(-10), 65520.0, 65519.0];
        let f16s = [0x3c00u16, 0x3c02, 0x7c00, 0x7bff];
        assert_eq!(encoded(Type::F16, &values), f16s.map(u16::to_le_bytes).concat());
        let between = 1.0 + 2f32.powi(-8);
        let bf16s = [0x3f80u16, 0x3f82];
        assert_eq!(
            encoded(Type::BF16, &[between, between + 2f32.powi(-7)]),
            bf16s.map(u16::to_le_bytes).concat()
        );
    }

    #[test]
    fn q8_0_divides_by_the_largest_magnitude() {
        let mut values = [0.0f32; 32];
        (values[0], values[1], values[31]) = (-254.0, 3.1, 127.0);
        let block = encoded(Type::Q8_0, &values);
        assert_eq!(block[..2], f16::from_f32(2.0).to_le_bytes());
        assert_eq!([block[2], block[3], block[33]].map(|b| b as i8), [-127, 2, 64]);
    }

    #[test]
    fn q4_0_maps_the_signed_extreme_to_code_0() {
        let mut values = [0.0f32; 32];
        (values[0], values[1], values[16], values[17]) = (-8.0, 8.0, 6.6, -0.6);
        let block = encoded(Type::Q4_0, &values);
        assert_eq!(block[..2], f16::from_f32(1.0).to_le_bytes());
        assert_eq!(
            [block[2] & 15, block[3] & 15, block[2] >> 4, block[3] >> 4],
            [0, 15, 15, 7]
        );
        values[2] = 16.0;
        assert_eq!(encoded(Type::Q4_0, &values)[..2], f16::from_f32(-2.0).to_le_bytes());
    }

    #[test]
    fn a_block_of_zeros_decodes_to_zeros() {
        for ty in [Type::Q8_0, Type::Q4_0] {
            let block = encoded(ty, &[0.0; 32]);
            assert_eq!(f16::from_le_bytes([block[0], block[1]]).to_f32(), 0.0);
            let mut values = [1.0; 32];
            decode_row(ty, &block, &mut values).unwrap();
            assert_eq!(values, [0.0; 32]);
        }
    }

    #[test]
    fn other_types_and_lengths_are_refused() {
        assert!(
            encode_row(Type::Q4_K, &[0.0; 256], &mut [0; 144])
                .unwrap_err()
                .is_refusal()
        );
        assert!(encode_row(Type::Q8_0, &[0.0; 31], &mut [0; 34]).is_err());
        assert!(encode_row(Type::F16, &[0.0; 2], &mut [0; 2]).is_err());
    }
}
