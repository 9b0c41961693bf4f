//! A model as a graph of operations: what every backend runs.

pub mod altup;
pub mod blocks;
pub mod borrowed;
pub mod builder;
pub mod decoder;
pub mod experts;
pub mod laurel;
pub mod own_inputs;
pub mod rope;
pub mod streams;

use backend_api::{
    graph::{self as api, Role},
    types::Type,
};

pub use builder::{Builder, Id};

/// What a graph is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// T: the most tokens of a step.
    pub tokens: u32,
    /// R: the most wanted columns of a step.
    pub rows: u32,
    /// S: the most sequences.
    pub sequences: u32,
    /// The most tokens of a sequence.
    pub context: u32,
    /// P: tokens a page, a power of two.
    pub page_tokens: u32,
    /// Pages of each cache group.
    pub pages: Vec<u32>,
    /// The type of keys in the cache, and of values.
    pub cache_types: [Type; 2],
}

impl Shape {
    /// Steps of one token of one sequence, for who looks at the operations alone.
    pub fn smallest(cache: &CacheLayout) -> Shape {
        Shape {
            tokens: 1,
            rows: 1,
            sequences: 1,
            context: 1,
            page_tokens: 1,
            pages: vec![1; cache.windows.len()],
            cache_types: [Type::F32; 2],
        }
    }

    /// B: table words a sequence.
    pub fn blocks(&self) -> u32 {
        self.context.div_ceil(self.page_tokens)
    }
}

/// What a layer keeps in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLayer {
    /// Index into [`CacheLayout::windows`].
    pub group: usize,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Values a head.
    pub head_dim: u32,
}

/// The cache that a model needs. A group is a set of layers that keep the same tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheLayout {
    /// For each group, the window in tokens; `None` keeps all.
    pub windows: Vec<Option<u32>>,
    /// For each layer, what it keeps; `None` for layers that read another's cache.
    pub layers: Vec<Option<CacheLayer>>,
}

impl CacheLayout {
    /// Adds a layer with this window to the group of its kind.
    pub fn push(&mut self, window: Option<u32>, kv_heads: u32, head_dim: u32) {
        let group = self.windows.iter().position(|w| *w == window).unwrap_or_else(|| {
            self.windows.push(window);
            self.windows.len() - 1
        });
        self.layers.push(Some(CacheLayer {
            group,
            kv_heads,
            head_dim,
        }));
    }
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Keys.
    Keys,
    /// Values.
    Values,
}

/// What the host writes before a step; see `OPERATIONS` in the contract for the exact meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// i32 `[T]`.
    Tokens,
    /// i32 `[T]`.
    Positions,
    /// i32 `[S + 1]`.
    Starts,
    /// i32 `[R]`.
    Wanted,
    /// i32 `[R]`.
    WantedPositions,
    /// i32 `[S + 1]`.
    WantedStarts,
    /// i32 `[T]` of a cache group.
    Slots(usize),
    /// i32 `[B, S]` of a cache group.
    Table(usize),
}

/// What a buffer holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Tensor of the file, as it lies there.
    Weight(usize),
    /// Tensor of the file, widened to F32.
    Widened(usize),
    /// Tensor of the file in the usual order of its type, where the file has another.
    Rewritten(usize),
    /// Numbers that the model computed.
    Constant(Vec<f32>),
    /// A layer's keys or values.
    Pool {
        /// The layer that owns them.
        layer: usize,
        /// Which of the two.
        part: Part,
    },
    /// A step input.
    Input(Input),
    /// What nodes leave to later ones.
    Activation,
    /// The logits `[V, R]`.
    Logits,
}

impl Content {
    /// The role in the contract.
    pub fn role(&self) -> Role {
        match self {
            Content::Weight(_) | Content::Rewritten(_) => Role::Weight,
            Content::Widened(_) | Content::Constant(_) => Role::Constant,
            Content::Pool { .. } => Role::Pool,
            Content::Input(_) => Role::Input,
            Content::Activation => Role::Activation,
            Content::Logits => Role::Output,
        }
    }
}

/// A buffer of a model's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// What it holds.
    pub content: Content,
    /// Its length.
    pub bytes: u64,
    /// The layer that it belongs to; `None` for what stands before and after the layers.
    pub layer: Option<usize>,
}

/// A whole model as operations in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// All tensors; their `buffer` is an index into `buffers`.
    pub tensors: Vec<api::Tensor>,
    /// The operations.
    pub nodes: Vec<api::Node>,
    /// For each node, its layer; `None` before and after the layers.
    pub node_layers: Vec<Option<usize>>,
    /// What the tensors lie in; every activation has a buffer of its own.
    pub buffers: Vec<Buffer>,
    /// The most tokens of a step.
    pub tokens: u32,
    /// The most wanted columns of a step.
    pub rows: u32,
}
