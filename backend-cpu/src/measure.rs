//! What this machine can do at most: plain reading, and the products of many columns' kernels in registers.

use std::{hint::black_box, time::Instant};

use backend_api::{BackendError, Result, measure::Measures};

#[cfg(target_arch = "x86_64")]
use crate::{kernel_set::Tiles, product::amx};
use crate::{
    kernel_set::{KernelSet, Kernels},
    pool::Pool,
};

/// How often a figure is taken; the best one counts.
const TRIES: usize = 5;
/// Bytes that a thread reads at a time, so that threads end together.
const PIECE: usize = 1 << 20;
/// Rounds of the dot products, each of [`CHAINS`] that do not wait for each other.
const ROUNDS: usize = 1 << 20;
const CHAINS: usize = 12;

/// The machine that this is.
pub struct Machine;

impl Measures for Machine {
    fn read_bandwidth(device: u32, threads: u32, memory: &[u8]) -> Result<f64> {
        let pool = pool(device, threads)?;
        let pieces: Vec<&[u8]> = memory.chunks(PIECE).collect();
        Ok(best(memory.len() as f64, || {
            pool.run(pieces.len(), &|i| {
                black_box(sum(pieces[i]));
            });
        }))
    }

    fn arithmetic_peak(device: u32, threads: u32) -> Result<f64> {
        let pool = pool(device, threads)?;
        let kernels = Kernels::detect()?;
        let operations = 2 * multiplications(kernels) * ROUNDS * pool.threads();
        Ok(best(operations as f64, || {
            pool.run(pool.threads(), &|_| {
                black_box(dots(kernels));
            });
        }))
    }
}

fn pool(device: u32, threads: u32) -> Result<Pool> {
    if device != 0 {
        return Err(BackendError::invalid(format!("there is no device {device}")));
    }
    Pool::new(threads as usize)
}

/// The most that one of several runs did a second, after one that warms up.
fn best(amount: f64, run: impl Fn()) -> f64 {
    run();
    let times = (0..TRIES).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    });
    amount / times.fold(f64::INFINITY, f64::min).max(1e-9)
}

/// Touches all bytes with as little arithmetic as there can be.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.chunks_exact(256) {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

/// Multiplications of a round of [`dots`].
fn multiplications(kernels: Kernels) -> usize {
    #[cfg(target_arch = "x86_64")]
    if kernels.tiles() == Some(Tiles::Instructions) {
        return amx::PEAK_ROUND;
    }
    CHAINS
        * match kernels.set() {
            KernelSet::Avx512 => 64,
            KernelSet::Avx2 | KernelSet::AvxVnni => 32,
            KernelSet::Scalar => 16,
        }
}

#[cfg(target_arch = "x86_64")]
fn dots(kernels: Kernels) -> i32 {
    // SAFETY: the kernels were found on this machine, with the operating system's leave.
    unsafe {
        if kernels.tiles() == Some(Tiles::Instructions) {
            amx::peak(ROUNDS);
            return 0;
        }
        match (kernels.set(), kernels.vnni()) {
            (KernelSet::Avx512, true) => x86::vnni(),
            (KernelSet::Avx512, false) => x86::avx512(),
            (KernelSet::AvxVnni, _) => x86::avxvnni(),
            (KernelSet::Avx2, _) => x86::avx2(),
            (KernelSet::Scalar, _) => plain(),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dots(_: Kernels) -> i32 {
    plain()
}

/// Products of 16-bit numbers, as compilers make of plain code.
fn plain() -> i32 {
    let (a, b) = black_box(([3i16; 16], [5i16; 16]));
    let mut sums = [[0i32; 16]; CHAINS];
    for _ in 0..ROUNDS {
        for sums in &mut sums {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = sum.wrapping_add(i32::from(a) * i32::from(b));
            }
        }
        sums = black_box(sums);
    }
    sums.as_flattened().iter().fold(0, |all, &sum| all.wrapping_add(sum))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::{CHAINS, ROUNDS};

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn vnni() -> i32 {
        let (a, b) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..ROUNDS {
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, a, b));
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm512_reduce_add_epi32(sum))
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn avx512() -> i32 {
        let (a, b, ones) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5), _mm512_set1_epi16(1)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                let pairs = _mm512_maddubs_epi16(_mm512_xor_si512(a, *sum), b);
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(pairs, ones));
            }
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm512_reduce_add_epi32(sum))
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub fn avxvnni() -> i32 {
        let (a, b) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(5)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..ROUNDS {
            sums.iter_mut()
                .for_each(|sum| *sum = _mm256_dpbusd_avx_epi32(*sum, a, b));
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm256_extract_epi32::<0>(sum))
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2() -> i32 {
        let (a, b, ones) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(5), _mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, *sum), b);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        sums.iter().fold(0, |all, &sum| all ^ _mm256_extract_epi32::<0>(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_figures_are_taken() {
        let memory = vec![1; 3 * PIECE + 17];
        assert!(Machine::read_bandwidth(0, 2, &memory).unwrap() > 0.0);
        assert!(Machine::arithmetic_peak(0, 2).unwrap() > 0.0);
        assert!(Machine::arithmetic_peak(1, 2).is_err());
    }
}
