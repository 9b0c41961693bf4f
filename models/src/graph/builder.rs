//! Adds operations to a graph, one call an operation.
//!
//! Shapes are fastest first. A tensor whose last dimension is T holds a column for each token of the step, one whose
//! last is R a column for each wanted position; what takes positions follows its operand's.

use std::collections::HashMap;

use backend_api::{
    graph::{Node, Symbol, Tensor},
    operations::{Gate, Operation, Precision, UnaryKind, Window, word},
    types::Type,
};

use super::{Buffer, CacheLayout, Content, Graph, Input, Part, Shape, rope::Rope};
use crate::weights::{Form, Linear, Slice, Weight};

/// A tensor of the graph that is being built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// A factor on scores that grows with the position p of the query: 1 + β·ln(1 + ⌊p / span⌋).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// β.
    pub beta: f32,
    /// Tokens.
    pub span: u32,
}

/// How a layer attends.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// The layer whose cache is read.
    pub layer: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// c of c·tanh(·/c) on the scores; 0 for none.
    pub softcap: f32,
    /// The window in tokens.
    pub window: Option<u32>,
    /// How scores grow with the position.
    pub temperature: Option<Temperature>,
    /// One more logit a head, `[H]`.
    pub sinks: Option<Id>,
}

/// A number as a parameter word.
pub(super) fn bits(number: f32) -> u32 {
    number.to_bits()
}

fn content_of(weight: &Weight) -> Content {
    match weight.form {
        Form::AsStored => Content::Weight(weight.tensor),
        Form::Widened => Content::Widened(weight.tensor),
        Form::Rewritten => Content::Rewritten(weight.tensor),
    }
}

/// A graph in the making.
pub struct Builder<'a> {
    shape: &'a Shape,
    cache: &'a CacheLayout,
    graph: Graph,
    layer: Option<usize>,
    inputs: HashMap<Input, Id>,
    weights: HashMap<Weight, Id>,
    pools: HashMap<(usize, Part), Id>,
    constants: Vec<(Vec<f32>, Id)>,
}

impl<'a> Builder<'a> {
    /// An empty graph for steps of this shape over this cache.
    pub fn new(shape: &'a Shape, cache: &'a CacheLayout) -> Self {
        Builder {
            shape,
            cache,
            graph: Graph {
                tokens: shape.tokens,
                rows: shape.rows,
                ..Graph::default()
            },
            layer: None,
            inputs: HashMap::new(),
            weights: HashMap::new(),
            pools: HashMap::new(),
            constants: Vec::new(),
        }
    }

    /// The graph.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// The most tokens of a sequence.
    pub fn context(&self) -> u32 {
        self.shape.context
    }

    /// Says to which layer the next operations belong; `None` for those before and after the layers.
    pub fn layer(&mut self, layer: Option<usize>) {
        self.layer = layer;
    }

    pub(super) fn tensor(&self, id: Id) -> &Tensor {
        &self.graph.tensors[id.0 as usize]
    }

    pub(super) fn push_tensor(&mut self, tensor: Tensor) -> Id {
        self.graph.tensors.push(tensor);
        Id(self.graph.tensors.len() as u32 - 1)
    }

    /// A new buffer with one contiguous tensor in it.
    pub(super) fn push_buffer(&mut self, content: Content, ty: Type, dims: [u32; 4], symbol: Symbol, axis: u8) -> Id {
        let buffer = self.graph.buffers.len() as u32;
        let tensor = Tensor::contiguous(ty, dims, buffer, 0).map(|t| t.symbolic(symbol, axis));
        let tensor = tensor.expect("sizes were checked against the file and the asked context");
        let bytes = tensor.extent().unwrap_or(0);
        self.graph.buffers.push(Buffer {
            content,
            bytes,
            layer: self.layer,
        });
        self.push_tensor(tensor)
    }

    fn push_node(&mut self, node: Node) {
        self.graph.nodes.push(node);
        self.graph.node_layers.push(self.layer);
    }

    /// A node whose output is `output`, which is also the result.
    pub(super) fn emit(
        &mut self,
        operation: Operation,
        inputs: &[Option<Id>],
        output: Id,
        words: &[(usize, u32)],
    ) -> Id {
        let inputs: Vec<u32> = inputs
            .iter()
            .map(|i| i.map_or(backend_api::graph::ABSENT, |id| id.0))
            .collect();
        let node = words
            .iter()
            .fold(Node::new(operation.id(), &inputs, output.0), |node, &(word, value)| {
                node.with(word, value)
            });
        self.push_node(node);
        output
    }

    /// A new F32 activation `dims`, its dimension `axis` symbolic as x's is.
    pub(super) fn activation(&mut self, dims: [u32; 4], axis: u8, x: Id) -> Id {
        let symbol = Symbol::from_id(self.tensor(x).symbol).unwrap_or(Symbol::None);
        self.push_buffer(Content::Activation, Type::F32, dims, symbol, axis)
    }

    /// A new activation of x's shape.
    pub(super) fn like(&mut self, x: Id) -> Id {
        let (dims, axis) = (self.tensor(x).dims, self.tensor(x).axis);
        self.activation(dims, axis, x)
    }

    /// The tensor of a step input.
    pub fn input(&mut self, input: Input) -> Id {
        if let Some(&id) = self.inputs.get(&input) {
            return id;
        }
        let shape = self.shape;
        let (dims, symbol) = match input {
            Input::Tokens | Input::Positions | Input::Slots(_) => ([shape.tokens, 1, 1, 1], Symbol::Tokens),
            Input::Wanted | Input::WantedPositions => ([shape.rows, 1, 1, 1], Symbol::Rows),
            Input::Starts | Input::WantedStarts => ([shape.sequences + 1, 1, 1, 1], Symbol::None),
            Input::Table(_) => ([shape.blocks(), shape.sequences, 1, 1], Symbol::None),
        };
        let id = self.push_buffer(Content::Input(input), Type::I32, dims, symbol, 0);
        self.inputs.insert(input, id);
        id
    }

    /// The tensor of a weight: a view where it is part of a larger one, whose bytes are there once.
    pub fn weight(&mut self, weight: &Weight) -> Id {
        if let Some(&id) = self.weights.get(weight) {
            return id;
        }
        let id = match weight.slice {
            Some(slice) => self.slice(weight, slice),
            None => self.push_buffer(content_of(weight), weight.ty, weight.dims, Symbol::None, 0),
        };
        self.weights.insert(*weight, id);
        id
    }

    fn slice(&mut self, weight: &Weight, Slice { axis, rows }: Slice) -> Id {
        let whole = self.weight(&weight.whole());
        let mut tensor = *self.tensor(whole);
        tensor.dims = weight.dims;
        tensor.offset += u64::from(rows.first) * tensor.strides[axis] as u64;
        tensor.strides[axis] *= i64::from(rows.step);
        self.push_tensor(tensor)
    }

    /// A vector `[n]` that the model computed.
    pub fn constant(&mut self, values: &[f32]) -> Id {
        if let Some((_, id)) = self.constants.iter().find(|(known, _)| known == values) {
            return *id;
        }
        let dims = [values.len() as u32, 1, 1, 1];
        let id = self.push_buffer(Content::Constant(values.to_vec()), Type::F32, dims, Symbol::None, 0);
        self.constants.push((values.to_vec(), id));
        id
    }

    /// A layer's pool `[hd, P, Hkv, pages]` and its cache group.
    fn pool(&mut self, layer: usize, part: Part) -> (Id, usize) {
        let kept = self.cache.layers[layer].expect("a layer that keeps keys and values");
        if let Some(&id) = self.pools.get(&(layer, part)) {
            return (id, kept.group);
        }
        let dims = [
            kept.head_dim,
            self.shape.page_tokens,
            kept.kv_heads,
            self.shape.pages[kept.group],
        ];
        let ty = self.shape.cache_types[part as usize];
        let id = self.push_buffer(Content::Pool { layer, part }, ty, dims, Symbol::None, 0);
        self.pools.insert((layer, part), id);
        (id, kept.group)
    }

    /// Rows `first .. first + heads·hd` of x `[M, T]`, seen as heads `[hd, heads, T]`.
    pub fn heads(&mut self, x: Id, first: u32, head_dim: u32, heads: u32) -> Id {
        let of = *self.tensor(x);
        let dims = [head_dim, heads, of.dims[1], 1];
        let strides = [
            of.strides[0],
            of.strides[0] * i64::from(head_dim),
            of.strides[1],
            of.strides[1],
        ];
        let offset = of.offset + u64::from(first) * of.strides[0] as u64;
        self.push_tensor(Tensor {
            dims,
            strides,
            offset,
            axis: 2,
            ..of
        })
    }

    /// Heads x `[hd, h, T]` and those that lie beside them: `[hd, heads, T]`.
    pub fn more_heads(&mut self, x: Id, heads: u32) -> Id {
        let mut tensor = *self.tensor(x);
        tensor.dims[1] = heads;
        self.push_tensor(tensor)
    }

    /// Heads `[hd, H, T]` that lie side by side, seen as `[hd·H, T]`.
    pub fn flat(&mut self, x: Id) -> Id {
        let of = *self.tensor(x);
        let dims = [of.dims[0] * of.dims[1], of.dims[2], 1, 1];
        let strides = [of.strides[0], of.strides[2], of.strides[2], of.strides[2]];
        self.push_tensor(Tensor {
            dims,
            strides,
            axis: 1,
            ..of
        })
    }

    /// scale · the rows of a table `[d, n]` that `ids` `[T]` name: `[d, T]`.
    pub fn rows(&mut self, table: Id, ids: Id, scale: f32) -> Id {
        let dims = [self.tensor(table).dims[0], self.tensor(ids).dims[0], 1, 1];
        let y = self.activation(dims, 1, ids);
        self.rows_into(table, ids, scale, y)
    }

    fn rows_into(&mut self, table: Id, ids: Id, scale: f32, y: Id) -> Id {
        let words = [(word::rows::SCALE, scale.to_bits())];
        self.emit(Operation::Rows, &[Some(table), Some(ids)], y, &words)
    }

    /// scale · the embeddings of this step's tokens: `[d, T]`.
    pub fn embed(&mut self, table: &Weight, scale: f32) -> Id {
        let (table, tokens) = (self.weight(table), self.input(Input::Tokens));
        self.rows(table, tokens, scale)
    }

    /// As [`Builder::embed`], written to y `[d, T]`.
    pub fn embed_into(&mut self, table: &Weight, scale: f32, y: Id) {
        let (table, tokens) = (self.weight(table), self.input(Input::Tokens));
        self.rows_into(table, tokens, scale, y);
    }

    /// The columns of x `[d, T]` whose logits are wanted: `[d, R]`.
    pub fn wanted(&mut self, x: Id) -> Id {
        let wanted = self.input(Input::Wanted);
        self.rows(x, wanted, 1.0)
    }

    /// W·x: `[M, T]` of x `[K, T]`.
    pub fn product(&mut self, x: Id, weight: &Weight, precision: Precision) -> Id {
        let w = self.weight(weight);
        let y = self.activation([weight.dims[1], self.tensor(x).dims[1], 1, 1], 1, x);
        let words = [(word::product::PRECISION, precision as u32)];
        self.emit(Operation::Product, &[Some(x), Some(w)], y, &words)
    }

    /// W·x + b: `[M, T]` of x `[K, T]`.
    pub fn linear(&mut self, x: Id, linear: &Linear) -> Id {
        match linear.bias {
            None => self.product(x, &linear.weight, Precision::OfType),
            Some(_) => self.product_add(x, linear, None),
        }
    }

    /// r + W·x + b; with a residual r `[M, T]`, in its place.
    pub fn product_add(&mut self, x: Id, linear: &Linear, r: Option<Id>) -> Id {
        let w = self.weight(&linear.weight);
        let b = linear.bias.as_ref().map(|b| self.weight(b));
        let dims = [linear.weight.dims[1], self.tensor(x).dims[1], 1, 1];
        let y = r.unwrap_or_else(|| self.activation(dims, 1, x));
        self.emit(Operation::ProductAdd, &[Some(x), Some(w), b, r], y, &[])
    }

    /// Up to four products of one x, the first's rows first: `[ΣM, T]`.
    pub fn products(&mut self, x: Id, linears: &[&Linear]) -> Id {
        let rows = linears.iter().map(|l| l.weight.dims[1]).sum();
        let y = self.activation([rows, self.tensor(x).dims[1], 1, 1], 1, x);
        let mut inputs = vec![Some(x)];
        for linear in linears {
            inputs.push(Some(self.weight(&linear.weight)));
            inputs.push(linear.bias.as_ref().map(|b| self.weight(b)));
        }
        self.emit(Operation::Products, &inputs, y, &[])
    }

    /// gate(Wg·x, Wu·x): `[M, T]` of x `[K, T]`.
    pub fn gated_product(&mut self, x: Id, gate: &Linear, up: &Linear, kind: Gate) -> Id {
        let dims = [gate.weight.dims[1], self.tensor(x).dims[1], 1, 1];
        let y = self.activation(dims, 1, x);
        let [wg, wu] = [gate, up].map(|l| Some(self.weight(&l.weight)));
        let [bg, bu] = [gate, up].map(|l| l.bias.as_ref().map(|b| self.weight(b)));
        let words = [(word::gated_product::KIND, kind as u32)];
        self.emit(Operation::GatedProduct, &[Some(x), wg, wu, bg, bu], y, &words)
    }

    /// rms(x)·w over dimension 0; without w, rms(x).
    pub fn rms_norm(&mut self, x: Id, w: Option<&Weight>, epsilon: f32) -> Id {
        let w = w.map(|w| self.weight(w));
        let y = self.like(x);
        self.emit(
            Operation::RmsNorm,
            &[Some(x), w],
            y,
            &[(word::rms_norm::EPSILON, epsilon.to_bits())],
        )
    }

    /// r + rms(x)·w, in r's place.
    pub fn norm_add(&mut self, x: Id, w: &Weight, r: Id, epsilon: f32) -> Id {
        self.norm_add_into(x, w, r, epsilon, r)
    }

    /// r + rms(x)·w, in x's place: r stays as it is.
    pub fn norm_add_onto(&mut self, x: Id, w: &Weight, r: Id, epsilon: f32) -> Id {
        self.norm_add_into(x, w, r, epsilon, x)
    }

    fn norm_add_into(&mut self, x: Id, w: &Weight, r: Id, epsilon: f32, y: Id) -> Id {
        let w = self.weight(w);
        // both words have the same place in the two operations
        let words = [(word::rms_norm::EPSILON, epsilon.to_bits())];
        self.emit(Operation::NormAdd, &[Some(x), Some(w), Some(r)], y, &words)
    }

    /// The positions of x's columns.
    fn positions_of(&mut self, x: Id) -> Id {
        let wanted = self.tensor(x).symbol == Symbol::Rows as u8;
        self.input(if wanted {
            Input::WantedPositions
        } else {
            Input::Positions
        })
    }

    /// Rotates heads x `[hd, h, T]` by their positions, in place.
    pub fn rope(&mut self, x: Id, rope: &Rope) -> Id {
        let (positions, frequencies) = (self.positions_of(x), self.constant(&rope.frequencies));
        let words = [
            (word::rope::LAYOUT, rope.layout as u32),
            (word::rope::MAGNITUDE, rope.magnitude.to_bits()),
        ];
        self.emit(
            Operation::Rope,
            &[Some(x), Some(positions), Some(frequencies)],
            x,
            &words,
        )
    }

    /// Normalizes each head of x `[hd, h, T]` and rotates it, in place.
    pub fn norm_rope(&mut self, x: Id, w: &Weight, epsilon: f32, rope: &Rope) -> Id {
        let w = self.weight(w);
        let (positions, frequencies) = (self.positions_of(x), self.constant(&rope.frequencies));
        let words = [
            (word::norm_rope::EPSILON, epsilon.to_bits()),
            (word::norm_rope::LAYOUT, rope.layout as u32),
            (word::norm_rope::MAGNITUDE, rope.magnitude.to_bits()),
        ];
        self.emit(
            Operation::NormRope,
            &[Some(x), Some(w), Some(positions), Some(frequencies)],
            x,
            &words,
        )
    }

    /// Writes keys or values x `[hd, Hkv, T]` of this step to the layer's cache.
    pub fn cache_store(&mut self, layer: usize, part: Part, x: Id) {
        let (pool, group) = self.pool(layer, part);
        let slots = self.input(Input::Slots(group));
        self.emit(Operation::CacheStore, &[Some(x), Some(slots)], pool, &[]);
    }

    /// Attention of queries q `[hd, H, T]` over a layer's cache: `[hd, H, T]`.
    pub fn attention(&mut self, q: Id, attend: &Attend) -> Id {
        let (k, group) = self.pool(attend.layer, Part::Keys);
        let (v, _) = self.pool(attend.layer, Part::Values);
        let wanted = self.tensor(q).symbol == Symbol::Rows as u8;
        let starts = self.input(if wanted { Input::WantedStarts } else { Input::Starts });
        let (positions, table) = (self.positions_of(q), self.input(Input::Table(group)));
        let y = self.like(q);
        let kind = if attend.window.is_some() {
            Window::Sliding
        } else {
            Window::Full
        };
        let temperature = attend.temperature.unwrap_or(Temperature { beta: 0.0, span: 0 });
        let words = [
            (word::attention::SCALE, attend.scale.to_bits()),
            (word::attention::SOFTCAP, attend.softcap.to_bits()),
            (word::attention::WINDOW_KIND, kind as u32),
            (word::attention::WINDOW, attend.window.unwrap_or(0)),
            (word::attention::BETA, bits(temperature.beta)),
            (word::attention::SPAN, temperature.span),
        ];
        let inputs = [
            Some(q),
            Some(k),
            Some(v),
            Some(positions),
            Some(starts),
            Some(table),
            attend.sinks,
        ];
        self.emit(Operation::Attention, &inputs, y, &words)
    }

    /// out·f(in·x), in place.
    pub fn unary(&mut self, x: Id, kind: UnaryKind, factor_in: f32, factor_out: f32) -> Id {
        let words = [
            (word::unary::KIND, kind as u32),
            (word::unary::IN, factor_in.to_bits()),
            (word::unary::OUT, factor_out.to_bits()),
        ];
        self.emit(Operation::Unary, &[Some(x)], x, &words)
    }

    /// The logits: W·x `[V, R]`, softcapped c·tanh(·/c) where c > 0. The last call of a model.
    pub fn logits(&mut self, x: Id, weight: &Weight, softcap: f32) {
        let y = self.product(x, weight, Precision::OfType);
        if softcap > 0.0 {
            self.unary(y, UnaryKind::Tanh, 1.0 / softcap, softcap);
        }
        let buffer = self.tensor(y).buffer as usize;
        self.graph.buffers[buffer].content = Content::Logits;
    }
}
