//! Inner loops, written once and compiled for every instruction set.
//!
//! A [`kernel!`] is generic over [`Lanes`]; the macro instantiates it inside a function for each set and calls the one
//! that the device's [`Kernels`](crate::kernel_set::Kernels) name. Loops over slices vectorize there by themselves;
//! sums, which may not be reordered, say their order with [`Lanes::V`]: [`WIDTH`] partial sums.

use half::f16;

use crate::view::Real;

/// Numbers in a [`Lanes::V`].
pub const WIDTH: usize = 16;

/// What the instruction sets do differently.
pub trait Lanes: Copy {
    /// [`WIDTH`] numbers.
    type V: Copy;
    /// a·b + c, in one rounding where the set has it.
    fn fma(a: f32, b: f32, c: f32) -> f32;
    /// The number in every lane.
    fn splat(x: f32) -> Self::V;
    /// The numbers of a slice.
    fn load(x: &[f32; WIDTH]) -> Self::V;
    /// The numbers in order.
    fn store(x: Self::V) -> [f32; WIDTH];
    /// a·b + c in each lane, as [`Lanes::fma`].
    fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of all lanes: of the halves, of their halves, and so on.
    fn total(x: Self::V) -> f32;
    /// Numbers of f16.
    fn widen(x: &[u16; WIDTH]) -> Self::V;
    /// Numbers as f16, to nearest even.
    fn narrow(x: Self::V) -> [u16; WIDTH];
    /// A number of f16 in every lane.
    fn splat_half(x: u16) -> Self::V;
    /// Signed bytes.
    fn bytes(x: &[u8; WIDTH]) -> Self::V;
    /// The lower, or the upper, four bits of bytes, less 8.
    fn nibbles(x: &[u8; WIDTH], upper: bool) -> Self::V;
    /// The larger number in each lane; that of `b` where one is NaN.
    fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The largest of all lanes.
    fn largest(x: Self::V) -> f32;
    /// [`exp`] in each lane.
    #[inline(always)]
    fn exp(x: Self::V) -> Self::V {
        let mut x = Self::store(x);
        for x in &mut x {
            *x = exp::<Self>(*x);
        }
        Self::load(&x)
    }
    /// The first half of adding up the lanes of vectors: from lane 4n on, what lanes 4n to 4n + 3 of each of the four
    /// add up to.
    fn fold(x: [Self::V; 4]) -> Self::V;
    /// The other half: the sums of 16 vectors in order, from what [`Lanes::fold`] made of each four.
    fn totals(x: [Self::V; 4]) -> Self::V;
    /// Whether the registers hold 24 vectors of sums, instead of 4, beside what goes into them.
    const ROOMY: bool;
}

/// [`KernelSet::Scalar`](crate::kernel_set::KernelSet).
#[derive(Clone, Copy)]
pub struct Plain;

impl Lanes for Plain {
    type V = [f32; WIDTH];

    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn splat(x: f32) -> Self::V {
        [x; WIDTH]
    }

    #[inline(always)]
    fn load(x: &[f32; WIDTH]) -> Self::V {
        *x
    }

    #[inline(always)]
    fn store(x: Self::V) -> [f32; WIDTH] {
        x
    }

    #[inline(always)]
    fn mul_add(a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        for i in 0..WIDTH {
            c[i] += a[i] * b[i];
        }
        c
    }

    #[inline(always)]
    fn total(x: Self::V) -> f32 {
        let x: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(always)]
    fn widen(x: &[u16; WIDTH]) -> Self::V {
        x.map(|x| f16::from_bits(x).to_f32_const())
    }

    #[inline(always)]
    fn narrow(x: Self::V) -> [u16; WIDTH] {
        x.map(|x| f16::from_f32_const(x).to_bits())
    }

    #[inline(always)]
    fn splat_half(x: u16) -> Self::V {
        [f16::from_bits(x).to_f32_const(); WIDTH]
    }

    #[inline(always)]
    fn bytes(x: &[u8; WIDTH]) -> Self::V {
        x.map(|x| f32::from(x as i8))
    }

    #[inline(always)]
    fn nibbles(x: &[u8; WIDTH], upper: bool) -> Self::V {
        x.map(|x| f32::from(if upper { x >> 4 } else { x & 15 }) - 8.0)
    }

    #[inline(always)]
    fn max(a: Self::V, mut b: Self::V) -> Self::V {
        for i in 0..WIDTH {
            b[i] = if a[i] > b[i] { a[i] } else { b[i] };
        }
        b
    }

    #[inline(always)]
    fn largest(x: Self::V) -> f32 {
        x.into_iter().fold(x[0], |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn fold(x: [Self::V; 4]) -> Self::V {
        std::array::from_fn(|lane| {
            let (x, first) = (x[lane % 4], lane / 4 * 4);
            (x[first] + x[first + 2]) + (x[first + 1] + x[first + 3])
        })
    }

    #[inline(always)]
    fn totals(x: [Self::V; 4]) -> Self::V {
        std::array::from_fn(|lane| {
            let (x, i) = (x[lane / 4], lane % 4);
            (x[i] + x[i + 4]) + (x[i + 8] + x[i + 12])
        })
    }

    const ROOMY: bool = false;
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Defines a function that runs on the instruction set of its first argument, a
/// [`Kernels`](crate::kernel_set::Kernels). In its body `L` is the set's [`Lanes`].
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name(kernels: $crate::kernel_set::Kernels, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::extra_unused_type_parameters)] // some kernels need nothing of their set
            fn body<L: $crate::lanes::Lanes>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::lanes::Avx2>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::lanes::Avx512>($($arg),*)
            }

            match kernels.set() {
                // SAFETY: `Kernels` holds only sets that were detected on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel_set::KernelSet::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above; floats gain nothing from AVX-VNNI.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel_set::KernelSet::Avx2 | $crate::kernel_set::KernelSet::AvxVnni => unsafe { avx2($($arg),*) },
                _ => body::<$crate::lanes::Plain>($($arg),*),
            }
        }
    };
}
pub(crate) use kernel;

/// Asks for the cache lines of piece `i` of `pieces` of what will be read soon.
#[inline(always)]
pub fn prefetch<N>(soon: &[N], i: usize, pieces: usize) {
    const LINE: usize = 64;
    let bytes = size_of_val(soon);
    let start = soon.as_ptr().cast::<u8>();
    for at in (bytes * i / pieces..bytes * (i + 1) / pieces).step_by(LINE) {
        // SAFETY: a prefetch takes any address, and every x86-64 processor has it.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, at);
    }
}

/// The lanes of numbers of a slice, and zeros where it ends before them.
#[inline(always)]
pub fn padded<L: Lanes>(x: &[f32]) -> L::V {
    let mut lanes = [0.0; WIDTH];
    lanes[..x.len()].copy_from_slice(x);
    L::load(&lanes)
}

/// Adds up over a slice what `add(x, sum)` adds of each of its numbers, which is nothing for 0.
#[inline(always)]
fn accumulate<L: Lanes>(x: &[f32], add: impl Fn(L::V, L::V) -> L::V) -> f32 {
    let mut sums = [L::splat(0.0); 4];
    let (blocks, rest) = x.as_chunks::<{ 4 * WIDTH }>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block.as_chunks().0) {
            *sum = add(L::load(x), *sum);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest.chunks(WIDTH)) {
        *sum = add(padded::<L>(x), *sum);
    }
    let one = L::splat(1.0);
    let (a, b) = (L::mul_add(sums[0], one, sums[2]), L::mul_add(sums[1], one, sums[3]));
    L::total(L::mul_add(a, one, b))
}

/// Σ x.
#[inline(always)]
pub fn sum<L: Lanes>(x: &[f32]) -> f32 {
    accumulate::<L>(x, |x, sum| L::mul_add(x, L::splat(1.0), sum))
}

/// Σ x².
#[inline(always)]
pub fn squares<L: Lanes>(x: &[f32]) -> f32 {
    accumulate::<L>(x, |x, sum| L::mul_add(x, x, sum))
}

/// Σ x·y over slices of one length.
#[inline(always)]
pub fn dot<L: Lanes>(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = L::splat(0.0);
    for (x, y) in x.chunks(WIDTH).zip(y.chunks(WIDTH)) {
        sums = L::mul_add(padded::<L>(x), padded::<L>(y), sums);
    }
    L::total(sums)
}

/// y += a·x.
#[inline(always)]
pub fn axpy<L: Lanes, N: Real>(y: &mut [f32], a: f32, x: &[N]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = L::fma(a, x.get(), *y);
    }
}

/// ln 2 in two parts, then the factors of r⁷ to r² in e^r: those of Cephes' `expf`.
const EXP: [f32; 8] = [
    0.693_359_4,
    -2.121_944_4e-4,
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_5e-1,
    0.5,
];

/// 1.5·2²³: numbers beside it are whole, their low bits at its end.
pub const ROUND: f32 = 12_582_912.0;

/// e^x within 2 units in the last place; 0 under −87.3 and infinite above 88.
#[inline(always)]
pub fn exp<L: Lanes>(x: f32) -> f32 {
    let shifted = L::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = L::fma(n, -EXP[1], L::fma(n, -EXP[0], x));
    let mut p = EXP[2];
    for c in &EXP[3..] {
        p = L::fma(p, r, *c);
    }
    let mantissa = L::fma(p * r, r, r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = mantissa * scale;
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.0 { f32::INFINITY } else { y }
}

/// tanh x within a few units in the last place: Cephes' `tanhf`.
#[inline(always)]
pub fn tanh<L: Lanes>(x: f32) -> f32 {
    let z = x * x;
    let mut p = -5.704_988_7e-3;
    for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = L::fma(p, z, c);
    }
    let near = L::fma(p * z, x, x);
    let far = (1.0 - 2.0 / (exp::<L>(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_set::{KernelSet, Kernels};

    kernel! {
        fn exps(x: &mut [f32]) {
            x.iter_mut().for_each(|x| *x = exp::<L>(*x));
        }
    }

    kernel! {
        fn tanhs(x: &mut [f32]) {
            x.iter_mut().for_each(|x| *x = tanh::<L>(*x));
        }
    }

    kernel! {
        fn halves(x: &[[u16; 16]], out: &mut [[f32; 16]]) {
            x.iter().zip(out).for_each(|(x, out)| *out = L::store(L::widen(x)));
        }
    }

    fn every_set(check: impl Fn(Kernels)) {
        for set in KernelSet::ALL.into_iter().filter(|s| s.is_available()) {
            check(Kernels::forced(set).unwrap());
        }
    }

    fn worst(run: impl Fn(&mut [f32]), exact: impl Fn(f64) -> f64, range: f32) -> f64 {
        let x: Vec<f32> = (-20_000..20_000).map(|i| i as f32 / 20_000.0 * range).collect();
        let mut y = x.clone();
        run(&mut y);
        let errors = x.iter().zip(&y).filter(|(x, _)| **x != 0.0).map(|(&x, &y)| {
            let exact = exact(x.into());
            ((f64::from(y) - exact) / exact).abs()
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_and_tangents_are_exact_to_a_few_units() {
        every_set(|kernels| {
            assert!(worst(|x| exps(kernels, x), f64::exp, 87.0) < 3e-7);
            assert!(worst(|x| tanhs(kernels, x), f64::tanh, 20.0) < 3e-7);
            assert!(worst(|x| tanhs(kernels, x), f64::tanh, 1e-3) < 3e-7);
        });
    }

    #[test]
    fn exponentials_have_the_right_ends() {
        every_set(|kernels| {
            let mut x = [f32::NEG_INFINITY, -1e30, 0.0, 1e30, f32::INFINITY, f32::NAN];
            exps(kernels, &mut x);
            assert_eq!(x[..5], [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]);
            assert!(x[5].is_nan());
        });
    }

    kernel! {
        fn unpacked(x: &[u8; 16], half: u16, out: &mut [[f32; 16]; 4]) {
            *out = [
                L::store(L::bytes(x)),
                L::store(L::nibbles(x, false)),
                L::store(L::nibbles(x, true)),
                L::store(L::splat_half(half)),
            ];
        }
    }

    #[test]
    fn codes_become_numbers() {
        every_set(|kernels| {
            for first in (0..=240u8).step_by(16) {
                let x: [u8; 16] = std::array::from_fn(|i| first + i as u8);
                let mut out = [[0.0; 16]; 4];
                unpacked(kernels, &x, 0xc100, &mut out);
                for (i, x) in x.into_iter().enumerate() {
                    assert_eq!(out[0][i], f32::from(x as i8));
                    assert_eq!(out[1][i], f32::from(x % 16) - 8.0);
                    assert_eq!(out[2][i], f32::from(x / 16) - 8.0);
                    assert_eq!(out[3][i], -2.5);
                }
            }
        });
    }

    kernel! {
        fn sums(x: &[[[f32; 16]; 4]; 4], out: &mut [f32; 16]) {
            let mut folded = [L::splat(0.0); 4];
            for (folded, [a, b, c, d]) in folded.iter_mut().zip(x) {
                *folded = L::fold([L::load(a), L::load(b), L::load(c), L::load(d)]);
            }
            *out = L::store(L::totals(folded));
        }
    }

    kernel! {
        fn largest(x: &[[f32; 16]; 2]) -> f32 {
            L::largest(L::max(L::load(&x[0]), L::load(&x[1])))
        }
    }

    #[test]
    fn sixteen_vectors_are_added_up_at_once() {
        let value = |i: usize| ((i * 7919 % 1009) as f32 - 504.0) / 37.0;
        let x: [[[f32; 16]; 4]; 4] =
            std::array::from_fn(|i| std::array::from_fn(|j| std::array::from_fn(|k| value((4 * i + j) * 16 + k))));
        every_set(|kernels| {
            let mut out = [0.0; 16];
            sums(kernels, &x, &mut out);
            for (sum, x) in out.iter().zip(x.as_flattened()) {
                assert!((sum - x.iter().sum::<f32>()).abs() < 1e-4);
            }
        });
    }

    #[test]
    fn the_largest_lane_is_found_wherever_it_is() {
        every_set(|kernels| {
            for i in 0..32 {
                let mut x = [[-2.0; 16]; 2];
                x[i / 16][i % 16] = -1.0;
                assert_eq!(largest(kernels, &x), -1.0);
            }
        });
    }

    #[test]
    fn every_half_widens_exactly() {
        let all: Vec<[u16; 16]> = (0..4096u16)
            .map(|i| std::array::from_fn(|j| 16 * i + j as u16))
            .collect();
        every_set(|kernels| {
            let mut out = vec![[0.0; 16]; all.len()];
            halves(kernels, &all, &mut out);
            for (&x, y) in all.as_flattened().iter().zip(out.as_flattened()) {
                let x = f16::from_bits(x);
                assert!(x.is_nan() && y.is_nan() || x.to_f32() == *y);
            }
        });
    }
}
