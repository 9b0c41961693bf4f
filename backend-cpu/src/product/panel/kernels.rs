//! Which method serves a type, and how each instruction set instantiates it.

use backend_api::types::Type;

use super::{
    Columns, Kernel, Method, Product, Sums,
    amx::{Emulated, Instructions},
    bf16::Halves,
    floats::{Floats, Plain, Unpacked},
    integers::Integers,
    packing::{self, Packing},
};
use crate::{
    kernel_set::{KernelSet, Kernels, Tiles},
    product::{blocks::*, exact, kernel::Weights, lanes, select::for_blocks},
};

type Choice = fn(Type) -> Option<Kernel>;

/// The kernels for many columns that a device uses.
#[derive(Clone, Copy)]
pub(in crate::product) struct Panels {
    quantized: Choice,
    exact: Choice,
    pack: unsafe fn(Packing, &[f32], *mut u8, usize),
}

impl Panels {
    /// The kernel for weights of this type; none where there is none.
    pub fn kernel(&self, ty: Type, exact: bool) -> Option<Kernel> {
        if exact { (self.exact)(ty) } else { (self.quantized)(ty) }
    }

    /// Packs a column; see [`packing::pack`].
    ///
    /// # Safety
    /// As there; the kernels were selected for this machine.
    pub unsafe fn pack(&self, packing: Packing, x: &[f32], to: *mut u8, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { (self.pack)(packing, x, to, stride) }
    }
}

/// Instantiates a method for an instruction set, by type. The wrapper enables its features; all else is inlined into it.
macro_rules! kernels {
    ($module:ident, $set:literal, $W:ident => $method:ty, $feature:meta) => {
        mod $module {
            use super::*;

            #[$feature]
            unsafe fn product<$W: Blocks>(weights: &Weights, columns: &Columns, sums: *mut Sums) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { super::super::product::<$method>(weights, columns, sums) }
            }

            fn of<$W: Blocks>() -> Kernel {
                kernel::<$method>(product::<$W>, $set)
            }

            pub(super) fn choice(ty: Type) -> Option<Kernel> {
                for_blocks!(ty, of)
            }
        }
    };
}

/// The same for exact methods, with how columns are packed.
macro_rules! exact_kernels {
    ($module:ident, $set:literal, $U:ident => $method:ty, $feature:meta) => {
        mod $module {
            use super::*;

            #[$feature]
            unsafe fn product<$U: super::super::floats::Unpack>(weights: &Weights, columns: &Columns, sums: *mut Sums) {
                // SAFETY: the caller's promise, and the features are enabled.
                unsafe { super::super::product::<$method>(weights, columns, sums) }
            }

            #[$feature]
            pub(super) unsafe fn pack(packing: Packing, x: &[f32], to: *mut u8, stride: usize) {
                // SAFETY: the caller's promise.
                unsafe { packing::pack(packing, x, to, stride) }
            }

            fn plain<$U: super::super::floats::Unpack>() -> Kernel {
                kernel::<$method>(product::<$U>, $set)
            }

            fn of<W: Blocks>() -> Kernel {
                plain::<Unpacked<W>>()
            }

            pub(super) fn choice(ty: Type) -> Option<Kernel> {
                match ty {
                    Type::F32 => Some(plain::<Plain<exact::F32>>()),
                    Type::F16 => Some(plain::<Plain<exact::F16>>()),
                    Type::BF16 => Some(plain::<Plain<exact::BF16>>()),
                    _ => for_blocks!(ty, of),
                }
            }
        }
    };
}

fn kernel<M: Method>(product: Product, set: &'static str) -> Kernel {
    Kernel {
        product,
        packing: M::PACKING,
        set,
    }
}

kernels!(avx2, "avx2", W => Integers<lanes::Avx2<false>, W, 2, 1, 1>, target_feature(enable = "avx2,fma,f16c"));
kernels!(
    avxvnni,
    "avxvnni",
    W => Integers<lanes::Avx2<true>, W, 3, 2, 1>,
    target_feature(enable = "avx2,fma,f16c,avxvnni")
);
kernels!(
    avx512,
    "avx512",
    W => Integers<lanes::Avx512<false>, W, 4, 2, 2>,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
);
kernels!(
    avx512vnni,
    "avx512vnni",
    W => Integers<lanes::Avx512<true>, W, 6, 3, 2>,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
);
kernels!(
    amx,
    "amx",
    W => Halves<lanes::Avx512<true>, W, Instructions>,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")
);
kernels!(amx_emulated, "amx-emulated", W => Halves<lanes::Avx2<false>, W, Emulated>, target_feature(enable = "avx2,fma,f16c"));
exact_kernels!(exact_avx2, "avx2", U => Floats<lanes::Avx2<false>, U, 6, 3, 1>, target_feature(enable = "avx2,fma,f16c"));
exact_kernels!(
    exact_avx512,
    "avx512",
    U => Floats<lanes::Avx512<false>, U, 12, 6, 2>,
    target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
);

/// The kernels for what the machine was found to have; none for plain Rust.
pub(in crate::product) fn panels(kernels: Kernels) -> Option<Panels> {
    let avx2 = Panels {
        quantized: avx2::choice,
        exact: exact_avx2::choice,
        pack: exact_avx2::pack,
    };
    let avx512 = Panels {
        quantized: if kernels.vnni() {
            avx512vnni::choice
        } else {
            avx512::choice
        },
        exact: exact_avx512::choice,
        pack: exact_avx512::pack,
    };
    let set = match kernels.set() {
        KernelSet::Scalar => return None,
        KernelSet::Avx2 => avx2,
        KernelSet::AvxVnni => Panels {
            quantized: avxvnni::choice,
            ..avx2
        },
        KernelSet::Avx512 => avx512,
    };
    Some(match kernels.tiles() {
        None => set,
        Some(Tiles::Instructions) => Panels {
            quantized: amx::choice,
            ..set
        },
        Some(Tiles::Emulated) => Panels {
            quantized: amx_emulated::choice,
            ..set
        },
    })
}
