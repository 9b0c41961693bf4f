//! The operations that we serve: which, and how.

use backend_api::{
    BackendError, Result,
    contract::Binding,
    decode::decode_row,
    encode::encode_row,
    graph::{Graph, Node, Step, Tensor},
    operations::{Gate, Operation, word},
    types::Type,
    validate,
};

use crate::memory::Memory;

/// Whether we serve a node; the reasons are for people, who find them in the host's report.
///
/// `validate::node` comes first. What it lets through is a node as the contract has it: indices, types, dimensions,
/// strides and parameters are sound, views lie inside their buffers, and what follows need not look at any of that again.
pub fn check(graph: &Graph<'_>, node: &Node) -> Result<Operation> {
    let operation = validate::node(graph, node)?;
    let tensors = || {
        node.inputs
            .iter()
            .chain([&node.output])
            .filter_map(|&t| graph.tensor(t))
    };
    let all = |condition: fn(&Tensor) -> bool| tensors().all(condition);
    let shape = |input: usize| node.input(input).and_then(|t| graph.tensor(t)).map(|t| t.dims);
    let refusal = match operation {
        Operation::RmsNorm => None,
        Operation::Product => {
            let served = |t: &Tensor| matches!(t.kind(), Some(Type::F32 | Type::Q8_0));
            (!all(served)).then(|| "weights are served in F32 and Q8_0 alone".into())
        }
        Operation::Copy => {
            let served = |t: &Tensor| t.kind() == Some(Type::F32);
            (!all(served)).then(|| "F32 is copied to F32 and nothing else".into())
        }
        // These two run over memory from end to end. Of a view with gaps the host makes a copy, since we serve `copy`.
        Operation::Add | Operation::Mul => {
            let one_row = shape(1).is_some_and(|[_, rest @ ..]| rest == [1; 3]);
            match all(Tensor::is_contiguous) {
                false => Some("views with gaps are not served".into()),
                true if one_row || shape(1) == shape(0) => None,
                true => Some("b is as large as a, or one row of it".into()),
            }
        }
        Operation::Gated => {
            let known = gate(node).is_some();
            (!known).then(|| "only silu and gelu_tanh are served".into())
        }
        other => Some(format!(
            "{} is not among the seven operations of this backend",
            other.name()
        )),
    };
    refusal.map_or(Ok(operation), |reason: String| Err(BackendError::unsupported(reason)))
}

type Activation = fn(f32) -> f32;

/// The function of a `gated` node, if we have it.
fn gate(node: &Node) -> Option<Activation> {
    match Gate::from_word(node.params[word::gated::KIND])? {
        Gate::Silu => Some(|g| g / (1.0 + (-g).exp())),
        Gate::GeluTanh => Some(|g| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
            0.5 * g * (1.0 + inner.tanh())
        }),
        Gate::SwigluOai => None,
    }
}

/// A node in a step, with the memory that the host bound to the graph's buffers.
pub struct Call<'a> {
    pub memory: &'a Memory,
    pub bindings: &'a [Binding],
    pub graph: Graph<'a>,
    pub node: &'a Node,
    pub step: Step,
}

impl Call<'_> {
    /// Computes the output from the inputs: of this step's columns, and nothing beside.
    pub fn evaluate(&self) -> Result<()> {
        let y = self.operand(self.node.output)?;
        // A step without wanted columns is usual: its nodes over R do nothing.
        if y.dims.contains(&0) {
            return Ok(());
        }
        match Operation::from_id(self.node.operation) {
            Some(Operation::Product) => product(&self.input(0)?, &self.input(1)?, &y),
            Some(Operation::RmsNorm) => self.rms_norm(&y),
            Some(Operation::Copy) => by_row(&y, |row| self.input(0)?.read(row)),
            Some(Operation::Add) => {
                let [alpha, beta] = [word::add::ALPHA, word::add::BETA].map(|i| self.node.f32(i));
                self.elementwise(&y, |a, b| alpha * (a + beta * b))
            }
            Some(Operation::Mul) => self.elementwise(&y, |a, b| a * b),
            Some(Operation::Gated) => self.gated(&y),
            _ => Err(BackendError::unsupported("the program was not checked")),
        }
    }

    fn rms_norm(&self, y: &Operand<'_>) -> Result<()> {
        let x = self.input(0)?;
        let weights = self.node.input(1).map(|_| self.input(1)?.read([0; 3])).transpose()?;
        let epsilon = f64::from(self.node.f32(word::rms_norm::EPSILON));
        by_row(y, |row| {
            let mut values = x.read(row)?;
            let mean = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
            let scale = (1.0 / (mean + epsilon).sqrt()) as f32;
            values.iter_mut().for_each(|v| *v *= scale);
            let pairs = values.iter_mut().zip(weights.iter().flatten());
            pairs.for_each(|(v, w)| *v *= w);
            Ok(values)
        })
    }

    /// f(a, b), where b may be one row for all of a's.
    fn elementwise(&self, y: &Operand<'_>, f: impl Fn(f32, f32) -> f32) -> Result<()> {
        let (a, b) = (self.input(0)?.flat(), self.input(1)?.flat());
        by_row(&y.flat(), |row| {
            let (a, b) = (a.read(row)?, b.read(row)?);
            Ok(a.iter().zip(b.iter().cycle()).map(|(&a, &b)| f(a, b)).collect())
        })
    }

    fn gated(&self, y: &Operand<'_>) -> Result<()> {
        let gate = gate(self.node).ok_or_else(|| BackendError::unsupported("the program was not checked"))?;
        let (g, u) = (self.input(0)?, self.input(1)?);
        by_row(y, |row| {
            let (g, u) = (g.read(row)?, u.read(row)?);
            Ok(g.iter().zip(u).map(|(&g, u)| gate(g) * u).collect())
        })
    }

    fn input(&self, i: usize) -> Result<Operand<'_>> {
        self.operand(self.node.inputs[i])
    }

    fn operand(&self, tensor: u32) -> Result<Operand<'_>> {
        let missing = || BackendError::invalid(format!("the program has no tensor {tensor}"));
        let tensor = self.graph.tensor(tensor).ok_or_else(missing)?;
        Ok(Operand {
            memory: self.memory,
            binding: *self.bindings.get(tensor.buffer as usize).ok_or_else(missing)?,
            tensor: *tensor,
            ty: tensor.kind().ok_or_else(missing)?,
            dims: tensor.dims_in(&self.step).map(|d| d as usize),
        })
    }
}

/// Writes each row of y after `row` has computed it. An output may stand in the place of an input: all that a row needs
/// is read before it is written.
fn by_row(y: &Operand<'_>, row: impl Fn(Row) -> Result<Vec<f32>>) -> Result<()> {
    y.rows().try_for_each(|at| y.write(at, &row(at)?))
}

/// y(m, t) = Σ W(k, m)·x(k, t). Each row of W is decoded once for all columns. A column's sum never depends on how many
/// columns there are: the same tokens come of any batch.
fn product(x: &Operand<'_>, w: &Operand<'_>, y: &Operand<'_>) -> Result<()> {
    let columns = y.rows().map(|t| x.read(t)).collect::<Result<Vec<_>>>()?;
    let mut sums = vec![Vec::new(); columns.len()];
    for m in w.rows() {
        let weights = w.read(m)?;
        for (x, sums) in columns.iter().zip(&mut sums) {
            let terms = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            sums.push(terms.sum::<f64>() as f32);
        }
    }
    y.rows().zip(sums).try_for_each(|(t, sums)| y.write(t, &sums))
}

/// Indices of dimensions 1 to 3: they name a row, which is all of dimension 0.
type Row = [usize; 3];

/// A tensor and the memory that it lies in.
#[derive(Clone, Copy)]
struct Operand<'a> {
    memory: &'a Memory,
    binding: Binding,
    tensor: Tensor,
    ty: Type,
    /// The dimensions in this step: the tensor's own hold the maximum.
    dims: [usize; 4],
}

impl Operand<'_> {
    fn rows(&self) -> impl Iterator<Item = Row> + use<> {
        let [_, n1, n2, n3] = self.dims;
        (0..n1 * n2 * n3).map(move |i| [i % n1, i / n1 % n2, i / n1 / n2])
    }

    /// A contiguous tensor as one long row. The stride of a dimension of 1 may be anything, so it is set anew.
    fn flat(&self) -> Self {
        let mut flat = *self;
        flat.dims = [self.dims.iter().product(), 1, 1, 1];
        flat.tensor.strides[0] = self.ty.block_bytes() as i64;
        flat
    }

    /// Where a row begins in the buffer that is bound. Tensors are views: only strides tell where things lie.
    fn start(&self, row: Row) -> u64 {
        let along = row.iter().zip(&self.tensor.strides[1..]);
        let along = along.map(|(&i, &stride)| if i > 0 { i as u64 * stride as u64 } else { 0 });
        self.binding.offset + self.tensor.offset + along.sum::<u64>()
    }

    /// The values of a row. Blocks (single values, where the type has none) may lie apart: `copy` takes such views.
    fn read(&self, row: Row) -> Result<Vec<f32>> {
        let (length, bytes) = (self.ty.block_values(), self.ty.block_bytes());
        let last = self.dims[0] / length - 1;
        let stride = if last > 0 { self.tensor.strides[0] as usize } else { 0 };
        let mut raw = vec![0; last * stride + bytes];
        self.memory.read(self.binding.buffer, self.start(row), &mut raw)?;
        let mut values = vec![0.0; self.dims[0]];
        for (i, block) in values.chunks_exact_mut(length).enumerate() {
            decode_row(self.ty, &raw[i * stride..][..bytes], block)?;
        }
        Ok(values)
    }

    /// Puts the values of a row in their places; those of an output lie side by side.
    fn write(&self, row: Row, values: &[f32]) -> Result<()> {
        let mut raw = vec![0; values.len() * self.ty.block_bytes()];
        encode_row(self.ty, values, &mut raw)?;
        self.memory.write(self.binding.buffer, self.start(row), &raw)
    }
}
