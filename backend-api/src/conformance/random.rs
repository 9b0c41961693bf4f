//! A small generator of the suite's own, so that a seed means the same inputs everywhere and always.

use half::{bf16, f16};

use crate::types::Type;

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
pub(super) struct Random(u64);

/// FNV-1a over a label, mixed into the seed: each case has its own inputs, whichever cases run beside it.
pub(super) fn seed_of(seed: u64, label: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    label.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, step)
}

/// The mixing function of SplitMix64: one word's hash.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.next() % u64::from(n)) as u32
    }

    /// Uniform in (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Unit normal, by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }

    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }

    /// The numbers below `n` in random order.
    pub fn shuffled(&mut self, n: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n).collect();
        for i in (1..n).rev() {
            all.swap(i as usize, self.below(i + 1) as usize);
        }
        all
    }

    /// `values` values of a type: unit normals, or random blocks whose every bit pattern occurs and whose scales are
    /// finite, so that values are around 1.
    pub fn values(&mut self, ty: Type, values: usize) -> Vec<u8> {
        match ty {
            Type::F32 => self.normals(values).iter().flat_map(|x| x.to_le_bytes()).collect(),
            Type::F16 => (0..values)
                .flat_map(|_| f16::from_f32(self.normal()).to_le_bytes())
                .collect(),
            Type::BF16 => (0..values)
                .flat_map(|_| bf16::from_f32(self.normal()).to_le_bytes())
                .collect(),
            _ => (0..values / ty.block_values()).flat_map(|_| self.block(ty)).collect(),
        }
    }

    fn block(&mut self, ty: Type) -> Vec<u8> {
        let mut block: Vec<u8> = (0..ty.block_bytes()).map(|_| self.next() as u8).collect();
        if ty == Type::MXFP4 {
            block[0] = 122 + self.below(8) as u8;
        }
        let (fields, size) = scale_fields(ty);
        for &at in fields {
            let scale = if self.below(32) == 0 { 0.0 } else { self.scale(size) };
            block[at..at + 2].copy_from_slice(&scale_bytes(scale));
        }
        block
    }

    fn scale(&mut self, size: f64) -> f64 {
        let sign = if self.below(2) == 0 { -1.0 } else { 1.0 };
        sign * size * (0.5 + 0.5 * self.unit())
    }
}

fn scale_bytes(scale: f64) -> [u8; 2] {
    f16::from_f64(scale).to_le_bytes()
}

/// Byte offsets of the f16 fields in a block, and their size for values around 1: see FORMATS.md.
fn scale_fields(ty: Type) -> (&'static [usize], f64) {
    match ty {
        Type::Q4_0 => (&[0], 0.2),
        Type::Q4_1 => (&[0, 2], 0.2),
        Type::Q5_0 => (&[0], 0.1),
        Type::Q5_1 => (&[0, 2], 0.1),
        Type::Q8_0 => (&[0], 0.02),
        Type::Q2_K => (&[80, 82], 0.05),
        Type::Q3_K => (&[108], 0.02),
        Type::Q4_K => (&[0, 2], 0.004),
        Type::Q5_K => (&[0, 2], 0.002),
        Type::Q6_K => (&[208], 0.0008),
        Type::IQ4_NL => (&[0], 0.02),
        Type::IQ4_XS => (&[0], 0.0008),
        Type::F32 | Type::F16 | Type::BF16 | Type::I32 | Type::MXFP4 => (&[], 0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_numbers_always() {
        assert_eq!(Random::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let all = Random::new(1).normals(20_000);
        let mean = all.iter().sum::<f32>() / 20_000.0;
        let variance = all.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
