//! `rope` and `norm_rope`.

use backend_api::operations::{RopeLayout, word};

use super::{
    elementwise::started,
    norm::{inverse_rms, scale_by},
    split,
};
use crate::{
    lanes::kernel,
    program::{Context, Operands},
    view::{PackedF32, Real, View},
};

/// Angles whose sine and cosine are kept at a time.
const ANGLES: usize = 128;

/// What turns the heads of a token.
struct Rotation<'a> {
    freq: &'a [PackedF32],
    layout: RopeLayout,
    magnitude: f32,
}

impl<'a> Rotation<'a> {
    /// From the parameter words; the layout was checked when the graph was compiled.
    fn new(freq: &'a View, layout: u32, magnitude: f32) -> Rotation<'a> {
        Rotation {
            freq: freq.packed_row([0; 3]),
            layout: RopeLayout::from_word(layout).unwrap_or(RopeLayout::Halves),
            magnitude,
        }
    }

    /// Turns all heads of token `t`, which stand in the output. Each angle's sine and cosine are taken once a token.
    fn turn(&self, context: &Context<'_>, output: &View, t: usize, position: i32) {
        let (mut sines, mut cosines) = ([0.0; ANGLES], [0.0; ANGLES]);
        for (k, freq) in self.freq.chunks(ANGLES).enumerate() {
            for ((sine, cosine), freq) in sines.iter_mut().zip(&mut cosines).zip(freq) {
                // The product is rounded to f32 before its range is reduced.
                let (s, c) = f64::from(position as f32 * freq.get()).sin_cos();
                (*sine, *cosine) = (self.magnitude * s as f32, self.magnitude * c as f32);
            }
            let (sines, cosines) = (&sines[..freq.len()], &cosines[..freq.len()]);
            for head in 0..output.dims()[1] {
                // SAFETY: a token's rows are this thread's alone, and no other reference to them lives.
                let y = unsafe { output.row_mut([head, t, 0]) };
                self.turn_part(context, y, k * ANGLES, sines, cosines);
            }
        }
    }

    /// Turns the pairs from number `first` of a head.
    fn turn_part(&self, context: &Context<'_>, y: &mut [f32], first: usize, sines: &[f32], cosines: &[f32]) {
        let n = sines.len();
        match self.layout {
            RopeLayout::Halves => {
                let (u, v) = y.split_at_mut(self.freq.len());
                turn_halves(
                    context.kernels,
                    &mut u[first..first + n],
                    &mut v[first..first + n],
                    sines,
                    cosines,
                );
            }
            RopeLayout::Pairs => {
                let pairs = &mut y.as_chunks_mut().0[first..first + n];
                turn_pairs(context.kernels, pairs, sines, cosines);
            }
        }
    }
}

kernel! {
    fn turn_halves(u: &mut [f32], v: &mut [f32], sines: &[f32], cosines: &[f32]) {
        for (((u, v), s), c) in u.iter_mut().zip(v).zip(sines).zip(cosines) {
            (*u, *v) = (L::fma(*u, *c, -*v * s), L::fma(*v, *c, *u * s));
        }
    }
}

kernel! {
    fn turn_pairs(pairs: &mut [[f32; 2]], sines: &[f32], cosines: &[f32]) {
        for (([u, v], s), c) in pairs.iter_mut().zip(sines).zip(cosines) {
            (*u, *v) = (L::fma(*u, *c, -*v * s), L::fma(*v, *c, *u * s));
        }
    }
}

/// Turns pairs of a head's entries by angles that grow with the position.
pub fn rope(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, positions, output) = (operands.input(0), operands.input(1), operands.output());
    let rotation = Rotation::new(
        operands.input(2),
        operands.word(word::rope::LAYOUT),
        operands.f32(word::rope::MAGNITUDE),
    );
    let [hd, heads, tokens, _] = output.dims();
    split::rows(context, tokens, 2 * hd * heads, |t| {
        for head in 0..heads {
            // SAFETY: rows are disjoint, and what is read of `x` was copied.
            unsafe { started(output, x, [head, t, 0], 0..hd) };
        }
        rotation.turn(context, output, t, positions.i32(t, [0; 3]));
    });
}

/// `rms_norm` of each head, then `rope`.
pub fn norm_rope(context: &Context<'_>, operands: &Operands<'_>) {
    let (x, positions, output) = (operands.input(0), operands.input(2), operands.output());
    let w = operands.input(1).packed_row([0; 3]);
    let epsilon = operands.f32(word::norm_rope::EPSILON);
    let rotation = Rotation::new(
        operands.input(3),
        operands.word(word::norm_rope::LAYOUT),
        operands.f32(word::norm_rope::MAGNITUDE),
    );
    let [hd, heads, tokens, _] = output.dims();
    split::rows(context, tokens, 3 * hd * heads, |t| {
        for head in 0..heads {
            // SAFETY: rows are disjoint, and what is read of `x` was copied.
            let y = unsafe { started(output, x, [head, t, 0], 0..hd) };
            let r = inverse_rms(context.kernels, y, epsilon);
            scale_by(context.kernels, y, r, Some(w));
        }
        rotation.turn(context, output, t, positions.i32(t, [0; 3]));
    });
}
