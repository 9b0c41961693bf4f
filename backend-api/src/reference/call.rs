//! A node with the bytes of its operands: elements by their indices, through any strides.

use crate::{
    decode::decode_row,
    encode::encode_row,
    error::{BackendError, Result},
    graph::{Graph, Node, Step, Tensor},
    types::Type,
};

/// Bytes to be written to the output's buffer.
pub(super) struct Write {
    pub(super) offset: usize,
    pub(super) bytes: Vec<u8>,
}

/// Indices of dimensions 1 to 3: a row of dimension 0.
pub(super) type Row = [usize; 3];

/// A validated primitive node, ready to be evaluated.
pub(super) struct Call<'a> {
    node: &'a Node,
    inputs: Vec<Option<Operand<'a>>>,
    pub(super) output: Tensor,
    /// The output's dimensions in the step.
    pub(super) dims: [usize; 4],
}

/// An input: its elements of this step.
pub(super) struct Operand<'a> {
    tensor: &'a Tensor,
    ty: Type,
    bytes: &'a [u8],
    /// The dimensions in the step.
    pub(super) dims: [usize; 4],
}

fn broken() -> BackendError {
    BackendError::invalid("the node was not validated for these buffers")
}

impl<'a> Call<'a> {
    pub(super) fn new(graph: &'a Graph<'_>, node: &'a Node, buffers: &'a [Vec<u8>], step: &Step) -> Result<Call<'a>> {
        let operand = |index: u32| -> Result<Operand<'a>> {
            let tensor = graph.tensors.as_slice().get(index as usize).ok_or_else(broken)?;
            Ok(Operand {
                tensor,
                ty: tensor.kind().ok_or_else(broken)?,
                bytes: buffers.get(tensor.buffer as usize).ok_or_else(broken)?,
                dims: tensor.dims_in(step).map(|d| d as usize),
            })
        };
        let inputs = (0..node.inputs.len()).map(|i| node.input(i).map(operand).transpose());
        let inputs = inputs.collect::<Result<_>>()?;
        let Operand { tensor, dims, .. } = operand(node.output)?;
        Ok(Call {
            node,
            inputs,
            output: *tensor,
            dims,
        })
    }

    /// Input `i`, which must be there.
    pub(super) fn input(&self, i: usize) -> Result<&Operand<'a>> {
        self.optional(i).ok_or_else(broken)
    }

    /// Input `i`, if it is there.
    pub(super) fn optional(&self, i: usize) -> Option<&Operand<'a>> {
        self.inputs.get(i)?.as_ref()
    }

    /// Parameter `word` as u32.
    pub(super) fn count(&self, word: usize) -> u32 {
        self.node.params[word]
    }

    /// Parameter `word`, an f32.
    pub(super) fn number(&self, word: usize) -> f64 {
        self.node.f32(word).into()
    }

    /// Parameter `word`, a value of an enumeration.
    pub(super) fn choice<E>(&self, word: usize, from_word: fn(u32) -> Option<E>) -> Result<E> {
        from_word(self.count(word)).ok_or_else(broken)
    }

    /// The output's values, dimension 0 fastest, from a function that gives each row.
    pub(super) fn by_row(&self, row: impl FnMut(Row) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
        Ok(rows(self.dims).map(row).collect::<Result<Vec<_>>>()?.concat())
    }

    /// What puts the values of the output, dimension 0 fastest, in their places.
    pub(super) fn writes(&self, values: &[f64]) -> Result<Vec<Write>> {
        let ty = self.output.kind().ok_or_else(broken)?;
        let chunks = rows(self.dims).zip(values.chunks_exact(self.dims[0]));
        let write = |(row, values): (Row, &[f64])| {
            Ok(Write {
                offset: start(&self.output, row),
                bytes: stored(ty, values)?,
            })
        };
        chunks.map(write).collect()
    }
}

/// All rows of a tensor of these dimensions, dimension 1 fastest.
pub(super) fn rows([_, n1, n2, n3]: [usize; 4]) -> impl Iterator<Item = Row> {
    (0..n1 * n2 * n3).map(move |j| [j % n1, j / n1 % n2, j / n1 / n2])
}

/// Where a row of a view begins in its buffer. Rows beyond the first entry of a dimension of 1 do not exist.
pub(super) fn start(view: &Tensor, row: Row) -> usize {
    let along = (0..3)
        .filter(|&i| row[i] > 0)
        .map(|i| row[i] * view.strides[i + 1] as usize);
    view.offset as usize + along.sum::<usize>()
}

fn stored(ty: Type, values: &[f64]) -> Result<Vec<u8>> {
    if ty == Type::I32 {
        return Ok(values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect());
    }
    let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    let mut bytes = vec![0; values.len() * ty.block_bytes() / ty.block_values()];
    encode_row(ty, &values, &mut bytes)?;
    Ok(bytes)
}

impl<'a> Operand<'a> {
    /// The type's number of the elements.
    pub(super) fn ty(&self) -> Type {
        self.ty
    }

    /// The bytes of block `i` of a row: of element `i` where the type has no blocks.
    pub(super) fn block(&self, i: usize, row: Row) -> Result<&'a [u8]> {
        let along = if i > 0 { i * self.tensor.strides[0] as usize } else { 0 };
        let from = start(self.tensor, row) + along;
        self.bytes.get(from..from + self.ty.block_bytes()).ok_or_else(broken)
    }

    /// A row's values as f32.
    pub(super) fn row_f32(&self, row: Row) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.dims[0]];
        for (i, block) in values.chunks_mut(self.ty.block_values()).enumerate() {
            decode_row(self.ty, self.block(i, row)?, block)?;
        }
        Ok(values)
    }

    /// A row's values.
    pub(super) fn row(&self, row: Row) -> Result<Vec<f64>> {
        Ok(self.row_f32(row)?.into_iter().map(f64::from).collect())
    }

    /// As [`Operand::row`], where dimensions of 1 stand for any number of entries.
    pub(super) fn broadcast_row(&self, row: Row) -> Result<Vec<f64>> {
        self.row(std::array::from_fn(|i| if self.dims[i + 1] == 1 { 0 } else { row[i] }))
    }

    /// Element `i` of a row of an i32 tensor.
    pub(super) fn id(&self, i: usize, row: Row) -> Result<i32> {
        let bytes = self.block(i, row)?.try_into().map_err(|_| broken())?;
        Ok(i32::from_le_bytes(bytes))
    }

    /// A row of an i32 tensor.
    pub(super) fn ids(&self, row: Row) -> Result<Vec<i32>> {
        (0..self.dims[0]).map(|i| self.id(i, row)).collect()
    }
}
