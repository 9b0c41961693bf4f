//! A graph that owns its parts, for whoever builds one.

use crate::{
    error::{BackendError, Result},
    graph::{Buffer, Graph, Node, Role, Tensor},
};

/// An owned [`Graph`] in the making. Indices that its methods return stay valid: parts are only added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// As [`Graph::tensors`].
    pub tensors: Vec<Tensor>,
    /// As [`Graph::buffers`].
    pub buffers: Vec<Buffer>,
    /// As [`Graph::nodes`].
    pub nodes: Vec<Node>,
    /// T: the most tokens of a step.
    pub tokens: u32,
    /// R: the most wanted columns of a step.
    pub rows: u32,
}

impl Draft {
    /// An empty graph for steps of up to `tokens` tokens and `rows` wanted columns.
    pub fn new(tokens: u32, rows: u32) -> Draft {
        Draft {
            tokens,
            rows,
            ..Draft::default()
        }
    }

    /// The graph as it crosses the boundary.
    pub fn graph(&self) -> Graph<'_> {
        Graph::new(&self.tensors, &self.nodes, &self.buffers, self.tokens, self.rows)
    }

    /// Adds a buffer of `bytes` bytes; its index.
    pub fn buffer(&mut self, role: Role, bytes: u64) -> u32 {
        self.buffers.push(Buffer {
            role: role as u32,
            reserved: 0,
            bytes,
        });
        self.buffers.len() as u32 - 1
    }

    /// Adds a tensor; its index.
    pub fn tensor(&mut self, tensor: Tensor) -> u32 {
        self.tensors.push(tensor);
        self.tensors.len() as u32 - 1
    }

    /// Adds a tensor at its offset in a new buffer that just holds it; the tensor's index.
    ///
    /// # Errors
    /// `Invalid` where the tensor's extent is no number of bytes.
    pub fn place(&mut self, role: Role, tensor: Tensor) -> Result<u32> {
        let bytes = tensor.extent().and_then(|e| e.checked_add(tensor.offset));
        let bytes = bytes.ok_or_else(|| BackendError::invalid(format!("no buffer can hold {tensor:?}")))?;
        let buffer = self.buffer(role, bytes);
        Ok(self.tensor(Tensor { buffer, ..tensor }))
    }
}

impl From<&Graph<'_>> for Draft {
    fn from(graph: &Graph<'_>) -> Draft {
        Draft {
            tensors: graph.tensors.to_vec(),
            buffers: graph.buffers.to_vec(),
            nodes: graph.nodes.to_vec(),
            tokens: graph.tokens,
            rows: graph.rows,
        }
    }
}
