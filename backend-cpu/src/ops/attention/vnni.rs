//! The sums of a part over pages of q8_0 and q4_0 in whole numbers, where AVX-512 VNNI is there.
//!
//! The codes of keys are multiplied with queries in 8 bits. The weights of values, times their blocks' scales, are rounded
//! to 16 bits.

#![allow(clippy::needless_range_loop)] // heads, rows and vectors of registers are numbered

use std::arch::x86_64::*;

use super::{
    WIDEST,
    codes::Queries,
    part::{CELLS, HEADS, Q4, Q8, Rows, Sight, State, soften},
};
use crate::{
    kernel_set::Kernels,
    lanes::{Avx512, Lanes, WIDTH, prefetch},
};

/// Values of a block.
const BLOCK: usize = 32;
/// Blocks of a head at most.
const BLOCKS: usize = WIDEST / BLOCK;

// SAFETY, of all blocks in here but the last: what they are called from runs only where the instructions are there, and
// arrays are as long as what is loaded.

/// What blocks do differently.
trait Blocks: Copy {
    /// The codes of two blocks in order, with what makes them unsigned: 128, or 8 for q4_0.
    fn unsigned(a: &Self, b: &Self) -> __m512i;
    /// The codes of a block as signed words.
    fn words(&self) -> __m512i;
    /// The bits of its scale.
    fn scale(&self) -> u16;
}

impl Blocks for Q8 {
    #[inline(always)]
    fn unsigned(a: &Q8, b: &Q8) -> __m512i {
        // SAFETY: see above.
        unsafe {
            let a = _mm512_castsi256_si512(_mm256_loadu_si256(a[2..].as_ptr().cast()));
            let both = _mm512_inserti64x4::<1>(a, _mm256_loadu_si256(b[2..].as_ptr().cast()));
            _mm512_xor_si512(both, _mm512_set1_epi8(-128))
        }
    }

    #[inline(always)]
    fn words(&self) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(self[2..].as_ptr().cast())) }
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        u16::from_le_bytes([self[0], self[1]])
    }
}

/// The codes of a block of q4_0 in order.
#[inline(always)]
unsafe fn nibbles(block: &Q4) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(block[2..].as_ptr().cast()));
        let shifted = _mm256_srlv_epi64(twice, _mm256_set_epi64x(4, 4, 0, 0));
        _mm256_and_si256(shifted, _mm256_set1_epi8(15))
    }
}

impl Blocks for Q4 {
    #[inline(always)]
    fn unsigned(a: &Q4, b: &Q4) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(nibbles(a)), nibbles(b)) }
    }

    #[inline(always)]
    fn words(&self) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi8_epi16(_mm256_sub_epi8(nibbles(self), _mm256_set1_epi8(8))) }
    }

    #[inline(always)]
    fn scale(&self) -> u16 {
        u16::from_le_bytes([self[0], self[1]])
    }
}

/// Defines [`attend`] for a type of blocks.
macro_rules! attend_to {
    ($name:ident, $block:ty) => {
        /// Adds what is seen to the sums of the first `heads` heads. Panics where the machine has no VNNI.
        pub fn $name(
            kernels: Kernels,
            state: &mut State,
            queries: &Queries,
            heads: usize,
            sight: Sight<'_, $block>,
            softcap: f32,
        ) {
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
            fn vnni(state: &mut State, queries: &Queries, heads: usize, sight: Sight<'_, $block>, softcap: f32) {
                attend::<$block>(state, queries, heads, sight, softcap);
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
fn attend<B: Blocks>(state: &mut State, queries: &Queries, heads: usize, sight: Sight<'_, B>, softcap: f32) {
    let (keys, values) = (places(&sight.keys, &sight), places(&sight.values, &sight));
    let mut head = 0;
    while head < heads {
        head += match heads - head {
            6 => score::<B, 6>(state, queries, head, &sight, &keys),
            4 | 7.. => score::<B, 4>(state, queries, head, &sight, &keys),
            3 | 5 => score::<B, 3>(state, queries, head, &sight, &keys),
            2 => score::<B, 2>(state, queries, head, &sight, &keys),
            _ => score::<B, 1>(state, queries, head, &sight, &keys),
        };
    }
    soften::<Avx512>(state, heads, &sight.seen, softcap);
    let weights = Weights::new::<B>(state, heads, &sight, &values);
    let mut head = 0;
    while head < heads {
        head += match heads - head {
            6 => weigh::<B, 6>(state, &weights, head, &sight, &values),
            4 | 7.. => weigh::<B, 4>(state, &weights, head, &sight, &values),
            3 | 5 => weigh::<B, 3>(state, &weights, head, &sight, &values),
            2 => weigh::<B, 2>(state, &weights, head, &sight, &values),
            _ => weigh::<B, 1>(state, &weights, head, &sight, &values),
        };
    }
}

/// Where the blocks of each position at work begin; of those not seen, where those of the nearest one do.
type Places = [usize; CELLS];

#[inline(always)]
fn places<B>(rows: &Rows<'_, B>, sight: &Sight<'_, B>) -> Places {
    let mut places = [0; CELLS];
    for (i, place) in places.iter_mut().enumerate() {
        *place = (i.clamp(sight.seen.start, sight.seen.end - 1) - rows.first) * rows.step;
    }
    places
}

/// As in [`super::part`]: scores for `H` heads from number `head` on; gives H.
#[inline(always)]
fn score<B: Blocks, const H: usize>(
    state: &mut State,
    queries: &Queries,
    head: usize,
    sight: &Sight<'_, B>,
    places: &Places,
) -> usize {
    let zero = Avx512::splat(0.0);
    let (seen, data) = (&sight.seen, sight.keys.data);
    let blocks = (sight.keys.vectors * WIDTH / BLOCK).min(BLOCKS);
    let mut own = [(&queries.codes[0], &queries.starts[0]); H];
    for (h, own) in own.iter_mut().enumerate() {
        *own = (&queries.codes[head + h], &queries.starts[head + h]);
    }
    for first in (seen.start / WIDTH * WIDTH..seen.end).step_by(WIDTH) {
        let mut folded = [[zero; 4]; H];
        for quad in 0..4 {
            if head == 0 {
                prefetch(sight.values.data, first % CELLS / 4 + quad, CELLS / 4);
            }
            let at = first + 4 * quad;
            let mut keys = [&data[..0]; 4];
            for (key, place) in keys.iter_mut().zip(&places[at..at + 4]) {
                *key = &data[*place..*place + blocks];
            }
            let [a, b, c, d] = keys.map(<[B]>::as_chunks);
            let pairs = blocks / 2;
            let (a2, b2, c2, d2) = (&a.0[..pairs], &b.0[..pairs], &c.0[..pairs], &d.0[..pairs]);
            let mut sums = [zero; H];
            for i in 0..pairs {
                add_blocks(&mut sums, [&a2[i], &b2[i], &c2[i], &d2[i]], &own, i);
            }
            if let ([a], [b], [c], [d]) = (a.1, b.1, c.1, d.1) {
                // Beyond the last block, queries are zeros.
                add_blocks(&mut sums, [&[*a, *a], &[*b, *b], &[*c, *c], &[*d, *d]], &own, pairs);
            }
            for h in 0..H {
                folded[h][quad] = sums[h];
            }
        }
        for h in 0..H {
            let scores = &mut state.scores[head + h].as_chunks_mut::<WIDTH>().0[first / WIDTH];
            let scale = Avx512::splat(queries.scales[head + h]);
            *scores = Avx512::store(Avx512::mul_add(Avx512::totals(folded[h]), scale, zero));
        }
    }
    H
}

/// Adds the products of pair `i` of the blocks of four keys and of queries: in lanes 4n to 4n + 3 of each sum, of the four
/// keys' n-th quarters.
#[inline(always)]
fn add_blocks<B: Blocks, const H: usize>(
    sums: &mut [__m512; H],
    keys: [&[B; 2]; 4],
    queries: &[(&[i8; WIDEST], &[i32; WIDEST / 4]); H],
    i: usize,
) {
    let mut codes = [zeros(); 4];
    for k in 0..4 {
        codes[k] = B::unsigned(&keys[k][0], &keys[k][1]);
    }
    let scales = scales(keys);
    for h in 0..H {
        let q = load_i8(&queries[h].0.as_chunks().0[i]);
        let start = load_i32(&queries[h].1.as_chunks().0[i]);
        sums[h] = Avx512::mul_add(dots(start, codes, q), scales, sums[h]);
    }
}

#[inline(always)]
fn zeros() -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_setzero_si512() }
}

#[inline(always)]
fn load_i8(x: &[i8; 64]) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[inline(always)]
fn load_i32(x: &[i32; WIDTH]) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// The scales of four keys' pairs of blocks, where [`add_blocks`] wants them.
#[inline(always)]
fn scales<B: Blocks>([a, b, c, d]: [&[B; 2]; 4]) -> __m512 {
    let at = |key: &[B; 2], i: usize| key[i].scale() as i16;
    // SAFETY: see above.
    unsafe {
        let all = _mm_set_epi16(
            at(d, 1),
            at(c, 1),
            at(b, 1),
            at(a, 1),
            at(d, 0),
            at(c, 0),
            at(b, 0),
            at(a, 0),
        );
        _mm512_cvtph_ps(_mm256_permute4x64_epi64::<0x50>(_mm256_castsi128_si256(all)))
    }
}

/// `start` and the products of unsigned and signed bytes, of each quarter of four vectors.
#[inline(always)]
fn dots(start: __m512i, [a, b, c, d]: [__m512i; 4], q: __m512i) -> __m512 {
    // SAFETY: see above.
    unsafe {
        let [a, b] = [_mm512_dpbusd_epi32(start, a, q), _mm512_dpbusd_epi32(start, b, q)];
        let [c, d] = [_mm512_dpbusd_epi32(start, c, q), _mm512_dpbusd_epi32(start, d, q)];
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        _mm512_cvtepi32_ps(all)
    }
}

/// The weights of values times their blocks' scales, in whole numbers.
#[repr(C, align(64))]
struct Weights {
    words: [[[i16; CELLS]; BLOCKS]; HEADS],
    /// What a one of them is worth, by block.
    units: [f32; BLOCKS],
}

impl Weights {
    #[inline(always)]
    fn new<B: Blocks>(state: &State, heads: usize, sight: &Sight<'_, B>, places: &Places) -> Weights {
        let mut weights = Weights {
            words: [[[0; CELLS]; BLOCKS]; HEADS],
            units: [0.0; BLOCKS],
        };
        let blocks = (sight.values.vectors * WIDTH / BLOCK).min(BLOCKS);
        let mut halves = [[0u16; CELLS]; BLOCKS];
        for i in sight.seen.start..sight.seen.end.min(CELLS) {
            let row = &sight.values.data[places[i]..places[i] + blocks];
            for (halves, block) in halves.iter_mut().zip(row) {
                halves[i] = block.scale();
            }
        }
        for block in 0..blocks {
            let mut scales = [Avx512::splat(0.0); CELLS / WIDTH];
            let mut largest = scales[0];
            for (scales, halves) in scales.iter_mut().zip(halves[block].as_chunks().0) {
                *scales = Avx512::widen(halves);
                largest = Avx512::max(magnitude(*scales), largest);
            }
            let largest = Avx512::largest(largest);
            weights.units[block] = largest / 32767.0;
            let inverse = if largest > 0.0 { 32767.0 / largest } else { 0.0 };
            for scales in &mut scales {
                *scales = Avx512::mul_add(*scales, Avx512::splat(inverse), Avx512::splat(0.0));
            }
            for head in 0..heads.min(HEADS) {
                let scores = state.scores[head].as_chunks().0;
                let words = weights.words[head][block].as_chunks_mut().0;
                for i in 0..CELLS / WIDTH {
                    words[i] = rounded(Avx512::load(&scores[i]), scales[i]);
                }
            }
        }
        weights
    }
}

#[inline(always)]
fn magnitude(x: __m512) -> __m512 {
    // SAFETY: see above.
    unsafe { _mm512_abs_ps(x) }
}

/// The products, to whole numbers, with zeros where the scale is.
#[inline(always)]
fn rounded(weights: __m512, scales: __m512) -> [i16; WIDTH] {
    // SAFETY: a register of 16 words, in memory as an array of them; for the rest see above.
    unsafe {
        let seen = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(scales, _mm512_setzero_ps());
        let words = _mm512_maskz_cvtps_epi32(seen, _mm512_mul_ps(weights, scales));
        std::mem::transmute(_mm512_cvtepi32_epi16(words))
    }
}

/// As in [`super::part`]: adds values for `H` heads from number `head` on; gives H.
#[inline(always)]
fn weigh<B: Blocks, const H: usize>(
    state: &mut State,
    weights: &Weights,
    head: usize,
    sight: &Sight<'_, B>,
    places: &Places,
) -> usize {
    let (seen, data) = (&sight.seen, sight.values.data);
    let blocks = (sight.values.vectors * WIDTH / BLOCK).min(BLOCKS);
    let pairs = seen.start / 2..seen.end.min(CELLS).div_ceil(2);
    for block in 0..blocks {
        if head == 0 {
            prefetch(sight.soon, block, blocks);
        }
        let mut own = [weights.words[0][0].as_chunks::<2>().0; H];
        for (h, own) in own.iter_mut().enumerate() {
            *own = &weights.words[head + h][block].as_chunks().0[pairs.clone()];
        }
        let mut sums = [[zeros(); 2]; H];
        for (i, places) in places.as_chunks::<2>().0[pairs.clone()].iter().enumerate() {
            let [a, b] = [&data[places[0] + block], &data[places[1] + block]];
            let halves = interleaved(a.words(), b.words());
            for h in 0..H {
                let weights = splat_pair(own[h][i]);
                for half in 0..2 {
                    sums[h][half] = dot_words(sums[h][half], halves[half], weights);
                }
            }
        }
        for h in 0..H {
            let keep = Avx512::splat(state.keeps[head + h]);
            let unit = Avx512::splat(weights.units[block]);
            let out = &mut state.sums[head + h].as_chunks_mut::<WIDTH>().0[2 * block..2 * block + 2];
            let new = in_order(sums[h]);
            for half in 0..2 {
                let old = Avx512::mul_add(Avx512::load(&out[half]), keep, Avx512::splat(0.0));
                out[half] = Avx512::store(Avx512::mul_add(new[half], unit, old));
            }
        }
    }
    H
}

/// Neighbours side by side: of each eight words, the first four and the others.
#[inline(always)]
fn interleaved(a: __m512i, b: __m512i) -> [__m512i; 2] {
    // SAFETY: see above.
    unsafe { [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)] }
}

#[inline(always)]
fn splat_pair([a, b]: [i16; 2]) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_set1_epi32(i32::from(a as u16) | i32::from(b) << 16) }
}

#[inline(always)]
fn dot_words(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: see above.
    unsafe { _mm512_dpwssd_epi32(sums, a, b) }
}

/// The numbers of sums that [`interleaved`] put apart.
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
