//! Inner loops, written once and compiled for every instruction set.
//!
//! A [`kernel!`] is generic over [`Lanes`]; the macro instantiates it inside a function for each set and calls the one
//! that the device's [`Kernels`](crate::kernel_set::Kernels) name. Loops over slices vectorize there by themselves; sums
//! keep [`WIDTH`] partial sums, in an order that depends on the length alone.

use half::f16;

use crate::view::Real;

/// Partial sums of a reduction: enough for four registers of AVX2 or two of AVX-512.
pub const WIDTH: usize = 32;

/// What the instruction sets do differently.
pub trait Lanes: Copy {
    /// a·b + c, in one rounding where the set has it.
    fn fma(a: f32, b: f32, c: f32) -> f32;
    /// 16 numbers of f16.
    fn widen(x: &[u16; 16]) -> [f32; 16];
}

/// [`KernelSet::Scalar`](crate::kernel_set::KernelSet).
#[derive(Clone, Copy)]
pub struct Plain;

impl Lanes for Plain {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn widen(x: &[u16; 16]) -> [f32; 16] {
        x.map(|x| f16::from_bits(x).to_f32_const())
    }
}

/// [`KernelSet::Avx2`](crate::kernel_set::KernelSet). Its functions are called from its kernels alone.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn widen(x: &[u16; 16]) -> [f32; 16] {
        use std::arch::x86_64::*;
        let mut out = [0.0; 16];
        // SAFETY: kernels of this set run only where F16C was detected; 16 halves are read, 16 floats written.
        unsafe {
            for i in [0, 8] {
                let halves = _mm_loadu_si128(x.as_ptr().add(i).cast());
                _mm256_storeu_ps(out.as_mut_ptr().add(i), _mm256_cvtph_ps(halves));
            }
        }
        out
    }
}

/// [`KernelSet::Avx512`](crate::kernel_set::KernelSet). Its functions are called from its kernels alone.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn widen(x: &[u16; 16]) -> [f32; 16] {
        use std::arch::x86_64::*;
        let mut out = [0.0; 16];
        // SAFETY: kernels of this set run only where AVX-512 F was detected; 16 halves are read, 16 floats written.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))) };
        out
    }
}

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
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernel_set::KernelSet::Avx2 => unsafe { avx2($($arg),*) },
                _ => body::<$crate::lanes::Plain>($($arg),*),
            }
        }
    };
}
pub(crate) use kernel;

/// Adds up `term(x)` over a slice.
#[inline(always)]
pub fn sum<T: Copy>(x: &[T], term: impl Fn(T, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; WIDTH];
    let (chunks, rest) = x.as_chunks::<WIDTH>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = term(x, *lane);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = term(x, *lane);
    }
    total(lanes)
}

/// The sum of partial sums, in halves.
#[inline(always)]
pub fn total<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut n = N / 2;
    while n > 0 {
        for i in 0..n {
            lanes[i] += lanes[i + n];
        }
        n /= 2;
    }
    lanes[0]
}

/// Σ x².
#[inline(always)]
pub fn squares<L: Lanes>(x: &[f32]) -> f32 {
    sum(x, |x, lane| L::fma(x, x, lane))
}

/// y += a·x.
#[inline(always)]
pub fn axpy<L: Lanes, N: Real>(y: &mut [f32], a: f32, x: &[N]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = L::fma(a, x.get(), *y);
    }
}

/// e^x within 2 units in the last place; 0 under −87.3 and infinite above 88. Reduction and polynomial are those of
/// Cephes' `expf`.
#[inline(always)]
pub fn exp<L: Lanes>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let shifted = L::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = L::fma(n, 2.121_944_4e-4, L::fma(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = L::fma(p, r, c);
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
            x.iter().zip(out).for_each(|(x, out)| *out = L::widen(x));
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
