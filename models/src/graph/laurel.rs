//! Laurel (Menghani et al., "LAuReL: Learned Augmented Residual Layer", 2024): a residual with a low-rank part.

use backend_api::operations::Precision;

use super::{Builder, Id};
use crate::{
    error::LoadError,
    weights::{Block, Weight},
};

/// Two matrices of low rank and a norm.
pub struct Laurel {
    /// `[d, rank]`.
    left: Weight,
    /// `[rank, d]`.
    right: Weight,
    post_norm: Weight,
}

impl Laurel {
    /// `laurel_l`, whose tensor alone tells the rank, `laurel_r` and `laurel_post_norm`.
    pub fn load(block: &Block, d: u32) -> Result<Laurel, LoadError> {
        let rank = block.rows("laurel_l")?;
        let same = || Some(format!("as many values as {} has rows", block.name("laurel_l.weight")));
        let right = block.matrix("laurel_r", rank, d);
        Ok(Laurel {
            left: block.matrix("laurel_l", d, rank)?,
            right: right.map_err(|error| error.because(same()))?,
            post_norm: block.vector("laurel_post_norm", d)?,
        })
    }

    /// h + rms(right·left·h)·post_norm.
    pub fn build(&self, g: &mut Builder, h: Id, epsilon: f32) -> Id {
        let low = g.product(h, &self.left, Precision::OfType);
        let low = g.product(low, &self.right, Precision::OfType);
        g.norm_add_onto(low, &self.post_norm, h, epsilon)
    }
}
