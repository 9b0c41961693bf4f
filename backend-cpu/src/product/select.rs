//! Which kernel serves a type, and how each instruction set instantiates it.

use backend_api::types::Type;

use super::{blocks::*, exact, kernel::*, lanes, plain, sixteens, supers};
use crate::kernel_set::{KernelSet, Kernels};

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In f32.
    Exact = 0,
    /// In integers, over quantized columns.
    Integer = 1,
}

/// The names of the sets in counters.
pub(super) const SETS: [&str; 7] = [
    "scalar",
    "avx2",
    "avxvnni",
    "avx512",
    "avx512vnni",
    "amx",
    "amx-emulated",
];

/// Calls a generic function with the block type of 32 values that a [`Type`] names.
macro_rules! for_small_blocks {
    ($ty:expr, $make:ident) => {
        match $ty {
            Type::Q4_0 => Some($make::<Q4_0>()),
            Type::Q4_1 => Some($make::<Q4_1>()),
            Type::Q5_0 => Some($make::<Q5_0>()),
            Type::Q5_1 => Some($make::<Q5_1>()),
            Type::Q8_0 => Some($make::<Q8_0>()),
            Type::IQ4_NL => Some($make::<IQ4_NL>()),
            Type::MXFP4 => Some($make::<MXFP4>()),
            _ => None,
        }
    };
}

/// The same for types of 256 values.
macro_rules! for_supers {
    ($ty:expr, $make:ident) => {
        match $ty {
            Type::Q2_K => Some($make::<Q2_K>()),
            Type::Q3_K => Some($make::<Q3_K>()),
            Type::Q4_K => Some($make::<Q4_K>()),
            Type::Q5_K => Some($make::<Q5_K>()),
            Type::Q6_K => Some($make::<Q6_K>()),
            Type::IQ4_XS => Some($make::<IQ4_XS>()),
            _ => None,
        }
    };
}

/// The same for all of them.
macro_rules! for_blocks {
    ($ty:expr, $make:ident) => {
        crate::product::select::for_small_blocks!($ty, $make)
            .or_else(|| crate::product::select::for_supers!($ty, $make))
    };
}
pub(super) use {for_blocks, for_small_blocks, for_supers};

/// Instantiates the integer kernels for an instruction set. The wrappers enable its features; all else is inlined into
/// them.
macro_rules! integer_kernels {
    ($module:ident, $lanes:ty, $columns:literal $(, $feature:meta)?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn sixteens<W: Small>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { sixteens::product::<$lanes, W, $columns>(weights, columns, tile, stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn quantize_sixteens(x: &[f32], to: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { sixteens::quantize(x, to) }
            }

            $(#[$feature])?
            unsafe fn supers<W: Supers>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { supers::product::<$lanes, W, $columns>(weights, columns, tile, stride) }
            }

            $(#[$feature])?
            pub(super) unsafe fn quantize_supers(x: &[f32], to: *mut u8) {
                // SAFETY: the caller's promise.
                unsafe { supers::quantize(x, to) }
            }

            fn of_sixteens<W: Small>() -> Product {
                sixteens::<W>
            }

            fn of_supers<W: Supers>() -> Product {
                supers::<W>
            }

            pub(super) fn kernel(ty: Type) -> Option<Product> {
                for_small_blocks!(ty, of_sixteens).or_else(|| for_supers!(ty, of_supers))
            }
        }
    };
}

/// As above, for the exact kernels.
macro_rules! exact_kernels {
    ($module:ident, $lanes:ty, $columns:literal $(, $feature:meta)?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn product<W: exact::Decode>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { exact::product::<$lanes, W, $columns>(weights, columns, tile, stride) }
            }

            $(#[$feature])?
            unsafe fn few<W: plain::Plain>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { plain::product::<$lanes, W, $columns>(weights, columns, tile, stride) }
            }

            /// Few columns straight from the weights, more of them over decoded ones.
            unsafe fn either<W: plain::Plain, D: exact::Decode>(
                weights: &Weights,
                columns: &[*const u8],
                tile: &mut [f32],
                stride: usize,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    if columns.len() <= FEW_COLUMNS {
                        few::<W>(weights, columns, tile, stride)
                    } else {
                        product::<D>(weights, columns, tile, stride)
                    }
                }
            }

            fn of<W: Blocks>() -> Product {
                product::<exact::Unpacked<W>>
            }

            pub(super) fn kernel(ty: Type) -> Option<Product> {
                match ty {
                    Type::F32 => Some(either::<plain::Singles, exact::F32>),
                    Type::F16 => Some(either::<plain::Halves, exact::F16>),
                    Type::BF16 => Some(either::<plain::Brains, exact::BF16>),
                    _ => for_blocks!(ty, of),
                }
            }
        }
    };
}

exact_kernels!(exact_scalar, lanes::Scalar, 2);
integer_kernels!(scalar, lanes::Scalar, 4);
#[cfg(target_arch = "x86_64")]
exact_kernels!(
    exact_avx2,
    lanes::Avx2<false>,
    2,
    target_feature(enable = "avx2,fma,f16c")
);
#[cfg(target_arch = "x86_64")]
integer_kernels!(avx2, lanes::Avx2<false>, 4, target_feature(enable = "avx2,fma,f16c"));
#[cfg(target_arch = "x86_64")]
integer_kernels!(
    avxvnni,
    lanes::Avx2<true>,
    4,
    target_feature(enable = "avx2,fma,f16c,avxvnni")
);
#[cfg(target_arch = "x86_64")]
exact_kernels!(
    exact_avx512,
    lanes::Avx512<false>,
    8,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
);
#[cfg(target_arch = "x86_64")]
integer_kernels!(
    avx512,
    lanes::Avx512<false>,
    8,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
);
#[cfg(target_arch = "x86_64")]
integer_kernels!(
    avx512vnni,
    lanes::Avx512<true>,
    8,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
);

/// Kernels for types of look-ups where bytes change places across a vector; the other types gain nothing by that.
#[cfg(target_arch = "x86_64")]
mod avx512vbmi {
    use super::*;

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn sixteens<W: Small>(weights: &Weights, columns: &[*const u8], tile: &mut [f32], stride: usize) {
        // SAFETY: the caller's promise, and the features are enabled.
        unsafe { sixteens::product::<lanes::Avx512<true, true>, W, 4>(weights, columns, tile, stride) }
    }

    pub(super) fn kernel(ty: Type) -> Option<Product> {
        match ty {
            Type::IQ4_NL => Some(sixteens::<IQ4_NL>),
            Type::MXFP4 => Some(sixteens::<MXFP4>),
            _ => avx512vnni::kernel(ty),
        }
    }
}

type Choice = fn(Type) -> Option<Product>;
type Quantize = unsafe fn(&[f32], *mut u8);

/// What quantizes columns, by [`Takes`].
macro_rules! quantizers {
    ($module:ident) => {
        [$module::quantize_sixteens, $module::quantize_supers]
    };
}

/// The kernels that a device uses.
#[derive(Clone, Copy)]
pub(super) struct Selected {
    exact: (Choice, usize),
    integer: (Choice, usize),
    quantizers: [Quantize; Takes::QUANTIZED.len()],
}

impl Selected {
    const SCALAR: Selected = Selected {
        exact: (exact_scalar::kernel, 0),
        integer: (scalar::kernel, 0),
        quantizers: quantizers!(scalar),
    };

    /// The kernel for weights of this type; none where they are no weights, or where there is none of this way.
    pub fn kernel(&self, ty: Type, way: Way) -> Option<Kernel> {
        let ((choice, set), rows) = match way {
            Way::Exact => (self.exact, TILE_ROWS),
            Way::Integer => (self.integer, MANY_ROWS),
        };
        Some(Kernel {
            product: choice(ty)?,
            rows,
            set,
            takes: takes(ty, way),
        })
    }

    /// Quantizes a column to what number `kind` of [`Takes::QUANTIZED`] says.
    ///
    /// # Safety
    /// As there; the kernels were selected for this machine.
    pub unsafe fn quantize(&self, kind: usize, x: &[f32], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { (self.quantizers[kind])(x, to) }
    }
}

/// What columns the kernels for a type take.
pub(super) fn takes(ty: Type, way: Way) -> Takes {
    match way {
        Way::Exact => Takes::Plain,
        Way::Integer if ty.block_values() == 256 => Takes::Supers,
        Way::Integer => Takes::Sixteens,
    }
}

/// The kernels for what the machine was found to have.
#[cfg(target_arch = "x86_64")]
pub(super) fn select(kernels: Kernels) -> Selected {
    let avx512 = Selected {
        exact: (exact_avx512::kernel, 3),
        integer: (avx512::kernel, 3),
        quantizers: quantizers!(avx512),
    };
    let avx2 = Selected {
        exact: (exact_avx2::kernel, 1),
        integer: (avx2::kernel, 1),
        quantizers: quantizers!(avx2),
    };
    match (kernels.set(), kernels.vnni()) {
        (KernelSet::Scalar, _) => Selected::SCALAR,
        (KernelSet::Avx2, _) => avx2,
        (KernelSet::AvxVnni, _) => Selected {
            integer: (avxvnni::kernel, 2),
            quantizers: quantizers!(avxvnni),
            ..avx2
        },
        (KernelSet::Avx512, false) => avx512,
        (KernelSet::Avx512, true) => Selected {
            integer: if kernels.vbmi() {
                (avx512vbmi::kernel, 4)
            } else {
                (avx512vnni::kernel, 4)
            },
            quantizers: quantizers!(avx512vnni),
            ..avx512
        },
    }
}

/// The kernels for what the machine was found to have: plain Rust.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn select(_: Kernels) -> Selected {
    Selected::SCALAR
}
