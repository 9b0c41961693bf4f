//! The operations that we serve: which, and how.

use backend_api::{
    BackendError, Result,
    contract::Binding,
    graph::{Graph, Node, Step, Tensor},
    operations::{Gate, Operation, word},
    types::Type,
    validate,
};

use crate::memory::{Memory, Operand, Row};

/// Whether we serve a node; the reasons are for people, who find them in the host's report.
///
/// `validate::node` comes first. What it lets through is a node as the contract has it: indices, types, dimensions,
/// strides and parameters are sound, views lie inside their buffers, and what follows need not look at any of that again.
pub fn check(graph: &Graph<'_>, node: &Node) -> Result<()> {
    let operation = validate::node(graph, node)?;
    let tensors = || {
        node.inputs
            .iter()
            .chain([&node.output])
            .filter_map(|&t| graph.tensor(t))
    };
    let all = |condition: fn(&Tensor) -> bool| tensors().all(condition);
    let serve_if = |condition: bool, otherwise: &str| match condition {
        true => Ok(()),
        false => Err(BackendError::unsupported(otherwise)),
    };
    match operation {
        Operation::RmsNorm => Ok(()),
        Operation::Product => {
            let served = |t: &Tensor| matches!(t.kind(), Some(Type::F32 | Type::Q8_0));
            serve_if(all(served), "weights are served in F32 and Q8_0 alone")
        }
        // Of any view, and to other types too: who serves `copy` serves it whole, for the host relies on it.
        Operation::Copy => serve_if(all(|t| t.kind() != Some(Type::I32)), "numbers are copied, ids are not"),
        // These two run over memory from end to end. Of a view with gaps the host makes a copy, since we serve `copy`.
        Operation::Add | Operation::Mul if !all(Tensor::is_contiguous) => {
            serve_if(false, "views with gaps are not served")
        }
        Operation::Add | Operation::Mul => {
            let dims: Vec<[u32; 4]> = tensors().map(|t| t.dims).collect();
            let served = dims[1] == dims[0] || dims[1][1..] == [1; 3];
            serve_if(served, "b must be as large as a, or one row of it")
        }
        Operation::Gated => serve_if(gate(node).is_some(), "only silu and gelu_tanh are served"),
        other => serve_if(
            false,
            &format!("{} is not among the seven operations of this backend", other.name()),
        ),
    }
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

/// y(m, t) = Σ W(k, m)·x(k, t), summed in f64. Each row of W is decoded once for all columns. A column's sum must not
/// depend on how many columns there are: so the same tokens come of any batch.
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
