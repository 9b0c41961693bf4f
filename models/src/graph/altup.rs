//! AltUp (Baykal et al., "Alternating Updates for Efficient Transformers", 2023): a token has several streams, of which
//! layers work on one. The others are predicted from all, and corrected by what the layer made of its own.

use backend_api::operations::UnaryKind;

use super::{Builder, Id, blocks::Ends, streams::Mixing};
use crate::{
    error::LoadError,
    keys::Keys,
    weights::{Block, Weight, Weights},
};

/// Least mean square of a stream that is rescaled.
const FLOOR: f32 = 1e-5;

/// What stands before and after the layers: how one value a token becomes n streams, and they one again.
pub struct Streams {
    /// n: streams a token.
    pub count: u32,
    /// a: the stream that layers work on.
    pub active: u32,
    width: u32,
    /// `[d, d, n − 1]`: into the streams but the first, and out of them.
    proj: Weight,
    unembd_proj: Weight,
}

impl Streams {
    /// `altup.num_inputs` (backends combine up to 8), `altup.active_idx`, `altup_proj` and `altup_unembd_proj` of a model
    /// with `d` values a token.
    pub fn load(keys: &Keys, weights: &Weights, d: u32) -> Result<Streams, LoadError> {
        let (num_inputs, active_idx) = ("altup.num_inputs", "altup.active_idx");
        let (count, active) = (keys.size(num_inputs)?, keys.number(active_idx)?);
        if !(2..=8).contains(&count) {
            return Err(keys.unexpected(num_inputs, "2 to 8 streams").into());
        }
        if active >= count {
            return Err(keys.unexpected(active_idx, "a stream below altup.num_inputs").into());
        }
        let stack = |name: &str| weights.matrix(name, &[d, d, count - 1]);
        Ok(Streams {
            count,
            active,
            width: d,
            proj: stack("altup_proj.weight")?,
            unembd_proj: stack("altup_unembd_proj.weight")?,
        })
    }

    /// `[d, n, T]`: stream 0 is the embedding·√d, stream k altup_proj_k of it, rescaled to its size.
    pub fn begin(&self, g: &mut Builder, ends: &Ends) -> Id {
        let h = g.token_streams(self.width, self.count);
        let x = g.stream(h, 0);
        g.embed_into(&ends.embedding, (self.width as f32).sqrt(), x);
        for k in 1..self.count {
            let y = g.stream(h, k);
            g.stacked_product_into(x, &self.proj, k - 1, y);
        }
        let (first, others) = (g.streams(h, 0, 1), g.streams(h, 1, self.count - 1));
        g.rms_match(others, first, FLOOR);
        h
    }

    /// `[d, R]`: the mean of stream 0 and the others through altup_unembd_proj, rescaled to its size.
    pub fn end(&self, g: &mut Builder, h: Id) -> Id {
        let first = g.streams(h, 0, 1);
        let x = g.stream(h, 1);
        let others = g.new_streams(x, self.count - 1);
        for k in 1..self.count {
            let (x, y) = (g.stream(h, k), g.stream(others, k - 1));
            g.stacked_product_into(x, &self.unembd_proj, k - 1, y);
        }
        g.rms_match(others, first, FLOOR);
        let sum = g.new_streams(x, 1);
        let sum = g.combine(others, None, first, 1.0, sum);
        let sum = g.stream(sum, 0);
        g.unary(sum, UnaryKind::Identity, 1.0, 1.0 / self.count as f32)
    }
}

/// A layer's router, and the coefficients by which streams are predicted and corrected.
pub struct AltUp {
    count: u32,
    active: u32,
    router_norm: Weight,
    /// `[d, n]`.
    router: Weight,
    /// `[n, n·n]` and `[n, n]`.
    predict_coef: Weight,
    correct_coef: Weight,
}

impl AltUp {
    /// `altup_router_norm`, `altup_router`, `altup_predict_coef` and `altup_correct_coef`.
    pub fn load(block: &Block, streams: &Streams) -> Result<AltUp, LoadError> {
        let (d, n) = (streams.width, streams.count);
        Ok(AltUp {
            count: n,
            active: streams.active,
            router_norm: block.vector("altup_router_norm", d)?,
            router: block.matrix("altup_router", d, n)?,
            predict_coef: block.matrix("altup_predict_coef", n, n * n)?,
            correct_coef: block.matrix("altup_correct_coef", n, n)?,
        })
    }

    /// pred_j = h_j + Σ_i C_ij·h_i.
    pub fn predict(&self, g: &mut Builder, h: Id, epsilon: f32) -> Id {
        let active = g.stream(h, self.active);
        let c = self.coefficients(g, active, &self.predict_coef, epsilon, self.count);
        let pred = g.another(h);
        g.combine(h, Some(c), h, 0.0, pred)
    }

    /// new_j = pred_j + (result − pred_a)·(C_j + 1), in the predictions' place.
    pub fn correct(&self, g: &mut Builder, pred: Id, result: Id, epsilon: f32) -> Id {
        let active = g.stream(pred, self.active);
        let c = self.coefficients(g, result, &self.correct_coef, epsilon, 1);
        let innovation = g.difference(result, active);
        let innovation = g.as_one_row(innovation);
        g.combine(innovation, Some(c), pred, 1.0, pred)
    }

    /// coef·tanh(router·(rms(x)·router_norm / d)), as `[inputs, outputs, T]`.
    fn coefficients(&self, g: &mut Builder, x: Id, coef: &Weight, epsilon: f32, inputs: u32) -> Id {
        let mixing = Mixing {
            norm: &self.router_norm,
            router: &self.router,
            coefficients: coef,
        };
        let d = self.router.dims[0] as f32;
        g.mix_coefficients(x, &mixing, epsilon, 1.0 / d, inputs)
    }
}
