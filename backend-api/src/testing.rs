//! Small graphs with memory, for unit tests of this crate.

use crate::{
    draft::Draft,
    error::Result,
    graph::{Node, Role, Step, Symbol, Tensor},
    reference,
    types::Type,
};

/// A draft and the memory of its buffers. Every tensor gets a buffer with eight bytes to spare on both sides.
pub(crate) struct Bench {
    pub(crate) draft: Draft,
    pub(crate) memory: Vec<Vec<u8>>,
}

const SPARE: u64 = 8;

/// What memory holds that nobody wrote: a NaN as f32, and a large negative id.
const GARBAGE: u8 = 0xFF;

fn four(dims: &[u32]) -> [u32; 4] {
    std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1))
}

impl Bench {
    pub(crate) fn new(tokens: u32, rows: u32) -> Bench {
        Bench {
            draft: Draft::new(tokens, rows),
            memory: Vec::new(),
        }
    }

    /// A contiguous tensor whose memory is garbage but for `bytes` at its start.
    pub(crate) fn bytes(&mut self, role: Role, ty: Type, dims: &[u32], bytes: &[u8]) -> u32 {
        let tensor = Tensor::contiguous(ty, four(dims), 0, SPARE).unwrap();
        let index = self.draft.place(role, tensor).unwrap();
        let Tensor { buffer, offset, .. } = self.draft.tensors[index as usize];
        let space = &mut self.draft.buffers[buffer as usize].bytes;
        *space += SPARE;
        let mut memory = vec![GARBAGE; *space as usize];
        memory[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.memory.push(memory);
        index
    }

    pub(crate) fn values(&mut self, dims: &[u32], values: &[f32]) -> u32 {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(Role::Activation, Type::F32, dims, &bytes)
    }

    pub(crate) fn weight(&mut self, dims: &[u32], values: &[f32]) -> u32 {
        let index = self.values(dims, values);
        self.set_role(index, Role::Weight);
        index
    }

    pub(crate) fn ids(&mut self, dims: &[u32], ids: &[i32]) -> u32 {
        let bytes: Vec<u8> = ids.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.bytes(Role::Activation, Type::I32, dims, &bytes)
    }

    /// A tensor of the program's own, not written yet.
    pub(crate) fn blank(&mut self, dims: &[u32]) -> u32 {
        self.values(dims, &[])
    }

    pub(crate) fn pool(&mut self, ty: Type, dims: &[u32], values: &[f32]) -> u32 {
        let mut bytes = vec![0; ty.row_bytes(values.len() as u64).unwrap() as usize];
        crate::encode::encode_row(ty, values, &mut bytes).unwrap();
        self.bytes(Role::Pool, ty, dims, &bytes)
    }

    pub(crate) fn set_role(&mut self, tensor: u32, role: Role) {
        let buffer = self.draft.tensors[tensor as usize].buffer;
        self.draft.buffers[buffer as usize].role = role as u32;
    }

    /// Another view over a tensor's buffer.
    pub(crate) fn view(&mut self, of: u32, change: impl FnOnce(&mut Tensor)) -> u32 {
        let mut tensor = self.draft.tensors[of as usize];
        change(&mut tensor);
        self.draft.tensor(tensor)
    }

    /// Entries `from..from + n` of dimension `dim` of an f32 or i32 tensor.
    pub(crate) fn slice(&mut self, of: u32, dim: usize, from: u32, n: u32) -> u32 {
        self.view(of, |t| {
            t.dims[dim] = n;
            t.offset += u64::from(from) * t.strides[dim] as u64;
        })
    }

    /// Makes the last dimensions of these tensors symbolic.
    pub(crate) fn tokens(&mut self, axes: &[(u32, u8)]) {
        for &(index, axis) in axes {
            let tensor = &mut self.draft.tensors[index as usize];
            *tensor = tensor.symbolic(Symbol::Tokens, axis);
        }
    }

    /// Evaluates a node at the largest step.
    pub(crate) fn run(&mut self, node: Node) -> Result<()> {
        self.step(node, self.draft.tokens, self.draft.rows)
    }

    /// Evaluates a node, and sees to it that nothing but the output's elements of this step changed.
    pub(crate) fn step(&mut self, node: Node, tokens: u32, rows: u32) -> Result<()> {
        let before = self.memory.clone();
        let step = Step {
            tokens,
            rows,
            ..Step::default()
        };
        let outcome = reference::evaluate(&self.draft.graph(), &node, &mut self.memory, &step);
        let output = self.draft.tensors[node.output as usize];
        let own = match outcome {
            Ok(()) => elements(&output, &step),
            Err(_) => Vec::new(),
        };
        for (buffer, (before, after)) in before.iter().zip(&self.memory).enumerate() {
            let changed = (0..before.len().max(after.len())).filter(|&i| before.get(i) != after.get(i));
            let width = output.kind().unwrap().block_bytes();
            let outside = |i: &usize| !own.iter().any(|e| (e..&(e + width)).contains(&i));
            let stray: Vec<usize> = changed
                .filter(|i| buffer != output.buffer as usize || outside(i))
                .collect();
            assert!(stray.is_empty(), "bytes {stray:?} of buffer {buffer} changed");
        }
        outcome
    }

    /// Elements of a tensor at the largest step, dimension 0 fastest.
    pub(crate) fn read(&self, tensor: u32) -> Vec<f32> {
        let view = self.draft.tensors[tensor as usize];
        self.raw(&view).map(f32::from_le_bytes).collect()
    }

    pub(crate) fn read_ids(&self, tensor: u32) -> Vec<i32> {
        let view = self.draft.tensors[tensor as usize];
        self.raw(&view).map(i32::from_le_bytes).collect()
    }

    fn raw(&self, view: &Tensor) -> impl Iterator<Item = [u8; 4]> {
        let memory = &self.memory[view.buffer as usize];
        let step = self.draft.graph().largest_step();
        elements(view, &step)
            .into_iter()
            .map(|e| memory[e..e + 4].try_into().unwrap())
    }
}

/// Where the elements (or blocks) of a step begin.
fn elements(view: &Tensor, step: &Step) -> Vec<usize> {
    let [n0, n1, n2, n3] = view.dims_in(step).map(u64::from);
    let n0 = n0.div_ceil(view.kind().unwrap().block_values() as u64);
    let at = |i: u64| [i % n0, i / n0 % n1, i / n0 / n1 % n2, i / n0 / n1 / n2];
    let offset = |index: [u64; 4]| index.iter().zip(view.strides).map(|(i, s)| i * s as u64).sum::<u64>();
    (0..n0 * n1 * n2 * n3)
        .map(|i| (view.offset + offset(at(i))) as usize)
        .collect()
}

/// Asserts that two lists are equal but for rounding to f32.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let close = (f64::from(*f) - e).abs() <= 1e-6 * e.abs().max(1e-3);
        assert!(close, "entry {i} is {f}, expected {e}: {found:?}");
    }
}
