//! Which kernel serves a type, and how each instruction set instantiates it.

use backend_api::types::Type;

use super::{blocks::*, columns, exact, integer, kernel::*, lanes};
use crate::kernel_set::{KernelSet, Kernels};

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In f32.
    Exact,
    /// In integers, over quantized columns.
    Integer,
}

/// Instantiates the kernels for an instruction set. The wrappers enable its features; all else is inlined into them.
macro_rules! instantiate {
    ($module:ident, $lanes:ty, integer $n:literal, exact $m:literal $(, $feature:meta)?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn integer_product<W: Blocks>(weights: &Weights, columns: &[*const u8], tile: &mut Tile) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { integer::product::<$lanes, W, $n>(weights, columns, tile) }
            }

            $(#[$feature])?
            unsafe fn exact_product<W: exact::Decode>(weights: &Weights, columns: &[*const u8], tile: &mut Tile) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { exact::product::<$lanes, W, $m>(weights, columns, tile) }
            }

            $(#[$feature])?
            pub(super) unsafe fn quantize(x: &[f32], to: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { columns::quantize(x, to) }
            }

            fn of_blocks<W: Blocks>(way: Way) -> Kernel {
                match way {
                    Way::Exact => exact_product::<exact::Unpacked<W>>,
                    Way::Integer => integer_product::<W>,
                }
            }

            pub(super) fn kernel(ty: Type, way: Way) -> Option<Kernel> {
                Some(match ty {
                    Type::F32 => exact_product::<exact::F32>,
                    Type::F16 => exact_product::<exact::F16>,
                    Type::BF16 => exact_product::<exact::BF16>,
                    Type::Q4_0 => of_blocks::<Q4_0>(way),
                    Type::Q4_1 => of_blocks::<Q4_1>(way),
                    Type::Q5_0 => of_blocks::<Q5_0>(way),
                    Type::Q5_1 => of_blocks::<Q5_1>(way),
                    Type::Q8_0 => of_blocks::<Q8_0>(way),
                    Type::Q2_K => of_blocks::<Q2_K>(way),
                    Type::Q3_K => of_blocks::<Q3_K>(way),
                    Type::Q4_K => of_blocks::<Q4_K>(way),
                    Type::Q5_K => of_blocks::<Q5_K>(way),
                    Type::Q6_K => of_blocks::<Q6_K>(way),
                    Type::IQ4_NL => of_blocks::<IQ4_NL>(way),
                    Type::IQ4_XS => of_blocks::<IQ4_XS>(way),
                    Type::MXFP4 => of_blocks::<MXFP4>(way),
                    Type::I32 => return None,
                })
            }
        }
    };
}

instantiate!(scalar, lanes::Scalar, integer 4, exact 2);
#[cfg(target_arch = "x86_64")]
instantiate!(avx2, lanes::Avx2, integer 4, exact 2, target_feature(enable = "avx2,fma,f16c"));
#[cfg(target_arch = "x86_64")]
instantiate!(
    avx512,
    lanes::Avx512<false>,
    integer 8,
    exact 8,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
);
#[cfg(target_arch = "x86_64")]
instantiate!(
    avx512vnni,
    lanes::Avx512<true>,
    integer 8,
    exact 8,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
);

/// The name of a set in counters.
pub(super) const SETS: [&str; 4] = ["scalar", "avx2", "avx512", "avx512vnni"];

/// The kernels of a set.
#[derive(Clone, Copy)]
pub(super) struct Selected {
    /// An index into [`SETS`].
    pub set: usize,
    kernel: fn(Type, Way) -> Option<Kernel>,
    quantize: unsafe fn(&[f32], *mut u8),
}

/// The kernels for what the machine was found to have.
pub(super) fn select(kernels: Kernels) -> Selected {
    let (set, kernel, quantize): (_, fn(_, _) -> _, unsafe fn(&[f32], *mut u8)) = match (kernels.set(), kernels.vnni()) {
        (KernelSet::Scalar, _) => (0, scalar::kernel, scalar::quantize),
        #[cfg(target_arch = "x86_64")]
        (KernelSet::Avx2, _) => (1, avx2::kernel, avx2::quantize),
        #[cfg(target_arch = "x86_64")]
        (KernelSet::Avx512, false) => (2, avx512::kernel, avx512::quantize),
        #[cfg(target_arch = "x86_64")]
        (KernelSet::Avx512, true) => (3, avx512vnni::kernel, avx512vnni::quantize),
        #[cfg(not(target_arch = "x86_64"))]
        _ => (0, scalar::kernel, scalar::quantize),
    };
    Selected { set, kernel, quantize }
}

impl Selected {
    /// The kernel for weights of this type; none where they are no weights.
    pub fn kernel(&self, ty: Type, way: Way) -> Option<Kernel> {
        (self.kernel)(ty, way)
    }

    /// Quantizes a column; see [`columns::quantize`].
    ///
    /// # Safety
    /// As there; the kernels were selected for this machine.
    pub unsafe fn quantize(&self, x: &[f32], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { (self.quantize)(x, to) }
    }
}
