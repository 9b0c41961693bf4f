//! The functions that combine gate and up.

use backend_api::operations::{Gate, word::gated_product as word};

use crate::program::Operands;

/// `gated` with its parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gating {
    kind: Gate,
    alpha: f32,
    limit: f32,
}

impl Gating {
    /// The parameters of a composite; none where the function is unknown.
    pub fn of(operands: &Operands<'_>) -> Option<Gating> {
        Some(Gating {
            kind: Gate::from_word(operands.word(word::KIND))?,
            alpha: operands.f32(word::ALPHA),
            limit: operands.f32(word::LIMIT),
        })
    }

    /// Combines each gate with its up, in the gate's place.
    pub fn apply(&self, gates: &mut [f32], ups: &[f32]) {
        let pairs = gates.iter_mut().zip(ups);
        match self.kind {
            Gate::Silu => pairs.for_each(|(g, u)| *g = sigmoid_times(*g, 1.0) * u),
            Gate::GeluTanh => pairs.for_each(|(g, u)| *g = gelu(*g) * u),
            Gate::SwigluOai => pairs.for_each(|(g, u)| {
                let g_cut = g.min(self.limit);
                *g = sigmoid_times(g_cut, self.alpha) * (u.clamp(-self.limit.abs(), self.limit.abs()) + 1.0);
            }),
        }
    }
}

/// g / (1 + e^(−α·g)).
fn sigmoid_times(g: f32, alpha: f32) -> f32 {
    g / (1.0 + (-alpha * g).exp())
}

/// ½g(1 + tanh(√(2/π)(g + 0.044715g³))).
fn gelu(g: f32) -> f32 {
    const ROOT: f32 = 0.797_884_6;
    0.5 * g * (1.0 + (ROOT * (g + 0.044715 * g * g * g)).tanh())
}
