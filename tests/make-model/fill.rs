//! Random weights, made as fast as they can be written: valid blocks whose values have a mean near 0 and the deviation
//! that keeps activations in range.

use backend_api::types::Type::{self, *};
use half::{bf16, f16};
use rand_pcg::{Pcg64Mcg, rand_core::Rng};

/// Fills whole blocks of `ty` with weights of standard deviation about `deviation`.
pub fn fill(ty: Type, deviation: f32, seed: u64, blocks: &mut [u8]) {
    // spread, so that the streams of neighbouring seeds have nothing in common
    let mut random = Pcg64Mcg::new(u128::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) | 1);
    random.fill_bytes(blocks);
    let numbers = |bytes: &mut [u8], size| {
        bytes
            .chunks_exact_mut(size)
            .for_each(|bytes| number(ty, deviation, bytes))
    };
    match ty {
        F32 => numbers(blocks, 4),
        F16 | BF16 => numbers(blocks, 2),
        _ => {
            let scales = scales(ty, deviation);
            for block in blocks.chunks_exact_mut(ty.block_bytes()) {
                for (place, bytes) in scales.as_slice() {
                    block[*place..place + 2].copy_from_slice(bytes);
                }
                if ty == MXFP4 {
                    block[0] = exponent(deviation);
                }
            }
        }
    }
}

/// Makes random bits a number between half and twice the deviation, on either side of 0: all but the sign, the last bit of
/// the exponent and the mantissa is the same in each.
fn number(ty: Type, deviation: f32, bytes: &mut [u8]) {
    let (low, high) = (0.5 * deviation, deviation);
    match ty {
        F32 => {
            let random = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let exponent = if random & 1 << 30 == 0 { low } else { high }.to_bits() & 0x7f80_0000;
            bytes.copy_from_slice(&(random & 0x807f_ffff | exponent).to_le_bytes());
        }
        F16 => {
            let random = u16::from_le_bytes([bytes[0], bytes[1]]);
            let exponent = f16::from_f32(if random & 1 << 14 == 0 { low } else { high }).to_bits() & 0x7c00;
            bytes.copy_from_slice(&(random & 0x83ff | exponent).to_le_bytes());
        }
        _ => {
            let random = u16::from_le_bytes([bytes[0], bytes[1]]);
            let exponent = bf16::from_f32(if random & 1 << 14 == 0 { low } else { high }).to_bits() & 0x7f80;
            bytes.copy_from_slice(&(random & 0x807f | exponent).to_le_bytes());
        }
    }
}

/// Where a block's f16 scales stand, and what they are to be: such that quanta of all bits alike, under block scales of all
/// bits alike, come out with this deviation and, where there are minimums, a mean of 0.
fn scales(ty: Type, deviation: f32) -> Vec<(usize, [u8; 2])> {
    let at = |place: usize, value: f32| (place, f16::from_f32(value * deviation).to_le_bytes());
    // 4-bit quanta deviate by 4.6, 5-bit ones by 9.2, 8-bit ones by 74
    match ty {
        Q4_0 => vec![at(0, 1.0 / 4.6)],
        Q4_1 => vec![at(0, 1.0 / 4.6), at(2, -7.5 / 4.6)],
        Q5_0 => vec![at(0, 1.0 / 9.2)],
        Q5_1 => vec![at(0, 1.0 / 9.2), at(2, -15.5 / 9.2)],
        Q8_0 => vec![at(0, 1.0 / 74.0)],
        // scales of 4 and 6 bits add their own: √(E[s²]·E[(q − mean)²] + what scales and minimums differ by)
        Q2_K => vec![at(80, 1.0 / 13.6), at(82, 1.5 / 13.6)],
        Q3_K => vec![at(108, 1.0 / 43.0)],
        Q4_K => vec![at(0, 1.0 / 260.0), at(2, 7.5 / 260.0)],
        Q5_K => vec![at(0, 1.0 / 530.0), at(2, 15.5 / 530.0)],
        Q6_K => vec![at(208, 1.0 / 1370.0)],
        IQ4_NL => vec![at(0, 1.0 / 67.0)],
        IQ4_XS => vec![at(0, 1.0 / 1230.0)],
        F32 | F16 | BF16 | MXFP4 | I32 => Vec::new(),
    }
}

/// MXFP4's power of two: its quanta deviate by 3.
fn exponent(deviation: f32) -> u8 {
    (127.0 + (deviation / 3.0).log2().round()).clamp(1.0, 254.0) as u8
}

#[cfg(test)]
mod tests {
    use backend_api::decode::decode_row;

    use super::*;

    #[test]
    fn weights_of_every_type_are_in_range() {
        for &ty in Type::WEIGHTS {
            let count = 256 * 400;
            let mut blocks = vec![0; ty.row_bytes(count as u64).unwrap() as usize];
            fill(ty, 0.02, 7, &mut blocks);
            let mut values = vec![0.0f32; count];
            decode_row(ty, &blocks, &mut values).unwrap();
            let mean = values.iter().sum::<f32>() / count as f32;
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count as f32).sqrt();
            // quanta of two's complement have one more value below 0 than above
            assert!(mean.abs() < 0.003, "{}: mean {mean}", ty.name());
            assert!(
                (0.013..0.03).contains(&deviation),
                "{}: deviation {deviation}",
                ty.name()
            );
        }
    }

    #[test]
    fn another_seed_gives_other_weights() {
        let made = |seed| {
            let mut blocks = vec![0; 34 * 8];
            fill(Q8_0, 0.02, seed, &mut blocks);
            blocks
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }
}
