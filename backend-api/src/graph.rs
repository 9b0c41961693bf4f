//! Graphs as they cross the boundary: tensors, nodes and buffers in flat slices.
//!
//! Shapes are written fastest dimension first, as in GGUF: `[d, T]` has `d` adjacent values for each of `T` tokens.

use abi_stable::{StableAbi, std_types::RSlice};

use crate::types::Type;

/// The index of an input that is not there.
pub const ABSENT: u32 = u32::MAX;

/// The dimensions that are known only when a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Symbol {
    /// All dimensions are fixed.
    None = 0,
    /// The tokens of a step, T.
    Tokens = 1,
    /// The columns whose logits are wanted, R ≤ T.
    Rows = 2,
}

impl Symbol {
    /// The symbol with number `id`.
    pub fn from_id(id: u8) -> Option<Symbol> {
        [Symbol::None, Symbol::Tokens, Symbol::Rows]
            .into_iter()
            .find(|s| *s as u8 == id)
    }
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Weights: contents fixed when the program is compiled and after.
    Weight = 0,
    /// Constants that the model computed: contents fixed.
    Constant = 1,
    /// Kept between runs: the key/value cache.
    Pool = 2,
    /// Written by the host before a run.
    Input = 3,
    /// Garbage before it is written, free after the run.
    Activation = 4,
    /// Read by the host after a run.
    Output = 5,
}

impl Role {
    /// The role with number `id`.
    pub fn from_id(id: u32) -> Option<Role> {
        [
            Role::Weight,
            Role::Constant,
            Role::Pool,
            Role::Input,
            Role::Activation,
            Role::Output,
        ]
        .into_iter()
        .find(|r| *r as u32 == id)
    }
}

/// A view of a part of a buffer.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// GGUF's number of the element or block type: see [`Type`].
    pub ty: u32,
    /// Which symbolic dimension `axis` has: see [`Symbol`].
    pub symbol: u8,
    /// The dimension that is symbolic; no dimension above it exceeds 1.
    pub axis: u8,
    /// Zero.
    pub reserved: u16,
    /// Values in each dimension, fastest first, unused ones 1; the symbolic one holds its maximum.
    pub dims: [u32; 4],
    /// Bytes from one entry to the next in each dimension; `strides[0]` is from one element, or block, to the next.
    /// Those of dimensions of 1 are ignored.
    pub strides: [i64; 4],
    /// Index into [`Graph::buffers`].
    pub buffer: u32,
    /// Zero.
    pub reserved2: u32,
    /// Bytes from the start of the buffer to the first element.
    pub offset: u64,
}

/// The sizes of one step.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Step {
    /// T′: the tokens of this step, at most the graph's `tokens`.
    pub tokens: u32,
    /// R′: the wanted columns of this step, at most the graph's `rows`.
    pub rows: u32,
    /// C′: 1 + the largest position, a hint for launch geometry only.
    pub context: u32,
    /// Zero.
    pub reserved: u32,
}

impl Tensor {
    /// A contiguous tensor: `None` where the block does not divide `dims[0]` or a size overflows.
    pub fn contiguous(ty: Type, dims: [u32; 4], buffer: u32, offset: u64) -> Option<Tensor> {
        let row = i64::try_from(ty.row_bytes(dims[0].into())?).ok()?;
        let plane = row.checked_mul(dims[1].into())?;
        let volume = plane.checked_mul(dims[2].into())?;
        volume.checked_mul(dims[3].into())?;
        let strides = [ty.block_bytes() as i64, row, plane, volume];
        Some(Tensor {
            ty: ty.id(),
            symbol: 0,
            axis: 0,
            reserved: 0,
            dims,
            strides,
            buffer,
            reserved2: 0,
            offset,
        })
    }

    /// The same tensor with dimension `axis` symbolic.
    pub fn symbolic(mut self, symbol: Symbol, axis: u8) -> Tensor {
        (self.symbol, self.axis) = (symbol as u8, axis);
        self
    }

    /// The type, where this version knows its number.
    pub fn kind(&self) -> Option<Type> {
        Type::from_id(self.ty)
    }

    /// The dimensions in a step.
    pub fn dims_in(&self, step: &Step) -> [u32; 4] {
        let mut dims = self.dims;
        match Symbol::from_id(self.symbol) {
            Some(Symbol::Tokens) => dims[usize::from(self.axis & 3)] = step.tokens,
            Some(Symbol::Rows) => dims[usize::from(self.axis & 3)] = step.rows,
            _ => {}
        }
        dims
    }

    /// Values at the largest step.
    pub fn values(&self) -> u64 {
        self.dims.iter().map(|&d| u64::from(d)).product()
    }

    /// Bytes from the first element's first byte to the last one's end, at the largest step: the part of the buffer
    /// that this view may touch begins at `offset` and has this length. 0 where a dimension is 0, `None` where the type
    /// is unknown, a stride is negative or a size overflows.
    pub fn extent(&self) -> Option<u64> {
        self.extent_of(&self.dims)
    }

    /// As [`Tensor::extent`], for the dimensions of a step.
    pub fn extent_in(&self, step: &Step) -> Option<u64> {
        self.extent_of(&self.dims_in(step))
    }

    fn extent_of(&self, dims: &[u32; 4]) -> Option<u64> {
        let ty = self.kind()?;
        if dims.contains(&0) {
            return Some(0);
        }
        let blocks = u64::from(dims[0]).div_ceil(ty.block_values() as u64);
        let counts = [blocks, dims[1].into(), dims[2].into(), dims[3].into()];
        let mut last = ty.block_bytes() as u64;
        for (count, stride) in counts.into_iter().zip(self.strides) {
            if count > 1 {
                last = last.checked_add((count - 1).checked_mul(u64::try_from(stride).ok()?)?)?;
            }
        }
        Some(last)
    }

    /// Whether dimension 0 is dense: elements, or blocks, side by side.
    pub fn is_dense(&self) -> bool {
        self.kind()
            .is_some_and(|ty| self.dims[0] <= ty.block_values() as u32 || self.strides[0] == ty.block_bytes() as i64)
    }

    /// Whether all of the elements lie side by side, in order.
    pub fn is_contiguous(&self) -> bool {
        let Some(plain) = self.kind().and_then(|ty| Tensor::contiguous(ty, self.dims, 0, 0)) else {
            return false;
        };
        self.is_dense() && (1..4).all(|i| self.dims[i] <= 1 || self.strides[i] == plain.strides[i])
    }
}

/// One operation on tensors of the graph.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// See [`crate::operations::Operation`].
    pub operation: u32,
    /// Indices into [`Graph::tensors`]; [`ABSENT`] where an optional input is not there, and after the last.
    pub inputs: [u32; 12],
    /// Index into [`Graph::tensors`].
    pub output: u32,
    /// Words of the operation's parameters: u32, or f32 by its bits; the rest 0.
    pub params: [u32; 16],
}

impl Node {
    /// A node with `inputs` and no parameters.
    pub fn new(operation: u32, inputs: &[u32], output: u32) -> Node {
        let mut all = [ABSENT; 12];
        all[..inputs.len()].copy_from_slice(inputs);
        Node {
            operation,
            inputs: all,
            output,
            params: [0; 16],
        }
    }

    /// The same node with parameter `word` set.
    pub fn with(mut self, word: usize, value: u32) -> Node {
        self.params[word] = value;
        self
    }

    /// The same node with parameter `word` set to the bits of `value`.
    pub fn with_f32(self, word: usize, value: f32) -> Node {
        self.with(word, value.to_bits())
    }

    /// Parameter `word` as f32.
    pub fn f32(&self, word: usize) -> f32 {
        f32::from_bits(self.params[word])
    }

    /// Input `i`'s tensor index, if the input is there.
    pub fn input(&self, i: usize) -> Option<u32> {
        self.inputs.get(i).copied().filter(|&t| t != ABSENT)
    }
}

/// A buffer that the host binds when a program runs.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// See [`Role`].
    pub role: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes that are bound at least.
    pub bytes: u64,
}

/// Operations in order, over views of buffers.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Graph<'a> {
    /// All tensors that the nodes name.
    pub tensors: RSlice<'a, Tensor>,
    /// The operations; they take effect in this order.
    pub nodes: RSlice<'a, Node>,
    /// All buffers that the tensors name.
    pub buffers: RSlice<'a, Buffer>,
    /// T: the most tokens of a step.
    pub tokens: u32,
    /// R: the most wanted columns of a step.
    pub rows: u32,
    /// Zero.
    pub reserved: [u64; 4],
}

impl<'a> Graph<'a> {
    /// A graph over these slices, for steps of up to `tokens` tokens and `rows` wanted columns.
    pub fn new(tensors: &'a [Tensor], nodes: &'a [Node], buffers: &'a [Buffer], tokens: u32, rows: u32) -> Graph<'a> {
        Graph {
            tensors: tensors.into(),
            nodes: nodes.into(),
            buffers: buffers.into(),
            tokens,
            rows,
            reserved: [0; 4],
        }
    }

    /// The tensor at `index`.
    pub fn tensor(&self, index: u32) -> Option<&'a Tensor> {
        self.tensors.as_slice().get(index as usize)
    }

    /// The largest step: T tokens, R rows.
    pub fn largest_step(&self) -> Step {
        Step {
            tokens: self.tokens,
            rows: self.rows,
            ..Step::default()
        }
    }
}
