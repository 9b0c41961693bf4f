//! A router and its experts.

use backend_api::{
    graph::Symbol,
    operations::{Gate, Operation, PickMode, Precision, word},
    types::Type,
};

use super::{Builder, Content, Id, builder::bits};
use crate::{
    error::LoadError,
    names::{Names, Rows},
    weights::{Block, Linear},
};

/// The gate of the experts, with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct ExpertGate {
    /// The function.
    pub kind: Gate,
    /// α of the clamped one.
    pub alpha: f32,
    /// The clamped one's limit.
    pub limit: f32,
}

impl ExpertGate {
    /// silu(g)·u.
    pub const SILU: ExpertGate = ExpertGate {
        kind: Gate::Silu,
        alpha: 0.0,
        limit: 0.0,
    };
}

/// What a mixture of experts is made of.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    /// n: how many experts there are.
    pub count: u32,
    /// k: how many of them serve a token.
    pub used: u32,
    /// f: hidden values of an expert.
    pub hidden: u32,
    /// Their gate.
    pub gate: ExpertGate,
    /// How logits become the experts' weights.
    pub weights: PickMode,
    /// Factor on them.
    pub scale: f32,
    /// Whether, where one tensor holds gate and up, their rows take turns; else those of the gates come first.
    pub in_turn: bool,
}

/// A mixture of experts: a router and n gated feed-forward networks, of which each token takes k.
pub struct Experts {
    router: Linear,
    /// `[d, f, n]`, as `up`.
    gate: Linear,
    up: Linear,
    /// `[f, d, n]`.
    down: Linear,
    of: Mixture,
}

impl Experts {
    /// `ffn_gate_inp` and `ffn_gate_exps`, `ffn_up_exps`, `ffn_down_exps` of a model with `d` values a token; or gate and up
    /// in `ffn_gate_up_exps`.
    pub fn load(block: &Block, d: u32, of: &Mixture) -> Result<Experts, LoadError> {
        let Mixture {
            count: n, hidden: f, ..
        } = *of;
        let [of_gate, of_up] = if of.in_turn {
            Rows::in_turn(f)
        } else {
            Rows::in_order([f; 2])
        };
        let hidden = |name: &str, of| block.stack(Names::new(name).or_rows("ffn_gate_up_exps", of), [d, f, n]);
        Ok(Experts {
            router: block.linear("ffn_gate_inp", d, n)?,
            gate: hidden("ffn_gate_exps", of_gate)?,
            up: hidden("ffn_up_exps", of_up)?,
            down: block.stack("ffn_down_exps", [f, d, n])?,
            of: *of,
        })
    }

    /// x + Σ weight·expert(h) over the k experts with the largest logits; in the place of x `[d, T]`.
    pub fn build(&self, g: &mut Builder, h: Id, x: Id) -> Id {
        let logits = g.router(h, &self.router);
        let chosen = g.top_k(logits, self.of.used);
        let weights = g.pick(logits, chosen, &self.of);
        let hidden = g.gated_expert_product(h, [&self.gate, &self.up], chosen, &self.of.gate);
        let outputs = g.expert_product(hidden, &self.down, chosen);
        g.combine_into(outputs, weights, x);
        x
    }
}

impl Builder<'_> {
    /// A router's logits `[n, T]`: exact, because a flipped expert costs more than the product.
    fn router(&mut self, x: Id, router: &Linear) -> Id {
        let (w, b) = (
            self.weight(&router.weight),
            router.bias.as_ref().map(|b| self.weight(b)),
        );
        let y = self.activation([router.weight.dims[1], self.tensor(x).dims[1], 1, 1], 1, x);
        let words = [(word::product::PRECISION, Precision::Exact as u32)];
        self.emit(Operation::ProductAdd, &[Some(x), Some(w), b, None], y, &words)
    }

    /// Indices of the k largest of x `[n, T]`: i32 `[k, T]`.
    fn top_k(&mut self, x: Id, k: u32) -> Id {
        let (columns, symbol) = (self.tensor(x).dims[1], self.tensor(x).symbol);
        let symbol = Symbol::from_id(symbol).unwrap_or(Symbol::None);
        let y = self.push_buffer(Content::Activation, Type::I32, [k, columns, 1, 1], symbol, 1);
        self.emit(Operation::TopK, &[Some(x)], y, &[])
    }

    /// The weights of the experts that ids `[k, T]` name, of logits x `[n, T]`: `[k, T]`.
    fn pick(&mut self, x: Id, ids: Id, of: &Mixture) -> Id {
        let dims = self.tensor(ids).dims;
        let y = self.activation(dims, 1, x);
        let words = [
            (word::pick::MODE, of.weights as u32),
            (word::pick::SCALE, bits(of.scale)),
        ];
        self.emit(Operation::Pick, &[Some(x), Some(ids)], y, &words)
    }

    /// gate(Wg·x, Wu·x) of the chosen experts, ids `[k, T]`: `[M, k, T]` of x `[K, T]`.
    fn gated_expert_product(&mut self, x: Id, [gate, up]: [&Linear; 2], ids: Id, with: &ExpertGate) -> Id {
        let [k, columns, ..] = self.tensor(ids).dims;
        let y = self.activation([gate.weight.dims[1], k, columns, 1], 2, x);
        let x = self.as_one_row(x);
        let [wg, wu] = [gate, up].map(|stack| Some(self.weight(&stack.weight)));
        let [bg, bu] = [gate, up].map(|stack| stack.bias.as_ref().map(|b| self.weight(b)));
        let words = [
            (word::gated_product::KIND, with.kind as u32),
            (word::gated_product::ALPHA, bits(with.alpha)),
            (word::gated_product::LIMIT, bits(with.limit)),
        ];
        self.emit(
            Operation::GatedExpertProduct,
            &[Some(x), wg, wu, Some(ids), bg, bu],
            y,
            &words,
        )
    }

    /// W·x + b of the chosen experts: `[M, k, T]` of x `[K, k, T]`.
    fn expert_product(&mut self, x: Id, stack: &Linear, ids: Id) -> Id {
        let [_, k, columns, _] = self.tensor(x).dims;
        let y = self.activation([stack.weight.dims[1], k, columns, 1], 2, x);
        let w = self.weight(&stack.weight);
        match stack.bias.as_ref().map(|b| self.weight(b)) {
            None => self.emit(Operation::ExpertProduct, &[Some(x), Some(w), Some(ids)], y, &[]),
            Some(b) => self.emit(
                Operation::ExpertProductAdd,
                &[Some(x), Some(w), Some(ids), Some(b)],
                y,
                &[],
            ),
        }
    }

    /// base + Σ_i weights_i·x_i, of x `[d, k, T]` and weights `[k, T]`, in the place of base `[d, T]`.
    fn combine_into(&mut self, x: Id, weights: Id, base: Id) {
        let k = self.tensor(weights).dims[0];
        let weights = self.heads(weights, 0, k, 1);
        let base = self.as_one_row(base);
        self.emit(Operation::Combine, &[Some(x), Some(weights), Some(base)], base, &[]);
    }

    /// x `[d, T]` as `[d, 1, T]`.
    pub fn as_one_row(&mut self, x: Id) -> Id {
        let d = self.tensor(x).dims[0];
        self.heads(x, 0, d, 1)
    }
}
