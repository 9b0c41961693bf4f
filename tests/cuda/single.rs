//! A node in a graph of its own: evaluated on a device, and by the reference.

use backend_api::{
    abi_stable::std_types::RSlice,
    contract::Binding,
    draft::Draft,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::Operation,
    reference,
    types::Type,
};

use crate::device::Opened;

/// Numbers from about −2 to 2, drawn from a seed.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed * 0x9E37_79B9 + 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    pub fn values(&mut self, n: u32) -> Vec<f32> {
        let half = |n: u64| (n % 1001) as f32 / 500.0 - 1.0;
        (0..n).map(|_| half(self.next()) + half(self.next())).collect()
    }

    /// 0 to n − 1 in some order.
    pub fn shuffled(&mut self, n: u32) -> Vec<i32> {
        let mut all: Vec<i32> = (0..n as i32).collect();
        for i in (1..all.len()).rev() {
            all.swap(i, self.next() as usize % (i + 1));
        }
        all
    }
}

/// A node, and what its buffers hold: one for each tensor.
pub struct Single {
    pub draft: Draft,
    pub memory: Vec<Vec<u8>>,
    pub output: u32,
    pub step: Step,
}

impl Single {
    /// Nothing yet, for a step of so many columns.
    pub fn new(columns: u32, context: u32) -> Single {
        Single {
            draft: Draft::new(columns, 1),
            memory: Vec::new(),
            output: 0,
            step: Step {
                tokens: columns,
                context,
                ..Step::default()
            },
        }
    }

    /// Adds a tensor, whose dimension `columns` is T.
    pub fn place(&mut self, role: Role, ty: Type, dims: &[u32], columns: Option<u8>, bytes: Vec<u8>) -> u32 {
        let dims = std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1));
        let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
        let tensor = columns.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
        self.memory.push(bytes);
        self.draft.place(role, tensor).unwrap()
    }

    pub fn ids(&mut self, dims: &[u32], columns: Option<u8>, ids: &[i32]) -> u32 {
        let bytes = ids.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.place(Role::Input, Type::I32, dims, columns, bytes)
    }

    pub fn values(&mut self, role: Role, dims: &[u32], columns: Option<u8>, values: &[f32]) -> u32 {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.place(role, Type::F32, dims, columns, bytes)
    }

    /// Adds the output, which is garbage, and the node.
    pub fn node(&mut self, operation: Operation, inputs: &[u32], ty: Type, dims: &[u32], columns: u8) -> &mut Node {
        let garbage = vec![0xFF; 4 * dims.iter().product::<u32>() as usize];
        self.output = self.place(Role::Output, ty, dims, Some(columns), garbage);
        self.draft.nodes.push(Node::new(operation.id(), inputs, self.output));
        &mut self.draft.nodes[0]
    }

    /// What the output holds after a run on a device.
    pub fn on(&self, on: &Opened) -> Vec<u8> {
        let program = on.device.compile(&self.draft.graph()).into_result().unwrap();
        let workspace = on.device.needs(program).into_result().unwrap().workspace.max(1);
        let parts = self.draft.buffers.iter().zip(&self.draft.tensors).zip(&self.memory);
        let bindings = parts.map(|((buffer, tensor), memory)| on.fill(buffer.role, tensor, memory));
        let bindings: Vec<Binding> = bindings.collect();
        let scratch = Binding {
            buffer: on.hold(workspace),
            offset: 0,
            bytes: workspace,
        };
        let ran = on
            .device
            .run(on.queue, program, RSlice::from_slice(&bindings), scratch, self.step);
        ran.into_result().unwrap();
        let output = self.output as usize;
        let found = on.read(bindings[output].buffer, self.memory[output].len());
        on.device.free_program(program).into_result().unwrap();
        for binding in bindings.iter().chain([&scratch]) {
            on.device.free(binding.buffer).into_result().unwrap();
        }
        found
    }

    /// What the output holds by the reference.
    pub fn expected(&self) -> Vec<u8> {
        let mut memory = self.memory.clone();
        reference::run(&self.draft.graph(), &mut memory, &self.step).unwrap();
        memory.swap_remove(self.output as usize)
    }

    /// The error on a device against the reference, as the accuracy classes count it.
    pub fn error(&self, on: &Opened) -> f64 {
        let (found, expected) = (values_of(&self.on(on)), values_of(&self.expected()));
        let squares = |difference: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| difference(i).powi(2)).sum::<f64>();
        squares(&|i| found[i] - expected[i]) / squares(&|i| expected[i])
    }
}

fn values_of(bytes: &[u8]) -> Vec<f64> {
    let words = bytes.as_chunks().0.iter();
    words.map(|word| f32::from_le_bytes(*word).into()).collect()
}
