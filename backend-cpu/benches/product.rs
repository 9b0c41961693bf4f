//! Throughput of `product`, in bytes of weights a second, by type and instruction set: `cargo bench -p backend-cpu`.
//!
//! `decode` has one column, `prefill` 64; K and M are 2048, but in `decode_from_memory`, whose weights no cache holds.
//! All bytes are 0x3c, with which scales are ordinary numbers in every type. One thread works, so that sets compare. What
//! a kernel could reach at most is in `read` and `read_from_memory`: a loop that does nothing but read as many bytes as
//! Q8_0 has.
//!
//! One type, or one set: `cargo bench -p backend-cpu --bench product -- 'decode .*Q4_0|read'`.

mod common;

use backend_api::{
    contract::{Binding, ProgramId, QueueId},
    draft::Draft,
    graph::{Node, Role, Step, Tensor},
    operations::Operation,
    plugin::Device,
    types::Type,
};
use backend_cpu::{device::CpuDevice, kernel_set::Kernels};
use common::{cases, chosen, services};
use divan::{Bencher, counter::BytesCount};

const K: u32 = 2048;
const M: u32 = 2048;
/// Rows that no cache holds.
const MANY: u32 = 65536;

/// A product that is ready to run.
struct Ready {
    device: CpuDevice,
    queue: QueueId,
    program: ProgramId,
    bindings: Vec<Binding>,
    workspace: Binding,
}

impl Ready {
    fn new(kernels: Kernels, ty: Type, rows: u32, columns: u32) -> Ready {
        let mut draft = Draft::new(columns, 1);
        let tensors = [
            (Role::Input, Type::F32, [K, columns, 1, 1]),
            (Role::Weight, ty, [K, rows, 1, 1]),
            (Role::Output, Type::F32, [rows, columns, 1, 1]),
        ];
        for (role, ty, dims) in tensors {
            let tensor = Tensor::contiguous(ty, dims, 0, 0).expect("sizes are small");
            draft.place(role, tensor).expect("sizes are small");
        }
        draft.nodes.push(Node::new(Operation::Product.id(), &[0, 1], 2));
        let device = CpuDevice::new(services(), kernels, 1).expect("a device");
        let queue = device.create_queue().expect("a queue");
        let program = device.compile(&draft.graph()).expect("a program");
        let bind = |bytes: u64| {
            let buffer = device.allocate(bytes).expect("memory");
            let offset = 0;
            device
                .write(queue, buffer, 0, &vec![0x3c; bytes as usize])
                .expect("a write");
            Binding { buffer, offset, bytes }
        };
        Ready {
            queue,
            program,
            bindings: draft.buffers.iter().map(|b| bind(b.bytes)).collect(),
            workspace: bind(device.needs(program).expect("needs").workspace.max(64)),
            device,
        }
    }

    fn run(&self, columns: u32) {
        let step = Step {
            tokens: columns,
            ..Step::default()
        };
        let Ready {
            queue,
            program,
            workspace,
            ..
        } = *self;
        self.device
            .run(queue, program, &self.bindings, workspace, step)
            .expect("a run");
    }
}

fn bench(bencher: Bencher<'_, '_>, case: &str, rows: u32, columns: u32) {
    let (ty, kernels) = chosen(case);
    let ready = Ready::new(kernels, ty, rows, columns);
    let bytes = ty.row_bytes(K.into()).expect("whole blocks") * u64::from(rows);
    bencher.counter(BytesCount::new(bytes)).bench(|| ready.run(columns));
}

#[divan::bench(args = cases(Type::WEIGHTS))]
fn decode(bencher: Bencher<'_, '_>, case: &str) {
    bench(bencher, case, M, 1);
}

#[divan::bench(args = cases(Type::WEIGHTS), sample_count = 20)]
fn decode_from_memory(bencher: Bencher<'_, '_>, case: &str) {
    bench(bencher, case, MANY, 1);
}

#[divan::bench(args = cases(Type::WEIGHTS), sample_count = 10)]
fn prefill(bencher: Bencher<'_, '_>, case: &str) {
    bench(bencher, case, M, 64);
}

/// Touches all bytes with as little arithmetic as there can be.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 32];
    for chunk in bytes.as_chunks::<256>().0 {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}

fn bench_read(bencher: Bencher<'_, '_>, rows: u32) {
    let bytes = Type::Q8_0.row_bytes(K.into()).expect("whole blocks") * u64::from(rows);
    let memory = vec![0x3c; bytes as usize];
    bencher
        .counter(BytesCount::new(bytes))
        .bench(|| sum(std::hint::black_box(&memory)));
}

#[divan::bench]
fn read(bencher: Bencher<'_, '_>) {
    bench_read(bencher, M);
}

#[divan::bench(sample_count = 20)]
fn read_from_memory(bencher: Bencher<'_, '_>) {
    bench_read(bencher, MANY);
}

fn main() {
    divan::main();
}
