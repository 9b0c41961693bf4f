//! Attention in models whose last layers borrow the caches of earlier ones: they compute queries alone.

use super::{Builder, CacheLayout, Id, Part, builder::Attend, rope::Rope};
use crate::{
    error::LoadError,
    keys::{Heads, Keys},
    weights::{Block, Linear, Weight},
};

/// For each layer, the layer whose cache it reads.
pub struct Owners(Vec<usize>);

impl Owners {
    /// All layers but the last `attention.shared_kv_layers` have caches of their own; those read the last one of their kind,
    /// windowed or not.
    pub fn load(keys: &Keys, windows: &[Option<u32>]) -> Result<Owners, LoadError> {
        let key = "attention.shared_kv_layers";
        let own = windows.len().saturating_sub(keys.number(key)? as usize);
        let owner = |i: usize| match i < own {
            true => Some(i),
            false => (0..own).rev().find(|&earlier| windows[earlier] == windows[i]),
        };
        let owners: Option<Vec<usize>> = (0..windows.len()).map(owner).collect();
        let unshared = "so few that an earlier layer of each kind keeps a cache";
        Ok(Owners(owners.ok_or_else(|| keys.unexpected(key, unshared))?))
    }

    /// The layer whose cache layer i reads.
    pub fn of(&self, i: usize) -> usize {
        self.0[i]
    }

    /// The cache that the layers need.
    pub fn cache(&self, windows: &[Option<u32>], heads: Heads) -> CacheLayout {
        let mut cache = CacheLayout::default();
        for (i, (owner, window)) in self.0.iter().zip(windows).enumerate() {
            match *owner == i {
                true => cache.push(*window, heads.kv_heads, heads.head_dim),
                false => cache.layers.push(None),
            }
        }
        cache
    }
}

/// The weights of a layer's attention, with norms on heads.
pub struct BorrowingAttention {
    heads: Heads,
    q: Linear,
    q_norm: Weight,
    own: Option<KeysAndValues>,
    output: Linear,
}

/// What fills a layer's own cache.
struct KeysAndValues {
    k: Linear,
    v: Linear,
    k_norm: Weight,
}

impl BorrowingAttention {
    /// `attn_q`, `attn_q_norm` and `attn_output`; `attn_k`, `attn_v` and `attn_k_norm` where the layer has a cache of its own.
    pub fn load(block: &Block, d: u32, heads: Heads, owns: bool) -> Result<BorrowingAttention, LoadError> {
        let [rows, kv_rows] = [heads.heads, heads.kv_heads].map(|count| count * heads.head_dim);
        let keys_and_values = || {
            Ok::<_, LoadError>(KeysAndValues {
                k: block.linear("attn_k", d, kv_rows)?,
                v: block.linear("attn_v", d, kv_rows)?,
                k_norm: block.vector("attn_k_norm", heads.head_dim)?,
            })
        };
        Ok(BorrowingAttention {
            heads,
            q: block.linear("attn_q", d, rows)?,
            q_norm: block.vector("attn_q_norm", heads.head_dim)?,
            own: owns.then(keys_and_values).transpose()?,
            output: block.linear("attn_output", rows, d)?,
        })
    }

    /// Keys, normed and rotated, and values, normed without weights, of h `[d, T]` to layer i's own cache, if it has one.
    pub fn store(&self, g: &mut Builder, i: usize, h: Id, rope: &Rope, epsilon: f32) {
        let Some(own) = &self.own else { return };
        let Heads { kv_heads, head_dim, .. } = self.heads;
        let both = g.products(h, &[&own.k, &own.v]);
        let (k, v) = (
            g.heads(both, 0, head_dim, kv_heads),
            g.heads(both, kv_heads * head_dim, head_dim, kv_heads),
        );
        let k = g.norm_rope(k, &own.k_norm, epsilon, rope);
        let v = g.rms_norm(v, None, epsilon);
        g.cache_store(i, Part::Keys, k);
        g.cache_store(i, Part::Values, v);
    }

    /// Wo·attention of h `[d, T]` or `[d, R]`, whose keys and values were stored.
    pub fn build(&self, g: &mut Builder, h: Id, rope: &Rope, epsilon: f32, attend: &Attend) -> Id {
        let Heads { heads, head_dim, .. } = self.heads;
        let q = g.linear(h, &self.q);
        let q = g.heads(q, 0, head_dim, heads);
        let q = g.norm_rope(q, &self.q_norm, epsilon, rope);
        let a = g.attention(q, attend);
        let a = g.flat(a);
        g.linear(a, &self.output)
    }
}
