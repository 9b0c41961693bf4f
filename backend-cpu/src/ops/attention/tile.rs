//! The products of a tile: many queries that pass over the same positions.
//!
//! Queries stand in the lanes. Their values are turned once a tile, so that keys and values go in as they lie in the
//! cache, a number at a time for all lanes: nothing is added up across lanes. What is multiplied stands in *words*: f32
//! numbers, or, where the type of the pages allows, pairs of bf16 neighbours along the sum, of which a machine that has
//! an instruction for them does twice as many.

use super::{WIDEST, softmax::LOWEST};
use crate::{
    kernel_set::Kernels,
    lanes::{Lanes, WIDTH, exp, kernel, tanh},
};

/// Queries of a tile at most.
pub const QUERIES: usize = 64;
/// Positions that a tile passes over at a time.
pub const CELLS: usize = 64;
/// Words from one key or value to the next: more than they are wide, so that they do not share places of the cache.
const STEP: usize = WIDEST + 16;

/// What numbers are multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Numbers in f32.
    Single,
    /// Pairs of numbers rounded to bf16.
    Pairs,
}

impl Words {
    /// The fastest that the machine has where rounding is allowed.
    pub fn best(kernels: Kernels, rounds: bool) -> Words {
        if rounds && has_pairs(kernels) {
            Words::Pairs
        } else {
            Words::Single
        }
    }

    /// Numbers in a word.
    pub fn numbers(self) -> usize {
        match self {
            Words::Single => 1,
            Words::Pairs => 2,
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_pairs(kernels: Kernels) -> bool {
    kernels.vnni() && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_pairs(_: Kernels) -> bool {
    false
}

/// A tile at work: about 300 KB, of which small heads use a part.
#[repr(C, align(64))]
pub struct Tile {
    words: Words,
    /// Vectors of queries.
    vectors: usize,
    hd: usize,
    hd_v: usize,
    /// Words of the queries, turned.
    q: [[u32; QUERIES]; WIDEST],
    /// Words along a key.
    keys: [[u32; STEP]; CELLS],
    /// Words across values: of a position, or of two neighbours.
    values: [[u32; STEP]; CELLS],
    scores: [[f32; QUERIES]; CELLS],
    weights: [[u32; QUERIES]; CELLS],
    /// The sums of weighted values, turned.
    sums: [[f32; QUERIES]; WIDEST],
    /// The largest scores, the sums of weights, and what older sums keep.
    tops: [f32; QUERIES],
    totals: [f32; QUERIES],
    keeps: [f32; QUERIES],
    /// The positions that each query sees of those at work.
    first: [f32; QUERIES],
    end: [f32; QUERIES],
}

impl Tile {
    /// Room for tiles of heads of `hd` and `hd_v` values.
    pub fn new(words: Words, hd: usize, hd_v: usize) -> Tile {
        Tile {
            words,
            vectors: 0,
            hd,
            hd_v,
            q: [[0; QUERIES]; WIDEST],
            keys: [[0; STEP]; CELLS],
            values: [[0; STEP]; CELLS],
            scores: [[0.0; QUERIES]; CELLS],
            weights: [[0; QUERIES]; CELLS],
            sums: [[0.0; QUERIES]; WIDEST],
            tops: [0.0; QUERIES],
            totals: [0.0; QUERIES],
            keeps: [0.0; QUERIES],
            first: [0.0; QUERIES],
            end: [0.0; QUERIES],
        }
    }

    /// Begins with `queries` queries that have seen nothing.
    pub fn begin(&mut self, queries: usize) {
        self.vectors = queries.div_ceil(WIDTH);
        self.sums[..self.hd_v].fill([0.0; QUERIES]);
        self.tops = [LOWEST; QUERIES];
        self.totals = [0.0; QUERIES];
        self.end = [0.0; QUERIES];
    }

    /// Sets query `i`, times `factor`.
    pub fn set_query(&mut self, i: usize, q: &[f32], factor: f32) {
        let per = self.words.numbers();
        for (word, q) in self.q.iter_mut().zip(q.chunks(per)) {
            word[i] = match q {
                [a, b] => pair(a * factor, b * factor),
                [a] if per == 2 => pair(a * factor, 0.0),
                _ => (q[0] * factor).to_bits(),
            };
        }
    }

    /// Sets which of the positions at work query `i` sees.
    pub fn set_seen(&mut self, i: usize, first: usize, end: usize) {
        (self.first[i], self.end[i]) = (first as f32, end as f32);
    }

    /// Sets the key of position `i` of those at work.
    pub fn set_key(&mut self, kernels: Kernels, i: usize, key: &[f32]) {
        match self.words {
            Words::Single => copy_words(kernels, &mut self.keys[i], key),
            Words::Pairs => pair_neighbours(kernels, &mut self.keys[i], key),
        }
    }

    /// Sets the value of position `i` of those at work; where words are pairs, those of even ones before their odd
    /// neighbours.
    pub fn set_value(&mut self, kernels: Kernels, i: usize, value: &[f32]) {
        match self.words {
            Words::Single => copy_words(kernels, &mut self.values[i], value),
            Words::Pairs if i.is_multiple_of(2) => pair_first(kernels, &mut self.values[i / 2], value),
            Words::Pairs => pair_second(kernels, &mut self.values[i / 2], value),
        }
    }

    /// Adds the first `cells` positions at work to all sums; `masked` unless all queries see them all.
    pub fn add(&mut self, kernels: Kernels, cells: usize, masked: bool, softcap: f32) {
        match self.words {
            Words::Single => add_singles(kernels, self, cells, masked, softcap),
            Words::Pairs => add_pairs(kernels, self, cells, masked, softcap),
        }
    }

    /// Writes the sum of query `i` and gives its largest score and sum of weights.
    pub fn sum(&self, i: usize, sum: &mut [f32]) -> [f32; 2] {
        sum.iter_mut().zip(&self.sums).for_each(|(y, sums)| *y = sums[i]);
        [self.tops[i], self.totals[i]]
    }
}

/// The bits of a number rounded to bf16, to nearest even, in the upper half.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000
}

#[inline(always)]
fn pair(a: f32, b: f32) -> u32 {
    rounded(a) >> 16 | rounded(b)
}

kernel! {
    fn copy_words(words: &mut [u32], x: &[f32]) {
        words.iter_mut().zip(x).for_each(|(word, x)| *word = x.to_bits());
    }
}

kernel! {
    fn pair_neighbours(words: &mut [u32], x: &[f32]) {
        let (pairs, rest) = x.as_chunks::<2>();
        words.iter_mut().zip(pairs).for_each(|(word, [a, b])| *word = pair(*a, *b));
        if let [last] = rest {
            words[pairs.len()] = pair(*last, 0.0);
        }
    }
}

kernel! {
    fn pair_first(words: &mut [u32], x: &[f32]) {
        words.iter_mut().zip(x).for_each(|(word, x)| *word = pair(*x, 0.0));
    }
}

kernel! {
    fn pair_second(words: &mut [u32], x: &[f32]) {
        words.iter_mut().zip(x).for_each(|(word, x)| *word |= rounded(*x));
    }
}

/// How words are multiplied.
trait Multiply {
    type Lanes: Lanes;
    type Vector: Copy;
    /// Numbers in a word.
    const NUMBERS: usize;
    fn splat(word: u32) -> Self::Vector;
    fn load(words: &[u32; WIDTH]) -> Self::Vector;
    fn mul_add(a: Self::Vector, b: Self::Vector, c: V<Self>) -> V<Self>;
}

type V<M> = <<M as Multiply>::Lanes as Lanes>::V;

struct Singles<L>(L);

impl<L: Lanes> Multiply for Singles<L> {
    type Lanes = L;
    type Vector = L::V;
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn splat(word: u32) -> L::V {
        L::splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn load(words: &[u32; WIDTH]) -> L::V {
        L::load(&words.map(f32::from_bits))
    }

    #[inline(always)]
    fn mul_add(a: L::V, b: L::V, c: L::V) -> L::V {
        L::mul_add(a, b, c)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Multiply, Tile, WIDTH, add};
    use crate::lanes::Avx512;

    pub struct Pairs;

    // SAFETY, of all blocks in here: these run only where `has_pairs` was seen, and arrays have 16 entries.

    impl Multiply for Pairs {
        type Lanes = Avx512;
        type Vector = __m512bh;
        const NUMBERS: usize = 2;

        #[inline(always)]
        fn splat(word: u32) -> __m512bh {
            // SAFETY: see above; all bits are pairs.
            unsafe { std::mem::transmute(_mm512_set1_epi32(word as i32)) }
        }

        #[inline(always)]
        fn load(words: &[u32; WIDTH]) -> __m512bh {
            // SAFETY: see above; all bits are pairs.
            unsafe { std::mem::transmute(_mm512_loadu_si512(words.as_ptr().cast())) }
        }

        #[inline(always)]
        fn mul_add(a: __m512bh, b: __m512bh, c: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_dpbf16_ps(c, a, b) }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub fn add_pairs(tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
        add::<Pairs>(tile, cells, masked, softcap);
    }
}

#[cfg(target_arch = "x86_64")]
fn add_pairs(kernels: Kernels, tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
    assert!(has_pairs(kernels));
    // SAFETY: the machine has them.
    unsafe { x86::add_pairs(tile, cells, masked, softcap) }
}

#[cfg(not(target_arch = "x86_64"))]
fn add_pairs(kernels: Kernels, tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
    add_singles(kernels, tile, cells, masked, softcap);
}

kernel! {
    fn add_singles(tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
        add::<Singles<L>>(tile, cells, masked, softcap);
    }
}

#[inline(always)]
fn add<M: Multiply>(tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
    let (vectors, hd, hd_v) = (tile.vectors, tile.hd, tile.hd_v);
    let mut vector = 0;
    while vector < vectors {
        let (keys, q) = (&tile.keys, &tile.q[..hd.div_ceil(M::NUMBERS)]);
        vector += products::<M, false>(keys, q, &mut tile.scores, None, cells, vectors, vector);
    }
    soften::<M::Lanes>(tile, cells, masked, softcap);
    weigh::<M>(tile, cells);
    let mut vector = 0;
    while vector < vectors {
        let weights = &tile.weights[..cells.div_ceil(M::NUMBERS)];
        let (values, keeps) = (&tile.values, Some(&tile.keeps));
        vector += products::<M, true>(values, weights, &mut tile.sums, keeps, hd_v, vectors, vector);
    }
}

/// Products of `rows` rows of `a` and as many vectors of `b`'s lanes, from number `vector` on, as go at a time; gives how
/// many did.
#[inline(always)]
fn products<M: Multiply, const TURNED: bool>(
    a: &[[u32; STEP]; CELLS],
    b: &[[u32; QUERIES]],
    out: &mut [[f32; QUERIES]],
    keeps: Option<&[f32; QUERIES]>,
    rows: usize,
    vectors: usize,
    vector: usize,
) -> usize {
    match vectors - vector {
        4.. if M::Lanes::ROOMY => {
            rows_of::<M, 4, 4, TURNED>(a, b, out, keeps, rows, vector);
            4
        }
        2.. if M::Lanes::ROOMY => {
            rows_of::<M, 8, 2, TURNED>(a, b, out, keeps, rows, vector);
            2
        }
        _ if M::Lanes::ROOMY => {
            rows_of::<M, 8, 1, TURNED>(a, b, out, keeps, rows, vector);
            1
        }
        _ => {
            rows_of::<M, 4, 1, TURNED>(a, b, out, keeps, rows, vector);
            1
        }
    }
}

/// The same, `R` rows and `C` vectors at a time, whose sums are in registers. Row i of `a` is its i-th entry or, where it
/// is `TURNED`, the i-th of each entry. The sums are new, or are added to what `keeps` keeps of the old ones.
#[inline(always)]
fn rows_of<M: Multiply, const R: usize, const C: usize, const TURNED: bool>(
    a: &[[u32; STEP]; CELLS],
    b: &[[u32; QUERIES]],
    out: &mut [[f32; QUERIES]],
    keeps: Option<&[f32; QUERIES]>,
    rows: usize,
    vector: usize,
) {
    let zero = M::Lanes::splat(0.0);
    for first in (0..rows).step_by(R) {
        let out = &mut out[first..first + R];
        let mut sums = [[zero; C]; R];
        if let Some(keeps) = keeps {
            let keeps = &keeps.as_chunks().0[vector..vector + C];
            for (sums, out) in sums.iter_mut().zip(&*out) {
                let out = &out.as_chunks().0[vector..vector + C];
                for c in 0..C {
                    sums[c] = M::Lanes::mul_add(M::Lanes::load(&out[c]), M::Lanes::load(&keeps[c]), zero);
                }
            }
        }
        for (k, b) in b.iter().enumerate() {
            let b = &b.as_chunks().0[vector..vector + C];
            for r in 0..R {
                let a = M::splat(if TURNED { a[k][first + r] } else { a[first + r][k] });
                for c in 0..C {
                    sums[r][c] = M::mul_add(a, M::load(&b[c]), sums[r][c]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            let out = &mut out.as_chunks_mut().0[vector..vector + C];
            for c in 0..C {
                out[c] = M::Lanes::store(sums[c]);
            }
        }
    }
}

/// Makes weights of scores, and notes what older sums keep.
#[inline(always)]
fn soften<L: Lanes>(tile: &mut Tile, cells: usize, masked: bool, softcap: f32) {
    let lanes = tile.vectors * WIDTH;
    let scores = &mut tile.scores[..cells];
    if softcap > 0.0 {
        for z in scores.iter_mut().flat_map(|row| &mut row[..lanes]) {
            *z = softcap * tanh::<L>(*z);
        }
    }
    let (first, end) = (&tile.first[..lanes], &tile.end[..lanes]);
    if masked {
        for (i, row) in scores.iter_mut().enumerate() {
            let i = i as f32;
            for ((z, first), end) in row.iter_mut().zip(first).zip(end) {
                *z = if *first <= i && i < *end { *z } else { f32::NEG_INFINITY };
            }
        }
    }
    let mut tops = tile.tops;
    for row in scores.iter() {
        for (top, z) in tops[..lanes].iter_mut().zip(row) {
            *top = if *z > *top { *z } else { *top };
        }
    }
    for ((keep, old), top) in tile.keeps[..lanes].iter_mut().zip(&tile.tops).zip(&tops) {
        *keep = exp::<L>(old - top);
    }
    for (total, keep) in tile.totals[..lanes].iter_mut().zip(&tile.keeps) {
        *total *= keep;
    }
    tile.tops = tops;
    for row in scores {
        for ((z, top), total) in row[..lanes].iter_mut().zip(&tops).zip(&mut tile.totals) {
            *z = exp::<L>(*z - top);
            *total += *z;
        }
    }
}

/// Makes words of weights.
#[inline(always)]
fn weigh<M: Multiply>(tile: &mut Tile, cells: usize) {
    let lanes = tile.vectors * WIDTH;
    let scores = &mut tile.scores;
    if M::NUMBERS == 1 {
        for (words, row) in tile.weights.iter_mut().zip(&scores[..cells]) {
            words[..lanes]
                .iter_mut()
                .zip(row)
                .for_each(|(word, z)| *word = z.to_bits());
        }
        return;
    }
    if cells % 2 == 1 {
        scores[cells] = [0.0; QUERIES];
    }
    let pairs = &scores.as_chunks::<2>().0[..cells.div_ceil(2)];
    for (words, [a, b]) in tile.weights.iter_mut().zip(pairs) {
        for ((word, a), b) in words[..lanes].iter_mut().zip(a).zip(b) {
            *word = pair(*a, *b);
        }
    }
}
