//! A case: a graph, what its buffers hold, the steps to run, and how exact the outputs must be.

use super::{
    image::{Content, bytes_of_f32, bytes_of_i32},
    random::{Random, seed_of},
};
use crate::{
    draft::Draft,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::Operation,
    types::Type,
};

/// How an output is compared with the reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Accuracy {
    /// Class X: equal bits.
    Exact,
    /// The normalized mean squared error is at most this.
    Within(f64),
    /// The cells of a cache: their type's rule, and no other cell changed.
    Stored,
    /// Indices into columns of this tensor: equal, but for the order of entries that are NaN.
    Indices(u32),
}

/// Class E.
pub(super) const E: f64 = 1e-10;
/// Class H.
pub(super) const H: f64 = 2e-5;
/// Class Q.
pub(super) const Q: f64 = 1e-4;

/// A step and what its inputs hold where that depends on the step.
#[derive(Clone)]
pub(super) struct Moment {
    pub step: Step,
    pub contents: Vec<Content>,
}

/// How the columns of a case may be rearranged.
#[derive(Clone, Default)]
pub(super) struct Columns {
    /// The tensor of sequences' starts, and the sequence of each column.
    pub starts: Option<(u32, Vec<u32>)>,
    /// The position of each column, where it matters.
    pub positions: Vec<u32>,
}

pub(super) struct Case {
    pub operation: Operation,
    pub ty: Type,
    pub label: String,
    pub draft: Draft,
    /// For each buffer of role weight: the tensor as it lies in the file.
    pub wholes: Vec<Option<Tensor>>,
    pub contents: Vec<Content>,
    pub outputs: Vec<(u32, Accuracy)>,
    pub moments: Vec<Moment>,
    /// Present where the columns' independence is tested, at the first moment.
    pub columns: Option<Columns>,
    /// Whether it may not be refused by who serves the plain case.
    pub obligatory: bool,
}

impl Case {
    /// Tensor `index`.
    pub fn tensor(&self, index: u32) -> &Tensor {
        &self.draft.tensors[index as usize]
    }

    /// What holds at a moment: the moment's own contents in place of the general ones.
    pub fn contents_at<'a>(&'a self, moment: &'a Moment) -> impl Iterator<Item = &'a Content> {
        let replaced = |c: &&Content| !moment.contents.iter().any(|own| own.tensor == c.tensor);
        self.contents.iter().filter(replaced).chain(&moment.contents)
    }

    /// Whether buffer `i` holds a weight.
    pub fn is_weight(&self, i: usize) -> bool {
        self.wholes[i].is_some()
    }
}

/// How a tensor lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Contiguous, at the buffer's start.
    Plain,
    /// Dense along dim 0, gaps between all rows and planes.
    Gaps,
    /// Dense along dim 0, dims 1 and 2 lie the other way round, with gaps.
    Swapped,
    /// Gaps between the elements too.
    Skips,
}

/// How the operands of a case lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variant {
    /// Said in the case's label; empty for the plain one.
    pub name: &'static str,
    pub inputs: Layout,
    pub output: Layout,
    pub in_place: bool,
}

const fn variant(name: &'static str, inputs: Layout, output: Layout, in_place: bool) -> Variant {
    Variant {
        name,
        inputs,
        output,
        in_place,
    }
}

pub(super) const PLAIN: Variant = variant("", Layout::Plain, Layout::Plain, false);
pub(super) const IN_PLACE: Variant = variant("in place", Layout::Plain, Layout::Plain, true);
/// Views of operands, alone and together.
pub(super) const VIEWS: [Variant; 4] = [
    variant("strided inputs", Layout::Gaps, Layout::Plain, false),
    variant("strided output", Layout::Plain, Layout::Gaps, false),
    variant("all strided", Layout::Gaps, Layout::Gaps, false),
    variant("dims swapped", Layout::Swapped, Layout::Swapped, false),
];
/// Views that input and output share.
pub(super) const IN_PLACE_VIEWS: [Variant; 2] = [
    variant("in place strided", Layout::Gaps, Layout::Gaps, true),
    variant("in place dims swapped", Layout::Swapped, Layout::Swapped, true),
];

/// Dims and which of them is symbolic.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub dims: [u32; 4],
    symbol: Symbol,
    axis: u8,
}

fn shape(dims: &[u32], symbol: Symbol) -> Shape {
    let mut all = [1; 4];
    all[..dims.len()].copy_from_slice(dims);
    Shape {
        dims: all,
        symbol,
        axis: dims.len().saturating_sub(1) as u8,
    }
}

/// Dims that no step changes.
pub(super) fn fixed(dims: &[u32]) -> Shape {
    Shape {
        axis: 0,
        ..shape(dims, Symbol::None)
    }
}

/// Dims of which the last is T.
pub(super) fn tokens(dims: &[u32]) -> Shape {
    shape(dims, Symbol::Tokens)
}

/// Dims of which the last is R.
pub(super) fn wanted(dims: &[u32]) -> Shape {
    shape(dims, Symbol::Rows)
}

impl Shape {
    pub fn values(&self) -> usize {
        self.dims.iter().map(|&d| d as usize).product()
    }
}

/// Builds a case.
pub(super) struct Builder {
    pub random: Random,
    pub variant: Variant,
    case: Case,
    steps: Option<Vec<u32>>,
}

impl Builder {
    pub fn new(seed: u64, operation: Operation, ty: Type, label: &str, variant: Variant) -> Builder {
        let label = [operation.name(), ty.name(), label, variant.name].join(" ");
        let label = label.trim_end().to_string();
        Builder {
            random: Random::new(seed_of(seed, &label)),
            variant,
            steps: None,
            case: Case {
                operation,
                ty,
                label,
                draft: Draft::new(1, 1),
                wholes: Vec::new(),
                contents: Vec::new(),
                outputs: Vec::new(),
                moments: Vec::new(),
                columns: None,
                obligatory: false,
            },
        }
    }

    /// The type that the case is about.
    pub fn ty(&self) -> Type {
        self.case.ty
    }

    /// Adds to the label what tells the case from others of its sizes.
    pub fn relabel(&mut self, more: &str) {
        self.case.label = format!("{} {more}", self.case.label);
        self.random = Random::new(seed_of(self.random.next(), more));
    }

    /// Dims of an operand that is 1 where it is repeated along `dims`; T is the last of them unless it is 1.
    pub fn broadcast(&self, dims: &[u32], operand: &[u32]) -> Shape {
        match dims.last() == operand.last() {
            true => tokens(operand),
            false => fixed(operand),
        }
    }

    /// A buffer with one tensor in it.
    pub fn tensor(&mut self, role: Role, ty: Type, shape: Shape, layout: Layout) -> u32 {
        let mut tensor = lay(ty, shape.dims, layout).symbolic(shape.symbol, shape.axis);
        let tail = if layout == Layout::Plain {
            0
        } else {
            2 * ty.block_bytes() as u64
        };
        tensor.buffer = self.buffer(role, tensor.offset + tensor.extent().unwrap_or(0) + tail, None);
        let most = shape.dims[usize::from(shape.axis)];
        match shape.symbol {
            Symbol::None => {}
            Symbol::Tokens => self.case.draft.tokens = most,
            Symbol::Rows => self.case.draft.rows = most,
        }
        self.case.draft.tensor(tensor)
    }

    fn buffer(&mut self, role: Role, bytes: u64, whole: Option<Tensor>) -> u32 {
        self.case.wholes.push(whole);
        self.case.draft.buffer(role, bytes)
    }

    /// Says what a tensor holds.
    pub fn fill(&mut self, tensor: u32, bytes: Vec<u8>) {
        self.case.contents.push(Content::new(tensor, bytes));
    }

    /// Says what some rows of a tensor hold; the others are garbage.
    pub fn fill_rows(&mut self, tensor: u32, bytes: Vec<u8>, rows: Vec<bool>) {
        self.case.contents.push(Content { tensor, bytes, rows });
    }

    /// An activation of unit normals.
    pub fn input(&mut self, shape: Shape) -> u32 {
        let values = self.random.normals(shape.values());
        self.input_of(shape, &values)
    }

    /// An activation of these values.
    pub fn input_of(&mut self, shape: Shape, values: &[f32]) -> u32 {
        self.input_as(shape, values, self.variant.inputs)
    }

    /// An activation that lies so.
    pub fn input_as(&mut self, shape: Shape, values: &[f32], layout: Layout) -> u32 {
        let tensor = self.tensor(Role::Input, Type::F32, shape, layout);
        self.fill(tensor, bytes_of_f32(values));
        tensor
    }

    /// A step input of numbers.
    pub fn numbers(&mut self, shape: Shape, values: &[i32]) -> u32 {
        let tensor = self.tensor(Role::Input, Type::I32, shape, Layout::Plain);
        self.fill(tensor, bytes_of_i32(values));
        tensor
    }

    /// A weight; where inputs are views, every second row of a larger one.
    pub fn weight(&mut self, ty: Type, dims: &[u32]) -> u32 {
        let dims = fixed(dims).dims;
        let view = self.variant.inputs != Layout::Plain;
        let mut whole = dims;
        if view {
            whole[1] *= 2;
        }
        let file = lay(ty, whole, Layout::Plain);
        let mut tensor = Tensor {
            dims,
            buffer: self.buffer(Role::Weight, file.extent().unwrap_or(0), Some(file)),
            ..file
        };
        if view {
            tensor.offset = file.strides[1] as u64;
            tensor.strides[1] *= 2;
        }
        let tensor = self.case.draft.tensor(tensor);
        let bytes = self.random.values(ty, dims.iter().map(|&d| d as usize).product());
        self.fill(tensor, bytes);
        tensor
    }

    /// A weight vector of f32: of a norm, a bias.
    pub fn vector(&mut self, n: u32) -> u32 {
        let plain = Variant {
            inputs: Layout::Plain,
            ..self.variant
        };
        let variant = std::mem::replace(&mut self.variant, plain);
        let tensor = self.weight(Type::F32, &[n]);
        self.variant = variant;
        tensor
    }

    /// Numbers that the model computed.
    pub fn constant(&mut self, values: &[f32]) -> u32 {
        let tensor = self.tensor(Role::Constant, Type::F32, fixed(&[values.len() as u32]), Layout::Plain);
        self.fill(tensor, bytes_of_f32(values));
        tensor
    }

    /// Where the result of f32 values goes: over `input` in the variants in place.
    pub fn result(&mut self, input: u32, shape: Shape) -> u32 {
        if !self.variant.in_place {
            return self.output(shape);
        }
        let same = self.case.draft.tensors[input as usize];
        self.case.draft.buffers[same.buffer as usize].role = Role::Output as u32;
        self.case.draft.tensor(same)
    }

    /// A program output of f32.
    pub fn output(&mut self, shape: Shape) -> u32 {
        self.output_of(Type::F32, shape)
    }

    /// A program output.
    pub fn output_of(&mut self, ty: Type, shape: Shape) -> u32 {
        self.tensor(Role::Output, ty, shape, self.variant.output)
    }

    /// A node of the case's operation.
    pub fn node(&mut self, inputs: &[u32], output: u32, params: &[u32]) {
        self.other_node(self.case.operation, inputs, output, params);
    }

    /// A node of any operation.
    pub fn other_node(&mut self, operation: Operation, inputs: &[u32], output: u32, params: &[u32]) {
        let mut node = Node::new(operation.id(), inputs, output);
        node.params[..params.len()].copy_from_slice(params);
        self.case.draft.nodes.push(node);
    }

    /// An output that is compared.
    pub fn check(&mut self, output: u32, accuracy: Accuracy) {
        self.case.outputs.push((output, accuracy));
    }

    /// Runs these T′ (R′ alike, at most R) in place of T, about half of it, and 0.
    pub fn steps(&mut self, tokens: &[u32]) {
        self.steps = Some(tokens.to_vec());
    }

    /// Adds a step with its own contents.
    pub fn moment(&mut self, step: Step, contents: Vec<Content>) {
        self.case.moments.push(Moment { step, contents });
    }

    /// Tests that columns are independent of each other.
    pub fn independent(&mut self, columns: Columns) {
        self.case.columns = Some(columns);
    }

    /// Demands it of who serves the plain case.
    pub fn obligatory(&mut self) {
        self.case.obligatory = true;
    }

    pub fn finish(mut self) -> Case {
        self.case.draft.tokens = self.case.draft.tokens.max(self.case.draft.rows);
        if self.case.moments.is_empty() {
            self.case.moments = self.plain_moments();
        }
        self.case
    }

    fn plain_moments(&self) -> Vec<Moment> {
        let (tokens, rows) = (self.case.draft.tokens, self.case.draft.rows);
        let symbolic = self.case.draft.tensors.iter().any(|t| t.symbol != 0);
        let most = tokens.max(rows);
        let all = match &self.steps {
            Some(steps) => steps.clone(),
            None if !symbolic => vec![most],
            None if most == 1 => vec![1, 0],
            None => vec![most, most.div_ceil(2), 0],
        };
        let moment = |&n: &u32| Moment {
            step: Step {
                tokens: n.min(tokens),
                rows: n.min(rows),
                context: 1,
                reserved: 0,
            },
            contents: Vec::new(),
        };
        all.iter().map(moment).collect()
    }
}

/// A tensor of buffer 0 that lies so. Strides of dims of 1 are ignored: in views they hold nonsense.
fn lay(ty: Type, dims: [u32; 4], layout: Layout) -> Tensor {
    let block = ty.block_bytes() as i64;
    let blocks = i64::from(dims[0]).div_euclid(ty.block_values() as i64).max(1);
    let [_, d1, d2, _] = dims.map(i64::from);
    let row = blocks * block;
    let mut strides = match layout {
        Layout::Plain => [block, row, row * d1, row * d1 * d2],
        Layout::Gaps => stacked(block, row + 3 * block, d1, d2, block),
        Layout::Skips => stacked(2 * block, 2 * row + block, d1, d2, block),
        Layout::Swapped => {
            let inner = row + block;
            [block, inner * d2 + block, inner, (inner * d2 + block) * d1]
        }
    };
    if layout != Layout::Plain {
        (0..4).filter(|&i| dims[i] <= 1).for_each(|i| strides[i] = 0x5eed);
    }
    if dims[0] <= ty.block_values() as u32 && layout != Layout::Skips {
        strides[0] = block;
    }
    Tensor {
        ty: ty.id(),
        symbol: 0,
        axis: 0,
        reserved: 0,
        dims,
        strides,
        buffer: 0,
        reserved2: 0,
        offset: if layout == Layout::Plain { 0 } else { block as u64 },
    }
}

/// Strides of planes over rows with a gap after each plane.
fn stacked(element: i64, row: i64, d1: i64, d2: i64, gap: i64) -> [i64; 4] {
    let plane = row * d1 + 2 * gap;
    [element, row, plane, plane * d2 + gap]
}
