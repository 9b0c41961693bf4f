//! Operations on several streams a token, `[d, n, T]`, and what gemma3n asks for beside them.

use backend_api::{
    graph::Tensor,
    operations::{Gate, Operation, word},
};

use super::{Builder, Id, Input, builder::bits};
use crate::weights::Weight;

/// The weights of a router of streams: `[d]`, `[d, n]` and `[n, n′]`.
pub struct Mixing<'a> {
    /// Of the norm.
    pub norm: &'a Weight,
    /// Of the router.
    pub router: &'a Weight,
    /// Of the coefficients.
    pub coefficients: &'a Weight,
}

impl Builder<'_> {
    /// A new `[d, n, T]`: garbage until it is written.
    pub fn token_streams(&mut self, d: u32, n: u32) -> Id {
        let tokens = self.input(Input::Tokens);
        let columns = self.tensor(tokens).dims[0];
        self.activation([d, n, columns, 1], 2, tokens)
    }

    /// A new tensor of x's shape: garbage until it is written.
    pub fn another(&mut self, x: Id) -> Id {
        self.like(x)
    }

    /// A new `[d, n, T]` with the columns of x `[d, T]`: garbage until it is written.
    pub fn new_streams(&mut self, x: Id, n: u32) -> Id {
        let [d, columns, ..] = self.tensor(x).dims;
        self.activation([d, n, columns, 1], 2, x)
    }

    /// Stream k of x `[d, n, T]`: `[d, T]`.
    pub fn stream(&mut self, x: Id, k: u32) -> Id {
        let one = self.streams(x, k, 1);
        let of = *self.tensor(one);
        let (dims, strides) = (
            [of.dims[0], of.dims[2], 1, 1],
            [of.strides[0], of.strides[2], of.strides[2], of.strides[2]],
        );
        self.push_tensor(Tensor {
            dims,
            strides,
            axis: 1,
            ..of
        })
    }

    /// Streams `first..first + count` of x `[d, n, T]`: `[d, count, T]`.
    pub fn streams(&mut self, x: Id, first: u32, count: u32) -> Id {
        let mut tensor = *self.tensor(x);
        tensor.dims[1] = count;
        tensor.offset += u64::from(first) * tensor.strides[1] as u64;
        self.push_tensor(tensor)
    }

    /// Rows `first..first + rows` of x `[M, T]`: `[rows, T]`.
    pub fn part(&mut self, x: Id, first: u32, rows: u32) -> Id {
        let mut tensor = *self.tensor(x);
        tensor.dims[0] = rows;
        tensor.offset += u64::from(first) * tensor.strides[0] as u64;
        self.push_tensor(tensor)
    }

    /// The wanted columns of x `[d, n, T]`: `[d, n, R]`.
    pub fn wanted_streams(&mut self, x: Id) -> Id {
        let [d, n, ..] = self.tensor(x).dims;
        let flat = self.flat(x);
        let wanted = self.wanted(flat);
        self.heads(wanted, 0, d, n)
    }

    /// Matrix k of a stack `[K, M, n]` times x `[K, T]`, written to y `[M, T]`.
    pub fn stacked_product_into(&mut self, x: Id, stack: &Weight, k: u32, y: Id) {
        let whole = self.weight(stack);
        let mut matrix = *self.tensor(whole);
        matrix.offset += u64::from(k) * matrix.strides[2] as u64;
        matrix.dims[2] = 1;
        let matrix = self.push_tensor(matrix);
        self.emit(Operation::Product, &[Some(x), Some(matrix)], y, &[]);
    }

    /// α·(a + β·b), in a's place; b's dims above 0 may be 1.
    pub fn add(&mut self, a: Id, b: Id, alpha: f32, beta: f32) -> Id {
        self.emit(
            Operation::Add,
            &[Some(a), Some(b)],
            a,
            &[(word::add::ALPHA, bits(alpha)), (word::add::BETA, bits(beta))],
        )
    }

    /// a − b, a new tensor.
    pub fn difference(&mut self, a: Id, b: Id) -> Id {
        let y = self.like(a);
        let words = [(word::add::ALPHA, bits(1.0)), (word::add::BETA, bits(-1.0))];
        self.emit(Operation::Add, &[Some(a), Some(b)], y, &words)
    }

    /// a·w with w `[d]` for every column: a new tensor.
    pub fn scaled(&mut self, a: Id, w: &Weight) -> Id {
        let (w, y) = (self.weight(w), self.like(a));
        self.emit(Operation::Mul, &[Some(a), Some(w)], y, &[])
    }

    /// gate(g)·u, in g's place.
    pub fn gated(&mut self, g: Id, u: Id, kind: Gate) -> Id {
        self.emit(
            Operation::Gated,
            &[Some(g), Some(u)],
            g,
            &[(word::gated::KIND, kind as u32)],
        )
    }

    /// max(x − (μ + s·σ), 0) over dimension 0, in x's place.
    pub fn sparsify(&mut self, x: Id, s: f32) -> Id {
        self.emit(Operation::Sparsify, &[Some(x)], x, &[(word::sparsify::S, bits(s))])
    }

    /// x `[d, m, T]` rescaled to the root mean square of `to` `[d, 1, T]`, in place; x's mean square is at least `floor`.
    pub fn rms_match(&mut self, x: Id, to: Id, floor: f32) -> Id {
        self.emit(
            Operation::RmsMatch,
            &[Some(x), Some(to)],
            x,
            &[(word::rms_match::FLOOR, bits(floor))],
        )
    }

    /// F·tanh(factor·A·(rms(x)·w)) of x `[d, T]`, seen as `[inputs, outputs, T]`: what [`Builder::combine`] takes.
    pub fn mix_coefficients(&mut self, x: Id, mixing: &Mixing, epsilon: f32, factor: f32, inputs: u32) -> Id {
        let [w, a, f] = [mixing.norm, mixing.router, mixing.coefficients].map(|w| self.weight(w));
        let rows = mixing.coefficients.dims[1];
        let y = self.activation([rows, self.tensor(x).dims[1], 1, 1], 1, x);
        let words = [
            (word::mix_coefficients::EPSILON, bits(epsilon)),
            (word::mix_coefficients::IN, bits(factor)),
        ];
        self.emit(
            Operation::MixCoefficients,
            &[Some(x), Some(w), Some(a), Some(f)],
            y,
            &words,
        );
        self.heads(y, 0, inputs, rows / inputs)
    }

    /// base + Σ_i (C_i + c0)·x_i: `[d, J, T]` of x `[d, I, T]`, C `[I, J, T]` and base `[d, J, T]`. Written to y; where y is
    /// base, in its place.
    pub fn combine(&mut self, x: Id, coefficients: Option<Id>, base: Id, c0: f32, y: Id) -> Id {
        self.emit(
            Operation::Combine,
            &[Some(x), coefficients, Some(base)],
            y,
            &[(word::combine::C0, bits(c0))],
        )
    }
}
