//! The sums of a part over pages of q8_0 and q4_0 in whole numbers, where AVX-512 VNNI is there.
//!
//! The codes of keys are multiplied with queries in 8 bits, 16 positions side by side: keys are turned once for all heads,
//! so that nothing is added up across lanes. The weights of values, times their blocks' scales, are rounded to 16 bits.
//! Positions are taken in whole sixteens; those that are not seen weigh nothing.

#![allow(clippy::needless_range_loop)] // heads, rows and vectors of registers are numbered

use std::{
    arch::{asm, x86_64::*},
    ops::Range,
};

use super::{
    codes::{BLOCK, BLOCKS, Queries, Room, SIXTEENS},
    part::{CELLS, HEADS, Q4, Q8, Rows, Sight, State, soften},
};
use crate::{
    kernel_set::Kernels,
    lanes::{Avx512, Lanes, ROUND, WIDTH, prefetch},
};

// SAFETY, of all blocks in here but the last: what they are called from runs only where the instructions are there, arrays
// are as long as what is loaded, and a `Place` has the positions that it says.

/// Where the same block of positions lies: of the first one, and from one to the next.
#[derive(Clone, Copy)]
struct Place<B> {
    first: *const B,
    step: usize,
}

impl<B> Place<B> {
    /// The bytes of position `i` from byte `at` of its block on.
    #[inline(always)]
    fn bytes(self, i: usize, at: usize) -> *const __m128i {
        self.first
            .wrapping_add(i * self.step)
            .cast::<u8>()
            .wrapping_add(at)
            .cast()
    }

    /// Where block `i` of the same positions lies.
    #[inline(always)]
    fn block(self, i: usize) -> Place<B> {
        let first = self.first.wrapping_add(i);
        Place { first, ..self }
    }

    /// Where the positions from number `i` on lie.
    #[inline(always)]
    fn from(self, i: usize) -> Place<B> {
        let first = self.first.wrapping_add(i * self.step);
        Place { first, ..self }
    }
}

/// What blocks do differently.
trait Blocks: Copy {
    /// The codes of 16 positions, with what makes them unsigned: 128, or 8 for q4_0. Vector j has numbers 4j to 4j + 3 of
    /// each.
    fn turned(place: Place<Self>) -> [__m512i; 8];
    /// The codes of two positions, which have the same place but for how far they are apart, as signed words side by side:
    /// two vectors of pairs.
    fn pairs(place: Place<Self>, apart: usize) -> [__m512i; 2];
    /// The 32 numbers in order, of the sums of products of [`Blocks::pairs`].
    fn in_order(sums: [__m512i; 2]) -> [__m512; 2];
}

impl Blocks for Q8 {
    #[inline(always)]
    fn turned(place: Place<Q8>) -> [__m512i; 8] {
        let mut all = [zeros(); 8];
        for half in 0..2 {
            let columns = turned(place, 2 + 16 * half);
            for j in 0..4 {
                // SAFETY: see above.
                all[4 * half + j] = unsafe { _mm512_xor_si512(columns[j], _mm512_set1_epi8(-128)) };
            }
        }
        all
    }

    #[inline(always)]
    fn pairs(place: Place<Q8>, apart: usize) -> [__m512i; 2] {
        // SAFETY: see above.
        unsafe {
            let a = _mm512_cvtepi8_epi16(_mm256_loadu_si256(place.bytes(0, 2).cast()));
            let b = _mm512_cvtepi8_epi16(_mm256_loadu_si256(place.bytes(apart, 2).cast()));
            [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)]
        }
    }

    #[inline(always)]
    fn in_order([low, high]: [__m512i; 2]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            let first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
            let last = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
            [
                _mm512_cvtepi32_ps(_mm512_permutex2var_epi64(low, first, high)),
                _mm512_cvtepi32_ps(_mm512_permutex2var_epi64(low, last, high)),
            ]
        }
    }
}

impl Blocks for Q4 {
    #[inline(always)]
    fn turned(place: Place<Q4>) -> [__m512i; 8] {
        let both = turned(place, 2);
        let mut all = [zeros(); 8];
        for j in 0..4 {
            // SAFETY: see above.
            unsafe {
                let low = _mm512_set1_epi8(15);
                all[j] = _mm512_and_si512(both[j], low);
                all[4 + j] = _mm512_and_si512(_mm512_srli_epi16::<4>(both[j]), low);
            }
        }
        all
    }

    /// The lower four bits, and both: the sum of products of the upper ones follows.
    #[inline(always)]
    fn pairs(place: Place<Q4>, apart: usize) -> [__m512i; 2] {
        // SAFETY: see above.
        unsafe {
            let a = _mm512_cvtepu8_epi32(_mm_loadu_si128(place.bytes(0, 2)));
            let b = _mm512_cvtepu8_epi32(_mm_loadu_si128(place.bytes(apart, 2)));
            let both = _mm512_or_si512(a, _mm512_slli_epi32::<16>(b));
            let low = _mm512_and_si512(both, _mm512_set1_epi16(15));
            [
                _mm512_sub_epi16(low, _mm512_set1_epi16(8)),
                _mm512_sub_epi16(both, _mm512_set1_epi16(8 + 16 * 8)),
            ]
        }
    }

    #[inline(always)]
    fn in_order([low, both]: [__m512i; 2]) -> [__m512; 2] {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_srai_epi32::<4>(_mm512_sub_epi32(both, low));
            [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(high)]
        }
    }
}

/// 16 bytes of each of four positions, four apart.
#[inline(always)]
fn quarters<B: Blocks>(place: Place<B>, at: usize, first: usize) -> __m512i {
    // SAFETY: see above.
    unsafe {
        let a = _mm512_castsi128_si512(_mm_loadu_si128(place.bytes(first, at)));
        let b = _mm512_inserti32x4::<1>(a, _mm_loadu_si128(place.bytes(first + 4, at)));
        let c = _mm512_inserti32x4::<2>(b, _mm_loadu_si128(place.bytes(first + 8, at)));
        _mm512_inserti32x4::<3>(c, _mm_loadu_si128(place.bytes(first + 12, at)))
    }
}

/// 16 bytes of each of 16 positions, turned: vector j has bytes 4j to 4j + 3 of each.
#[inline(always)]
fn turned<B: Blocks>(place: Place<B>, at: usize) -> [__m512i; 4] {
    let mut rows = [zeros(); 4];
    for i in 0..4 {
        rows[i] = quarters(place, at, i);
    }
    let [a, b, c, d] = rows;
    // SAFETY: see above.
    unsafe {
        let [ab, cd] = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
        let [ab2, cd2] = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
        [
            _mm512_unpacklo_epi64(ab, cd),
            _mm512_unpackhi_epi64(ab, cd),
            _mm512_unpacklo_epi64(ab2, cd2),
            _mm512_unpackhi_epi64(ab2, cd2),
        ]
    }
}

/// Numbers of 16 positions, by block.
type Scales = [[f32; WIDTH]; BLOCKS];

/// The scales of 16 positions.
#[inline(always)]
fn scales<B: Blocks>(place: Place<B>, blocks: usize, scales: &mut Scales) {
    for (i, scales) in scales
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .enumerate()
        .take(blocks.div_ceil(4))
    {
        let left = blocks - 4 * i;
        let place = place.block(4 * i);
        let [a, b] = [eight_scales(place, left), eight_scales(place.from(8), left)];
        // SAFETY: see above.
        unsafe {
            let even = _mm512_set_epi16(
                61, 57, 53, 49, 45, 41, 37, 33, 29, 25, 21, 17, 13, 9, 5, 1, 60, 56, 52, 48, 44, 40, 36, 32, 28, 24,
                20, 16, 12, 8, 4, 0,
            );
            let odd = _mm512_add_epi16(even, _mm512_set1_epi16(2));
            for (j, order) in [even, odd].into_iter().enumerate() {
                let both = _mm512_permutex2var_epi16(a, order, b);
                scales[2 * j] = Avx512::store(_mm512_cvtph_ps(_mm512_castsi512_si256(both)));
                scales[2 * j + 1] = Avx512::store(_mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(both)));
            }
        }
    }
}

/// The bits of the scales of eight positions, those of four blocks side by side, as far as there are so many.
#[inline(always)]
fn eight_scales<B: Blocks>(place: Place<B>, blocks: usize) -> __m512i {
    let mut all = zeros();
    let step = size_of::<B>() / 2;
    // Scales among the words that are read at a time.
    let at_once = 31 / step + 1;
    let mut order = [0u16; 32];
    for (i, order) in order.iter_mut().enumerate() {
        *order = (i % at_once * step) as u16;
    }
    for first in (0..4).step_by(at_once) {
        let here = blocks.saturating_sub(first).min(at_once);
        let take = ((1u32 << at_once) - 1) << first;
        // SAFETY: see above; as many blocks as are read at once have 64 bytes, and of fewer no more than the last scale is
        // read.
        unsafe {
            let order = opaque(_mm512_loadu_si512(order.as_ptr().cast()));
            if here == at_once {
                for i in 0..8 {
                    let words = _mm512_loadu_si512(place.block(first).bytes(i, 0).cast());
                    all = _mm512_mask_permutexvar_epi16(all, take << (4 * i), order, words);
                }
            } else if here > 0 {
                let read = u32::MAX >> (31 - (here - 1) * step);
                for i in 0..8 {
                    let words = _mm512_maskz_loadu_epi16(read, place.block(first).bytes(i, 0).cast());
                    all = _mm512_mask_permutexvar_epi16(all, take << (4 * i), order, words);
                }
            }
        }
    }
    all
}

/// Defines [`attend`] for a type of blocks.
macro_rules! attend_to {
    ($name:ident, $block:ty) => {
        /// Adds what is seen to the sums of the first `heads` heads. Rows have whole sixteens of positions. Panics where the
        /// machine has no VNNI.
        pub fn $name(
            kernels: Kernels,
            state: &mut State,
            queries: &mut Queries,
            heads: usize,
            sight: Sight<'_, $block>,
            softcap: f32,
        ) {
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            fn vnni(state: &mut State, queries: &mut Queries, heads: usize, sight: Sight<'_, $block>, softcap: f32) {
                match heads {
                    1 => attend::<$block, 1>(state, queries, sight, softcap),
                    2 => attend::<$block, 2>(state, queries, sight, softcap),
                    3 => attend::<$block, 3>(state, queries, sight, softcap),
                    4 => attend::<$block, 4>(state, queries, sight, softcap),
                    5 => attend::<$block, 5>(state, queries, sight, softcap),
                    6 => attend::<$block, 6>(state, queries, sight, softcap),
                    7 => attend::<$block, 7>(state, queries, sight, softcap),
                    _ => attend::<$block, HEADS>(state, queries, sight, softcap),
                }
            }
            assert!(kernels.vnni());
            // SAFETY: the machine has VNNI and with it all of the set.
            unsafe { vnni(state, queries, heads, sight, softcap) }
        }
    };
}

attend_to!(attend_q8_0, Q8);
attend_to!(attend_q4_0, Q4);

#[inline(always)]
fn attend<B: Blocks, const H: usize>(state: &mut State, queries: &mut Queries, sight: Sight<'_, B>, softcap: f32) {
    let Sight {
        keys,
        values,
        seen,
        soon,
    } = sight;
    let sixteens = seen.start / WIDTH..seen.end.min(CELLS).div_ceil(WIDTH);
    score::<B, H>(state, queries, &keys, &sixteens, soon[0]);
    soften::<Avx512>(state, H, &seen, softcap);
    let blocks = blocks(&values);
    measure(&mut queries.room, &values, &seen, &sixteens);
    level::<H>(&mut queries.room, state, &sixteens);
    spread::<H>(&mut queries.room, state, blocks, &sixteens);
    weigh::<B, H>(state, &queries.room, &values, &sixteens, soon[1]);
}

#[inline(always)]
fn blocks<B>(rows: &Rows<'_, B>) -> usize {
    (rows.vectors * WIDTH / BLOCK).min(BLOCKS)
}

/// The rows of `count` positions from number `first` on, which are checked to be there.
#[inline(always)]
fn place<B>(rows: &Rows<'_, B>, first: usize, count: usize) -> Place<B> {
    let start = (first - rows.first) * rows.step;
    let data = &rows.data[start..start + (count - 1) * rows.step + blocks(rows)];
    Place {
        first: data.as_ptr(),
        step: rows.step,
    }
}

/// Scores the positions of whole sixteens.
#[inline(always)]
fn score<B: Blocks, const H: usize>(
    state: &mut State,
    queries: &Queries,
    keys: &Rows<'_, B>,
    sixteens: &Range<usize>,
    soon: &[u8],
) {
    let zero = Avx512::splat(0.0);
    let blocks = blocks(keys);
    for sixteen in sixteens.clone() {
        prefetch(soon, sixteen, CELLS / WIDTH);
        let place = place(keys, sixteen * WIDTH, WIDTH);
        let mut scales = [[0.0; WIDTH]; BLOCKS];
        self::scales(place, blocks, &mut scales);
        let mut sums = [zero; H];
        for block in 0..blocks {
            let (columns, scale) = (B::turned(place.block(block)), Avx512::load(&scales[block]));
            for h in 0..H {
                let codes = &queries.codes[h].as_chunks::<4>().0.as_chunks::<8>().0[block];
                let mut sum = splat(queries.starts[h][block]);
                for j in 0..8 {
                    sum = dot_bytes(sum, columns[j], splat(i32::from_ne_bytes(codes[j].map(|x| x as u8))));
                }
                sums[h] = Avx512::mul_add(to_numbers(sum), scale, sums[h]);
            }
        }
        for h in 0..H {
            let scale = Avx512::splat(queries.scales[h]);
            let scores = &mut state.scores[h].as_chunks_mut::<WIDTH>().0[sixteen];
            *scores = Avx512::store(Avx512::mul_add(sums[h], scale, zero));
        }
    }
}

#[inline(always)]
fn zeros() -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_setzero_si512() }
}

#[inline(always)]
fn splat(x: i32) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_set1_epi32(x) }
}

#[inline(always)]
fn dot_bytes(sums: __m512i, unsigned: __m512i, signed: __m512i) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
}

/// The intrinsic becomes two instructions where sums follow each other, which here are not waited for.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_words(mut sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: an instruction on registers.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) sums, in(zmm_reg) a, in(zmm_reg) b, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// The same. Permutations whose order the compiler knows become ones of two vectors, which take longer.
#[inline]
#[target_feature(enable = "avx512f")]
fn opaque(mut x: __m512i) -> __m512i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(zmm_reg) x, options(pure, nomem, nostack, preserves_flags)) };
    x
}

#[inline(always)]
fn to_numbers(x: __m512i) -> __m512 {
    // SAFETY: see above.
    unsafe { _mm512_cvtepi32_ps(x) }
}

/// Units of the largest scale.
const MOST: f32 = 32767.0;

/// Notes the scales of values, as numbers of units, so many that they have 16 bits.
#[inline(always)]
fn measure<B: Blocks>(room: &mut Room, values: &Rows<'_, B>, seen: &Range<usize>, sixteens: &Range<usize>) {
    let (zero, blocks) = (Avx512::splat(0.0), blocks(values));
    for i in sixteens.clone() {
        scales(place(values, i * WIDTH, WIDTH), blocks, &mut room.scales[i]);
    }
    for block in 0..blocks {
        let mut own = [zero; SIXTEENS];
        let mut largest = zero;
        for i in sixteens.clone() {
            own[i] = only(Avx512::load(&room.scales[i][block]), seen, i * WIDTH);
            largest = Avx512::max(magnitude(own[i]), largest);
        }
        let largest = Avx512::largest(largest);
        room.units[block] = largest / MOST;
        let inverse = Avx512::splat(if largest > 0.0 { MOST / largest } else { 0.0 });
        for i in sixteens.clone() {
            room.scales[i][block] = Avx512::store(Avx512::mul_add(own[i], inverse, zero));
        }
        room.scales[sixteens.end][block] = [0.0; WIDTH];
    }
}

/// Makes the largest weight of each head 1: below a high score of earlier positions, all of these would be few units, or none.
#[inline(always)]
fn level<const H: usize>(room: &mut Room, state: &mut State, sixteens: &Range<usize>) {
    let zero = Avx512::splat(0.0);
    for h in 0..H {
        let weights = &mut state.scores[h].as_chunks_mut().0[sixteens.clone()];
        let mut largest = zero;
        for weights in weights.iter() {
            largest = Avx512::max(Avx512::load(weights), largest);
        }
        let largest = Avx512::largest(largest).max(f32::MIN_POSITIVE);
        let inverse = Avx512::splat(1.0 / largest);
        for weights in weights {
            *weights = Avx512::store(Avx512::mul_add(Avx512::load(weights), inverse, zero));
        }
        room.tops[h] = largest;
    }
}

/// Makes whole numbers of weights times scales.
#[inline(always)]
fn spread<const H: usize>(room: &mut Room, state: &State, blocks: usize, sixteens: &Range<usize>) {
    for (i, at) in sixteens.clone().step_by(2).enumerate() {
        for block in 0..blocks {
            let scales = [
                Avx512::load(&room.scales[at][block]),
                Avx512::load(&room.scales[at + 1][block]),
            ];
            for h in 0..H {
                let weights = state.scores[h].as_chunks().0;
                let next = if at + 1 < sixteens.end {
                    &weights[at + 1]
                } else {
                    &[0.0; WIDTH]
                };
                room.weights[block][h][i] = rounded([&weights[at], next], scales);
            }
        }
    }
}

/// Numbers of 16 positions from number `first` on, with zeros for those that are not seen.
#[inline(always)]
fn only(x: __m512, seen: &Range<usize>, first: usize) -> __m512 {
    let below = |end: usize| (1u32 << end.saturating_sub(first).min(WIDTH)) - 1;
    // SAFETY: see above.
    unsafe { _mm512_maskz_mov_ps((below(seen.end) & !below(seen.start)) as u16, x) }
}

#[inline(always)]
fn magnitude(x: __m512) -> __m512 {
    // SAFETY: see above.
    unsafe { _mm512_abs_ps(x) }
}

/// The products of two sixteens, to whole numbers of 16 bits, side by side.
#[inline(always)]
fn rounded([a, b]: [&[f32; WIDTH]; 2], scales: [__m512; 2]) -> [i32; WIDTH] {
    let large = Avx512::splat(ROUND);
    let a = Avx512::mul_add(Avx512::load(a), scales[0], large);
    let b = Avx512::mul_add(Avx512::load(b), scales[1], large);
    // SAFETY: a register of 16 numbers, in memory as an array of them; for the rest see above.
    unsafe {
        let low = _mm512_and_si512(_mm512_castps_si512(a), splat(0xffff));
        std::mem::transmute(_mm512_or_si512(low, _mm512_slli_epi32::<16>(_mm512_castps_si512(b))))
    }
}

/// Adds weighted values to the sums.
#[inline(always)]
fn weigh<B: Blocks, const H: usize>(
    state: &mut State,
    room: &Room,
    values: &Rows<'_, B>,
    sixteens: &Range<usize>,
    soon: &[u8],
) {
    let (first, count) = (sixteens.start * WIDTH, sixteens.len() * WIDTH);
    let blocks = blocks(values);
    let place = place(values, first, count);
    for block in 0..blocks {
        prefetch(soon, block, blocks);
        let place = place.block(block);
        let mut sums = [[zeros(); 2]; H];
        for (i, two) in (0..count).step_by(2 * WIDTH).enumerate() {
            let apart = if two + WIDTH < count { WIDTH } else { 0 };
            for j in 0..WIDTH {
                let pairs = B::pairs(place.from(two + j), apart);
                for h in 0..H {
                    let weight = splat(room.weights[block][h][i][j]);
                    for half in 0..2 {
                        // SAFETY: see above.
                        sums[h][half] = unsafe { dot_words(sums[h][half], pairs[half], weight) };
                    }
                }
            }
        }
        for h in 0..H {
            let unit = Avx512::splat(room.units[block] * room.tops[h]);
            let keep = Avx512::splat(state.keeps[h]);
            let out = &mut state.sums[h].as_chunks_mut::<WIDTH>().0[2 * block..2 * block + 2];
            let new = B::in_order(sums[h]);
            for half in 0..2 {
                let old = Avx512::mul_add(Avx512::load(&out[half]), keep, Avx512::splat(0.0));
                out[half] = Avx512::store(Avx512::mul_add(new[half], unit, old));
            }
        }
    }
}
