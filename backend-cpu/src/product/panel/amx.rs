//! Tiles of AMX: as instructions, and in plain Rust, so that what is built of them runs everywhere.
//!
//! There are eight tiles of 16 rows of 64 bytes. The compiler knows no tile registers, so what is in them stays from one
//! instruction to the next; [`Tiles::configure`] comes first in every thread. See Intel's Software Developer's Manual, volume 2,
//! and the Architecture Instruction Set Extensions Programming Reference, chapter 3.

#[cfg(target_arch = "x86_64")]
pub use instructions::{Instructions, PEAK_ROUND, is_available, peak};

/// Operations on tiles 0 to 7.
///
/// # Safety
/// All functions are called on one thread, from [`Tiles::configure`] to [`Tiles::release`], where the machine has them.
/// Addresses are those of 16 rows of 64 bytes, `stride` bytes apart.
pub(super) trait Tiles {
    /// Tiles of 16 rows of 64 bytes, whose contents are not known.
    unsafe fn configure() -> Self;
    /// No tiles.
    unsafe fn release(self);
    /// Zeros.
    unsafe fn zero<const T: usize>(&mut self);
    /// Loads a tile.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);
    /// Stores a tile.
    unsafe fn store<const T: usize>(&self, to: *mut u8, stride: usize);
    /// C[m][n] += Σ A[m][k] · B[k / 2][n][k % 2], C of f32 [16][16], A of bf16 [16][32], B of [16][16][2].
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// Plain Rust. Rounding differs from the instructions': those flush denormals, and round sums of pairs in another order.
pub(super) struct Emulated([[[u8; 64]; 16]; 8]);

#[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Tiles`
impl Tiles for Emulated {
    #[inline(always)]
    unsafe fn configure() -> Emulated {
        Emulated([[[0xa5; 64]; 16]; 8])
    }

    #[inline(always)]
    unsafe fn release(self) {}

    #[inline(always)]
    unsafe fn zero<const T: usize>(&mut self) {
        self.0[T] = [[0; 64]; 16];
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        for (i, row) in self.0[T].iter_mut().enumerate() {
            *row = from.add(i * stride).cast::<[u8; 64]>().read();
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&self, to: *mut u8, stride: usize) {
        for (i, row) in self.0[T].iter().enumerate() {
            to.add(i * stride).cast::<[u8; 64]>().write(*row);
        }
    }

    #[inline(always)]
    unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
        let mut sums = [[0.0; 16]; 16];
        for k in 0..16 {
            let [mut low, mut high] = [[0.0; 16]; 2];
            for (n, pair) in self.0[B][k].as_chunks().0.iter().enumerate() {
                [low[n], high[n]] = widened(pair);
            }
            for (sums, a) in sums.iter_mut().zip(&self.0[A]) {
                let [first, second] = widened(&a.as_chunks().0[k]);
                for n in 0..16 {
                    sums[n] += first * low[n] + second * high[n];
                }
            }
        }
        for (c, sums) in self.0[C].iter_mut().zip(sums) {
            for (c, sum) in c.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
                *c = (f32::from_le_bytes(*c) + sum).to_le_bytes();
            }
        }
    }
}

/// Two bf16 numbers.
#[inline(always)]
fn widened(pair: &[u8; 4]) -> [f32; 2] {
    let bits = u32::from_le_bytes(*pair);
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use std::{
        arch::{asm, x86_64::__cpuid_count},
        sync::OnceLock,
    };

    use super::Tiles;

    /// The processor's.
    pub struct Instructions;

    /// What `ldtilecfg` reads.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIGURATION: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// Whether the processor has AMX with bf16, and the operating system gives it to this process: it saves the tiles, and
    /// grants their state when it is asked, which is done once.
    pub fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        *AVAILABLE.get_or_init(|| has_instructions() && are_tiles_saved() && is_granted())
    }

    fn has_instructions() -> bool {
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE
    }

    /// XCR0's bits 17 and 18: the tiles' configuration and their data.
    fn are_tiles_saved() -> bool {
        const OSXSAVE: u32 = 1 << 27;
        if __cpuid_count(1, 0).ecx & OSXSAVE == 0 {
            return false;
        }
        let low: u32;
        // SAFETY: the operating system allows the instruction (OSXSAVE), and register 0 exists.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) };
        low >> 17 & 3 == 3
    }

    #[cfg(target_os = "linux")]
    fn is_granted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers and touches no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn is_granted() -> bool {
        false
    }

    /// An instruction that writes the tile of this number.
    macro_rules! tile {
        ($number:ident: $($asm:tt)*) => {
            match $number {
                0 => asm!($($asm)*, out("tmm0") _, options(nostack, preserves_flags)),
                1 => asm!($($asm)*, out("tmm1") _, options(nostack, preserves_flags)),
                2 => asm!($($asm)*, out("tmm2") _, options(nostack, preserves_flags)),
                3 => asm!($($asm)*, out("tmm3") _, options(nostack, preserves_flags)),
                4 => asm!($($asm)*, out("tmm4") _, options(nostack, preserves_flags)),
                5 => asm!($($asm)*, out("tmm5") _, options(nostack, preserves_flags)),
                6 => asm!($($asm)*, out("tmm6") _, options(nostack, preserves_flags)),
                _ => asm!($($asm)*, out("tmm7") _, options(nostack, preserves_flags)),
            }
        };
    }

    /// An instruction that writes all of them.
    macro_rules! every_tile {
        ($($asm:tt)*) => {
            asm!($($asm)*, out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                out("tmm6") _, out("tmm7") _, options(nostack, preserves_flags))
        };
    }

    #[allow(unsafe_op_in_unsafe_fn)] // the safety of every function here is that of `Tiles`
    impl Tiles for Instructions {
        #[inline(always)]
        unsafe fn configure() -> Instructions {
            every_tile!("ldtilecfg [{from}]", from = in(reg) &CONFIGURATION);
            Instructions
        }

        #[inline(always)]
        unsafe fn release(self) {
            every_tile!("tilerelease");
        }

        #[inline(always)]
        unsafe fn zero<const T: usize>(&mut self) {
            tile!(T: "tilezero tmm{t}", t = const T);
        }

        #[inline(always)]
        unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
            tile!(T: "tileloadd tmm{t}, [{from} + {stride}]", t = const T, from = in(reg) from, stride = in(reg) stride);
        }

        #[inline(always)]
        unsafe fn store<const T: usize>(&self, to: *mut u8, stride: usize) {
            asm!("tilestored [{to} + {stride}], tmm{t}", t = const T, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags));
        }

        #[inline(always)]
        unsafe fn dot<const C: usize, const A: usize, const B: usize>(&mut self) {
            tile!(C: "tdpbf16ps tmm{c}, tmm{a}, tmm{b}", c = const C, a = const A, b = const B);
        }
    }

    /// Multiplications of a round of [`peak`].
    pub const PEAK_ROUND: usize = 4 * 16 * 16 * 32;

    /// Multiplies tiles of zeros, `rounds` times four.
    ///
    /// # Safety
    /// AMX is available.
    pub unsafe fn peak(rounds: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut tiles = Instructions::configure();
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
            tiles.zero::<4>();
            tiles.zero::<5>();
            tiles.zero::<6>();
            tiles.zero::<7>();
            for _ in 0..rounds {
                tiles.dot::<0, 4, 6>();
                tiles.dot::<1, 4, 7>();
                tiles.dot::<2, 5, 6>();
                tiles.dot::<3, 5, 7>();
            }
            tiles.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Σ over k of a[m][k] · b[k / 2][n][k % 2] + c[m][n], and what the tiles give.
    fn dot_of_whole_numbers<T: Tiles>() {
        let a: [[u16; 32]; 16] = std::array::from_fn(|m| std::array::from_fn(|k| bf16((m * 5 + k * 3) % 17)));
        let b: [[u16; 32]; 16] = std::array::from_fn(|k| std::array::from_fn(|n| bf16((k * 7 + n * 11) % 13)));
        let mut c: [[f32; 20]; 16] = std::array::from_fn(|m| std::array::from_fn(|n| (m + n) as f32));
        let expected: [[f32; 16]; 16] = std::array::from_fn(|m| {
            std::array::from_fn(|n| {
                let products = (0..32).map(|k| ((m * 5 + k * 3) % 17) * ((k / 2 * 7 + (2 * n + k % 2) * 11) % 13));
                (m + n + products.sum::<usize>()) as f32
            })
        });
        // SAFETY: callers have the tiles; the arrays have 16 rows of 64 bytes and more.
        unsafe {
            let mut tiles = T::configure();
            tiles.load::<3>(a.as_ptr().cast(), 64);
            tiles.load::<7>(b.as_ptr().cast(), 64);
            tiles.load::<0>(c.as_ptr().cast(), 80);
            tiles.dot::<0, 3, 7>();
            tiles.store::<0>(c.as_mut_ptr().cast(), 80);
            tiles.zero::<0>();
            tiles.release();
        }
        for (m, row) in c.iter().enumerate() {
            assert_eq!(row[..16], expected[m], "row {m}");
            assert_eq!(row[16..], [16, 17, 18, 19].map(|n| (m + n) as f32), "past row {m}");
        }
    }

    fn bf16(x: usize) -> u16 {
        ((x as f32).to_bits() >> 16) as u16
    }

    #[test]
    fn emulated_tiles_multiply() {
        dot_of_whole_numbers::<Emulated>();
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_instructions_do_the_same() {
        if is_available() {
            std::thread::spawn(dot_of_whole_numbers::<Instructions>).join().unwrap();
            dot_of_whole_numbers::<Instructions>();
        } else {
            println!("skipped: this machine has no AMX");
        }
    }
}
