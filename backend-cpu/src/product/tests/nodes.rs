//! Whole nodes on the device against the reference: experts, gates, biases, residuals, strides and steps.

use backend_api::{
    contract::{Binding, HostServices},
    draft::Draft,
    graph::{ABSENT, Node, Role, Step, Symbol, Tensor},
    operations::{
        Gate,
        Operation::{self, *},
        word::gated_product as word,
    },
    plugin::Device,
    reference,
    types::Type,
};

use super::{Random, nmse};
use crate::{
    device::CpuDevice,
    kernel_set::{KernelSet, Kernels, Tiles},
    product::panel::BLOCK_COLUMNS,
};

/// Columns of the largest step of most trials.
const T: u32 = 9;

/// What the output's bytes are before a run.
const SENTINEL: u8 = 0xA7;

extern "C" fn ignore(
    _: u32,
    _: backend_api::abi_stable::std_types::RStr<'_>,
    _: backend_api::abi_stable::std_types::RStr<'_>,
) {
}

fn device(kernels: Kernels, threads: usize) -> CpuDevice {
    let services = HostServices {
        log: ignore,
        level: 0,
        reserved: 0,
        reserved2: [0; 6],
    };
    CpuDevice::new(services, kernels, threads).unwrap()
}

/// A graph of one node with the contents of its buffers.
struct Trial {
    /// Columns of the largest step.
    columns: u32,
    draft: Draft,
    random: Random,
    buffers: Vec<Vec<u8>>,
}

impl Trial {
    fn new() -> Trial {
        Trial::of(T)
    }

    fn of(columns: u32) -> Trial {
        Trial {
            columns,
            draft: Draft::new(columns, 1),
            random: Random(7),
            buffers: Vec::new(),
        }
    }

    /// A tensor with `gap` bytes after each of its rows, `lead` before it, in a buffer of its own.
    fn tensor(&mut self, role: Role, ty: Type, dims: [u32; 3], gap: u32, lead: u64) -> u32 {
        let [a, b, c] = dims;
        let mut tensor = Tensor::contiguous(ty, [a, b, c, 1], 0, lead).unwrap();
        tensor.strides[1] += i64::from(gap);
        tensor.strides[2] = tensor.strides[1] * i64::from(b);
        if role != Role::Weight {
            tensor = tensor.symbolic(Symbol::Tokens, if c == self.columns { 2 } else { 1 });
        }
        let index = self.draft.place(role, tensor).unwrap();
        let buffer = self.draft.tensors[index as usize].buffer as usize;
        self.buffers
            .push(vec![SENTINEL; self.draft.buffers[buffer].bytes as usize]);
        index
    }

    /// x, r: f32 values whose rows lie 12 bytes apart.
    fn values(&mut self, dims: [u32; 3]) -> u32 {
        let index = self.tensor(Role::Input, Type::F32, dims, 12, 4);
        let buffer = self.buffers.last_mut().unwrap();
        let (values, _) = buffer.as_chunks_mut::<4>();
        values.iter_mut().for_each(|v| *v = self.random.normal().to_le_bytes());
        index
    }

    /// Every second row of a matrix at an odd address.
    fn weights(&mut self, ty: Type, dims: [u32; 3]) -> u32 {
        let row = ty.row_bytes(dims[0].into()).unwrap() as u32;
        let index = self.tensor(Role::Weight, ty, dims, row, 3);
        let buffer = self.buffers.last_mut().unwrap();
        let data = self
            .random
            .weights(ty, dims[0] as usize, 2 * (dims[1] * dims[2]) as usize);
        let length = buffer.len() - 3;
        buffer[3..].copy_from_slice(&data[..length]);
        index
    }

    /// Every second value of a buffer, at an odd address.
    fn bias(&mut self, rows: u32, experts: u32) -> u32 {
        let mut tensor = Tensor::contiguous(Type::F32, [2 * rows, experts, 1, 1], 0, 1).unwrap();
        (tensor.dims[0], tensor.strides[0]) = (rows, 8);
        let index = self.draft.place(Role::Weight, tensor).unwrap();
        let buffer = self.draft.tensors[index as usize].buffer as usize;
        let mut data = vec![0];
        let bytes = self.draft.buffers[buffer].bytes as usize;
        data.extend(self.random.normals(bytes / 4 + 1).iter().flat_map(|v| v.to_le_bytes()));
        data.truncate(bytes);
        self.buffers.push(data);
        index
    }

    /// Ids of `experts` experts, and some out of range.
    fn ids(&mut self, k: u32, experts: u32) -> u32 {
        let index = self.tensor(Role::Input, Type::I32, [k, self.columns, 1], 0, 0);
        let buffer = self.buffers.last_mut().unwrap();
        for id in buffer.as_chunks_mut::<4>().0 {
            let value = (self.random.next() % u64::from(experts + 2)) as i32 - 1;
            *id = if value < 0 { i32::MIN } else { value }.to_le_bytes();
        }
        index
    }

    fn output(&mut self, dims: [u32; 3]) -> u32 {
        self.tensor(Role::Output, Type::F32, dims, 20, 8)
    }

    fn node(&mut self, operation: Operation, inputs: &[u32], output: u32, precision: u32) {
        self.draft.nodes = vec![Node::new(operation.id(), inputs, output).with(0, precision)];
    }

    fn gate(&mut self, kind: Gate) {
        let node = self.draft.nodes[0].with(word::KIND, kind as u32);
        self.draft.nodes[0] = node.with_f32(word::ALPHA, 1.702).with_f32(word::LIMIT, 7.0);
    }

    /// The buffers after a run on the device, whose workspace is followed by sentinels.
    fn run(&self, device: &CpuDevice, step: Step) -> Vec<Vec<u8>> {
        let queue = device.create_queue().unwrap();
        let bind = |data: &[u8]| {
            let (buffer, bytes) = (device.allocate(data.len() as u64).unwrap(), data.len() as u64);
            device.write(queue, buffer, 0, data).unwrap();
            let offset = 0;
            Binding { buffer, offset, bytes }
        };
        let program = device.compile(&self.draft.graph()).unwrap();
        let needed = device.needs(program).unwrap().workspace;
        let bindings: Vec<Binding> = self.buffers.iter().map(|b| bind(b)).collect();
        let scratch = bind(&vec![SENTINEL; needed as usize + 64]);
        device
            .run(
                queue,
                program,
                &bindings,
                Binding {
                    bytes: needed,
                    ..scratch
                },
                step,
            )
            .unwrap();
        let read = |binding: &Binding| {
            let mut data = vec![0; binding.bytes as usize];
            device.read(queue, binding.buffer, 0, &mut data).unwrap();
            data
        };
        assert!(
            read(&scratch)[needed as usize..].iter().all(|&b| b == SENTINEL),
            "past the workspace"
        );
        bindings.iter().map(read).collect()
    }

    /// The output's values in a step, and the buffer with these set back to sentinels.
    fn values_of(&self, buffers: &[Vec<u8>], step: &Step) -> (Vec<f32>, Vec<u8>) {
        let output = self.draft.tensors[self.draft.nodes[0].output as usize];
        let mut buffer = buffers[output.buffer as usize].clone();
        let [a, b, c, _] = output.dims_in(step).map(|d| d as usize);
        let mut values = Vec::new();
        for (i, j) in (0..c).flat_map(|j| (0..b).map(move |i| (i, j))) {
            let at = output.offset as usize + i * output.strides[1] as usize + j * output.strides[2] as usize;
            for value in buffer[at..at + 4 * a].as_chunks_mut::<4>().0 {
                values.push(f32::from_le_bytes(*value));
                *value = [SENTINEL; 4];
            }
        }
        (values, buffer)
    }

    /// Compares every set with the reference, in steps of all and of fewer columns, and threads with each other.
    fn check(&self, bound: f64) {
        let in_place = self.draft.nodes[0].inputs.contains(&self.draft.nodes[0].output);
        for tokens in [self.columns, 6, 1, 0] {
            let step = Step {
                tokens,
                ..Step::default()
            };
            let mut expected = self.buffers.clone();
            reference::run(&self.draft.graph(), &mut expected, &step).unwrap();
            let (expected, _) = self.values_of(&expected, &step);
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            for kernels in sets() {
                let [one, three] = [1, 3].map(|threads| self.run(&device(kernels, threads), step));
                let (values, rest) = self.values_of(&one, &step);
                assert!(one == three, "threads change the result");
                assert!(
                    in_place || rest.iter().all(|&b| b == SENTINEL),
                    "written past the output"
                );
                // Few values, or almost nothing but zeros, make a mean of chance.
                let bound = if tokens < 6 { 10.0 * bound } else { bound };
                let operation = Operation::from_id(self.draft.nodes[0].operation).unwrap();
                let error = if expected.iter().all(|&e| e == 0.0) {
                    0.0
                } else {
                    nmse(&values, &expected)
                };
                assert!(error <= bound, "{} T={tokens} {kernels}: {error:e}", operation.name());
            }
        }
    }
}

/// The sets that this machine has, and tiles in plain Rust.
fn sets() -> impl Iterator<Item = Kernels> {
    let forced = KernelSet::ALL.into_iter().filter_map(|set| Kernels::forced(set).ok());
    let best = Kernels::best();
    forced.chain(best.with_amx()).chain([best.with_emulated_tiles()])
}

const Q: f64 = 1e-4;
const E: f64 = 1e-10;

#[test]
fn a_product_of_every_type_and_precision() {
    for &ty in Type::WEIGHTS {
        for (precision, bound) in [(0, if ty.is_quantized() { Q } else { E }), (1, E)] {
            let mut trial = Trial::new();
            let inputs = [trial.values([512, T, 1]), trial.weights(ty, [512, 67, 1])];
            let output = trial.output([67, T, 1]);
            trial.node(Product, &inputs, output, precision);
            trial.check(bound);
        }
    }
}

#[test]
fn large_products_are_divided_among_threads() {
    let mut trial = Trial::new();
    let inputs = [trial.values([2048, T, 1]), trial.weights(Type::Q4_K, [2048, 403, 1])];
    let output = trial.output([403, T, 1]);
    trial.node(Product, &inputs, output, 0);
    trial.check(Q);
}

#[test]
fn steps_of_more_columns_than_share_a_panel_are_divided() {
    // one column, and a few, are left over
    for columns in [BLOCK_COLUMNS as u32 + 1, BLOCK_COLUMNS as u32 + 8] {
        for ty in [Type::Q8_0, Type::Q4_K, Type::IQ4_XS] {
            let mut trial = Trial::of(columns);
            let x = trial.values([256, columns, 1]);
            let [g, u] = [ty, Type::Q6_K].map(|ty| trial.weights(ty, [256, 35, 1]));
            let output = trial.output([35, columns, 1]);
            trial.node(Product, &[x, g], output, 0);
            trial.check(Q);
            let output = trial.output([35, columns, 1]);
            trial.node(GatedProduct, &[x, g, u], output, 0);
            trial.gate(Gate::Silu);
            trial.check(4.0 * Q);
        }
    }
}

#[test]
fn a_bias_and_a_residual_in_place_are_added() {
    for (bias, residual, in_place) in [
        (true, false, false),
        (false, true, true),
        (true, true, true),
        (true, true, false),
    ] {
        let mut trial = Trial::new();
        let (x, w) = (trial.values([256, T, 1]), trial.weights(Type::Q6_K, [256, 45, 1]));
        let b = if bias { trial.bias(45, 1) } else { ABSENT };
        let r = trial.values([45, T, 1]);
        let output = trial.output([45, T, 1]);
        if in_place {
            let buffer = trial.draft.tensors[r as usize].buffer as usize;
            trial.draft.buffers[buffer].role = Role::Activation as u32;
        }
        let output = if in_place { r } else { output };
        trial.node(ProductAdd, &[x, w, b, if residual { r } else { ABSENT }], output, 0);
        trial.check(Q);
    }
}

#[test]
fn products_take_weights_of_different_types_and_sizes() {
    let mut trial = Trial::new();
    let x = trial.values([256, T, 1]);
    let [a, b, c, d] = [(Type::Q4_K, 40), (Type::F16, 17), (Type::Q8_0, 3), (Type::F32, 64)]
        .map(|(ty, rows)| trial.weights(ty, [256, rows, 1]));
    let [first, third] = [trial.bias(40, 1), trial.bias(3, 1)];
    let output = trial.output([124, T, 1]);
    trial.node(Products, &[x, a, first, b, ABSENT, c, third, d, ABSENT], output, 0);
    trial.check(Q);
    let output = trial.output([57, T, 1]);
    trial.node(Products, &[x, a, first, b], output, 1);
    trial.check(E);
}

#[test]
fn gates_of_every_kind_combine_two_products() {
    for kind in [Gate::Silu, Gate::GeluTanh, Gate::SwigluOai] {
        for (precision, bound) in [(0, 4.0 * Q), (1, E)] {
            let mut trial = Trial::new();
            let x = trial.values([64, T, 1]);
            let [g, u] = [Type::Q5_1, Type::MXFP4].map(|ty| trial.weights(ty, [64, 70, 1]));
            let inputs = [x, g, u, trial.bias(70, 1), trial.bias(70, 1)];
            let output = trial.output([70, T, 1]);
            trial.node(GatedProduct, &inputs, output, precision);
            trial.gate(kind);
            trial.check(bound);
        }
    }
}

#[test]
fn experts_are_chosen_by_ids_and_those_out_of_range_give_zeros() {
    for shared in [true, false] {
        let mut trial = Trial::new();
        let x = trial.values([96, if shared { 1 } else { 4 }, T]);
        let (w, ids) = (trial.weights(Type::Q4_0, [96, 43, 5]), trial.ids(4, 5));
        let output = trial.output([43, 4, T]);
        trial.node(ExpertProduct, &[x, w, ids], output, 0);
        trial.check(Q);
        let b = trial.bias(43, 5);
        let output = trial.output([43, 4, T]);
        trial.node(ExpertProductAdd, &[x, w, ids, b], output, 0);
        trial.check(Q);
    }
}

#[test]
fn gated_experts_share_columns_and_order() {
    for biased in [true, false] {
        let mut trial = Trial::new();
        let x = trial.values([96, 1, T]);
        let [g, u] = [Type::MXFP4, Type::IQ4_NL].map(|ty| trial.weights(ty, [96, 30, 6]));
        let ids = trial.ids(3, 6);
        let [bg, bu] = if biased {
            [trial.bias(30, 6), trial.bias(30, 6)]
        } else {
            [ABSENT; 2]
        };
        let output = trial.output([30, 3, T]);
        trial.node(GatedExpertProduct, &[x, g, u, ids, bg, bu], output, 0);
        trial.gate(Gate::SwigluOai);
        trial.check(4.0 * Q);
    }
}

#[test]
fn the_fastest_kernel_is_reached() {
    let mut trial = Trial::new();
    let inputs = [trial.values([256, T, 1]), trial.weights(Type::Q8_0, [256, 16, 1])];
    let output = trial.output([16, T, 1]);
    for set in KernelSet::ALL.into_iter().filter(|s| s.is_available()) {
        let kernels = Kernels::forced(set).unwrap();
        for kernels in [kernels, kernels.without_vnni()] {
            let device = device(kernels, 1);
            for precision in [0, 1] {
                trial.node(Product, &inputs, output, precision);
                trial.run(
                    &device,
                    Step {
                        tokens: 2,
                        ..Step::default()
                    },
                );
            }
            let called = |name: String| {
                device
                    .counters()
                    .unwrap()
                    .iter()
                    .any(|c| c.name == name && c.value == 1)
            };
            let vnni = if kernels.vnni() { "vnni" } else { "" };
            // AVX-VNNI has nothing for floats
            let exact = if set == KernelSet::AvxVnni {
                KernelSet::Avx2
            } else {
                set
            };
            assert!(called(format!("kernel.product.q8_0.{}{vnni}", set.name())), "{kernels}");
            assert!(
                called(format!("kernel.product.q8_0.exact.{}", exact.name())),
                "{kernels}"
            );
        }
    }
}

#[test]
fn the_fastest_kernel_for_many_columns_is_reached() {
    let mut trial = Trial::of(9);
    let inputs = [trial.values([256, 9, 1]), trial.weights(Type::Q8_0, [256, 16, 1])];
    let output = trial.output([16, 9, 1]);
    let step = Step {
        tokens: 9,
        ..Step::default()
    };
    for kernels in sets().filter(|kernels| kernels.set() != KernelSet::Scalar) {
        for kernels in [kernels, kernels.without_vnni()] {
            let device = device(kernels, 1);
            for precision in [0, 1] {
                trial.node(Product, &inputs, output, precision);
                trial.run(&device, step);
            }
            let plain = if kernels.vnni() {
                "avx512vnni"
            } else {
                kernels.set().name()
            };
            let quantized = match kernels.tiles() {
                None => plain,
                Some(Tiles::Instructions) => "amx",
                Some(Tiles::Emulated) => "amx-emulated",
            };
            let counters = device.counters().unwrap();
            let mut names: Vec<_> = counters
                .iter()
                .filter(|c| c.name.starts_with("kernel."))
                .map(|c| &*c.name)
                .collect();
            names.sort_unstable();
            let floats = if kernels.set() == KernelSet::AvxVnni {
                KernelSet::Avx2
            } else {
                kernels.set()
            };
            let exact = format!("kernel.product.q8_0.exact.panel.{}", floats.name());
            assert_eq!(names, [exact, format!("kernel.product.q8_0.panel.{quantized}")]);
        }
    }
    let best = Kernels::best();
    assert_eq!(
        best.tiles().is_some(),
        best.with_amx().is_some(),
        "AMX is used where it is"
    );
}

#[test]
fn plain_weights_take_panels_too() {
    for ty in [Type::F32, Type::F16, Type::BF16] {
        for columns in [9, 30] {
            let mut trial = Trial::of(columns);
            let inputs = [trial.values([300, columns, 1]), trial.weights(ty, [300, 67, 1])];
            let output = trial.output([67, columns, 1]);
            trial.node(Product, &inputs, output, 0);
            trial.check(E);
        }
    }
}
