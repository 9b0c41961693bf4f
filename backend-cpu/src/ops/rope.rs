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
            wave(
                context.kernels,
                &mut sines,
                &mut cosines,
                freq,
                position as f32,
                self.magnitude,
            );
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
    /// Sines and cosines of position·freq, times the magnitude. The product is rounded to f32 before its range is reduced.
    fn wave(sines: &mut [f32], cosines: &mut [f32], freq: &[PackedF32], position: f32, magnitude: f32) {
        for ((sine, cosine), freq) in sines.iter_mut().zip(cosines).zip(freq) {
            let (s, c) = sin_cos(f64::from(position * freq.get()));
            (*sine, *cosine) = (magnitude * s, magnitude * c);
        }
    }
}

/// sin x and cos x within 1.2e-7 for |x| up to 2^24, in steps that vectorize: x less a multiple of π/2, in f64, goes into
/// Taylor's polynomials.
#[inline(always)]
fn sin_cos(x: f64) -> (f32, f32) {
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUND;
    let quarter = shifted.to_bits();
    // π/2 in two parts: products of the first with whole numbers below 2^20 are exact.
    let turns = shifted - ROUND;
    let r = (x - turns * 1.570_796_326_734_125_6) - turns * 6.077_100_506_506_192e-11;
    let z = r * r;
    let sine = r * (1.0 + z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0)))));
    let cosine =
        1.0 + z * (-0.5 + z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0 - z * (1.0 / 3_628_800.0)))));
    let (s, c) = if quarter & 1 == 0 {
        (sine, cosine)
    } else {
        (cosine, sine)
    };
    let s = if quarter & 2 == 0 { s } else { -s };
    let c = if (quarter + 1) & 2 == 0 { c } else { -c };
    (s as f32, c as f32)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_and_cosines_are_exact_to_a_few_units_as_far_as_positions_go() {
        for i in 0..400_000u32 {
            let x = match i % 4 {
                0 => i as f32 * 1e-4,
                1 => -(i as f32) * 0.37,
                2 => i as f32 * 41.943,
                _ => f32::from_bits(i.wrapping_mul(10_007) % (24 << 23) + (127 << 23)),
            };
            let (s, c) = sin_cos(x.into());
            let (sine, cosine) = f64::from(x).sin_cos();
            assert!((f64::from(s) - sine).abs() < 1.2e-7, "sin {x}");
            assert!((f64::from(c) - cosine).abs() < 1.2e-7, "cos {x}");
        }
    }
}
