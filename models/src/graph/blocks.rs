//! What most architectures share: attention with its projections, and the gated feed-forward network.

use backend_api::operations::Gate;

use super::{
    Part,
    builder::{Attend, Builder, Id},
    rope::Rope,
};
use crate::{
    error::LoadError,
    keys::{Heads, Keys},
    names::{Names, Rows},
    weights::{Block, Linear, Weight, Weights},
};

/// What stands before and after the layers: the token embedding, the last norm and the output projection.
pub struct Ends {
    /// `[d, V]`.
    pub embedding: Weight,
    output_norm: Weight,
    /// `[d, V]`: the embedding itself where the file has no `output.weight`.
    output: Weight,
    /// ε of every norm.
    pub epsilon: f32,
}

impl Ends {
    /// `token_embd`, whose tensor alone tells V, `output_norm` and `output` of a model with `d` values a token. `epsilon`, if
    /// there is one, is that of files that do not say.
    pub fn load(keys: &Keys, weights: &Weights, d: u32, epsilon: Option<f32>) -> Result<Ends, LoadError> {
        let vocabulary = weights.rows("token_embd.weight")?;
        let embedding = weights.matrix("token_embd.weight", &[d, vocabulary])?;
        let rows = || Some("as many rows as token_embd.weight has".into());
        let output = match weights.has("output.weight") {
            true => weights
                .matrix("output.weight", &[d, vocabulary])
                .map_err(|e| e.because(rows()))?,
            false => embedding,
        };
        Ok(Ends {
            embedding,
            output_norm: weights.vector("output_norm.weight", &[d])?,
            output,
            epsilon: keys.epsilon("attention.layer_norm_rms_epsilon", epsilon)?,
        })
    }

    /// V: how many tokens there are.
    pub fn vocabulary(&self) -> u32 {
        self.output.dims[1]
    }

    /// The logits of x `[d, R]`, softcapped where c = `softcap` is above 0. The last call of a model.
    pub fn logits(&self, g: &mut Builder, x: Id, softcap: f32) {
        g.layer(None);
        let h = g.rms_norm(x, Some(&self.output_norm), self.epsilon);
        g.logits(h, &self.output, softcap);
    }
}

/// The weights of a layer's attention.
pub struct Attention {
    /// How it is divided.
    pub heads: Heads,
    q: Linear,
    k: Linear,
    v: Linear,
    /// The output projection `[hd·H, d]`.
    pub output: Linear,
    norms: Option<(Weight, Weight)>,
}

impl Attention {
    /// `attn_q`, `attn_k` and `attn_v`, or `attn_qkv` with the rows of all three, and `attn_output` or `attn_out`, of a
    /// model with `d` values a token, and the norms of queries and keys where `normed`.
    pub fn load(block: &Block, d: u32, heads: Heads, normed: bool) -> Result<Attention, LoadError> {
        let Heads {
            heads: count,
            kv_heads,
            head_dim,
        } = heads;
        let sizes = [count, kv_heads, kv_heads].map(|heads| heads * head_dim);
        let [of_q, of_k, of_v] = Rows::in_order(sizes);
        let input = |name: &str, of, m| block.linear(Names::new(name).or_rows("attn_qkv", of), d, m);
        Ok(Attention {
            heads,
            q: input("attn_q", of_q, sizes[0])?,
            k: input("attn_k", of_k, sizes[1])?,
            v: input("attn_v", of_v, sizes[2])?,
            output: block.linear(Names::new("attn_output").or("attn_out"), sizes[0], d)?,
            norms: if normed {
                Some((
                    block.vector("attn_q_norm", head_dim)?,
                    block.vector("attn_k_norm", head_dim)?,
                ))
            } else {
                None
            },
        })
    }

    /// From normed activations h `[d, T]` to the weighted values `[hd·H, T]`, before the output projection; `[hd·H, R]`
    /// where only the `wanted` columns go on.
    pub fn build(&self, g: &mut Builder, h: Id, rope: &Rope, epsilon: f32, attend: &Attend, wanted: bool) -> Id {
        let (q, k, v) = self.project(g, h, wanted);
        let (q, k) = self.rotate(g, q, k, rope, epsilon, wanted);
        g.cache_store(attend.layer, Part::Keys, k);
        g.cache_store(attend.layer, Part::Values, v);
        let a = g.attention(q, attend);
        g.flat(a)
    }

    /// Queries, keys and values as heads. All three lie side by side, unless the queries are of the wanted columns alone.
    fn project(&self, g: &mut Builder, h: Id, wanted: bool) -> (Id, Id, Id) {
        let Heads {
            heads,
            kv_heads,
            head_dim: hd,
        } = self.heads;
        let (q, kv, first) = if wanted {
            let columns = g.wanted(h);
            (g.linear(columns, &self.q), g.products(h, &[&self.k, &self.v]), 0)
        } else {
            let all = g.products(h, &[&self.q, &self.k, &self.v]);
            (all, all, heads * hd)
        };
        let q = g.heads(q, 0, hd, heads);
        let k = g.heads(kv, first, hd, kv_heads);
        let v = g.heads(kv, first + kv_heads * hd, hd, kv_heads);
        (q, k, v)
    }

    fn rotate(&self, g: &mut Builder, q: Id, k: Id, rope: &Rope, epsilon: f32, wanted: bool) -> (Id, Id) {
        match &self.norms {
            Some((q_norm, k_norm)) => (
                g.norm_rope(q, q_norm, epsilon, rope),
                g.norm_rope(k, k_norm, epsilon, rope),
            ),
            None if wanted => (g.rope(q, rope), g.rope(k, rope)),
            None => {
                // queries and keys are neighbours: one rotation serves both
                let both = g.more_heads(q, self.heads.heads + self.heads.kv_heads);
                g.rope(both, rope);
                (q, k)
            }
        }
    }
}

/// The weights of a gated feed-forward network.
pub struct FeedForward {
    gate: Linear,
    up: Linear,
    /// `[f, d]`.
    pub down: Linear,
}

impl FeedForward {
    /// `ffn_gate`, `ffn_up` and `ffn_down` with `f` hidden values; or both of the first in `ffn_up`, the gate's rows before
    /// the others.
    pub fn load(block: &Block, d: u32, f: u32) -> Result<FeedForward, LoadError> {
        let [of_gate, of_up] = Rows::in_order([f; 2]);
        let hidden = |name: &str, of| block.linear(Names::new(name).or_rows("ffn_up", of), d, f);
        Ok(FeedForward {
            gate: hidden("ffn_gate", of_gate)?,
            up: hidden("ffn_up", of_up)?,
            down: block.linear("ffn_down", f, d)?,
        })
    }

    /// gate(Wg·h) ⊙ (Wu·h): `[f, T]`, before the down projection.
    pub fn build(&self, g: &mut Builder, h: Id, kind: Gate) -> Id {
        g.gated_product(h, &self.gate, &self.up, kind)
    }
    /// As [`FeedForward::build`], but of the gate's values only what exceeds their mean by s standard deviations is left.
    pub fn build_sparse(&self, g: &mut Builder, h: Id, kind: Gate, s: f32) -> Id {
        let f = self.gate.weight.dims[1];
        let both = g.products(h, &[&self.gate, &self.up]);
        let (gate, up) = (g.part(both, 0, f), g.part(both, f, f));
        let gate = g.sparsify(gate, s);
        g.gated(gate, up, kind)
    }
}
