//! Inputs of each layer's own: embeddings that every token has for every layer, mixed with a projection of its embedding.

use backend_api::operations::{Gate, Precision};

use super::{Builder, Id};
use crate::{
    error::LoadError,
    keys::Keys,
    weights::{Block, Weight, Weights},
};

/// What makes the inputs of all L layers, P values each.
pub struct OwnInputs {
    /// P.
    pub width: u32,
    layers: u32,
    /// `[P·L, V′]`; tokens from V′ on take those of token 0. A look-up by rows.
    token_embd: Weight,
    /// `[d, P·L]`.
    model_proj: Weight,
    proj_norm: Weight,
}

impl OwnInputs {
    /// `embedding_length_per_layer_input`, `per_layer_token_embd`, whose tensor alone tells V′, `per_layer_model_proj` and
    /// `per_layer_proj_norm` of a model with `d` values a token.
    pub fn load(keys: &Keys, weights: &Weights, d: u32) -> Result<OwnInputs, LoadError> {
        let key = "embedding_length_per_layer_input";
        let (width, layers) = (keys.size(key)?, keys.layers()?);
        let all = keys.product(key, width, layers)?;
        let tokens = weights.rows("per_layer_token_embd.weight")?;
        Ok(OwnInputs {
            width,
            layers,
            token_embd: weights.matrix("per_layer_token_embd.weight", &[all, tokens])?,
            model_proj: weights.matrix("per_layer_model_proj.weight", &[d, all])?,
            proj_norm: weights.vector("per_layer_proj_norm.weight", &[width])?,
        })
    }

    /// (rms(model_proj·x / √d)·proj_norm + token_embd(tokens)·√P) / √2 of x `[d, T]`: `[P, L, T]`.
    pub fn build(&self, g: &mut Builder, x: Id, epsilon: f32) -> Id {
        let (d, p) = (self.model_proj.dims[0] as f32, self.width);
        let projected = g.product(x, &self.model_proj, Precision::OfType);
        let projected = g.heads(projected, 0, p, self.layers);
        // 1/√d before the norm is d times its ε
        let normed = g.rms_norm(projected, Some(&self.proj_norm), epsilon * d);
        let embedded = g.embed(&self.token_embd, (p as f32).sqrt());
        let embedded = g.heads(embedded, 0, p, self.layers);
        g.add(normed, embedded, 0.5f32.sqrt(), 1.0)
    }
}

/// How a layer takes its own input: gated by the active stream.
pub struct OwnInput {
    correct_scale: Weight,
    /// `[d, P]`.
    gate: Weight,
    /// `[P, d]`.
    proj: Weight,
    post_norm: Weight,
}

impl OwnInput {
    /// `altup_correct_scale`, `inp_gate`, `proj` and `post_norm`, for `p` values of input.
    pub fn load(block: &Block, d: u32, p: u32) -> Result<OwnInput, LoadError> {
        Ok(OwnInput {
            correct_scale: block.vector("altup_correct_scale", d)?,
            gate: block.matrix("inp_gate", d, p)?,
            proj: block.matrix("proj", p, d)?,
            post_norm: block.vector("post_norm", d)?,
        })
    }

    /// Adds rms(proj·(gelu(gate·(active ⊙ correct_scale)) ⊙ own))·post_norm to each of `streams` `[d, …, T]`.
    pub fn add(&self, g: &mut Builder, active: Id, own: Id, streams: Id, epsilon: f32) {
        let y = g.scaled(active, &self.correct_scale);
        let y = g.product(y, &self.gate, Precision::OfType);
        let y = g.gated(y, own, Gate::GeluTanh);
        let y = g.product(y, &self.proj, Precision::OfType);
        let y = g.as_one_row(y);
        g.norm_add(y, &self.post_norm, streams, epsilon);
    }
}
