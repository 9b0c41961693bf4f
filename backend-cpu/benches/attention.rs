//! Throughput of `attention` by page type and instruction set: `cargo bench -p backend-cpu --bench attention`.
//!
//! `decode` is one column at depth 4096, in bytes of the cache a second; the layers of a program together are more than
//! caches hold. `prefill` is 512 columns at depth 4096, in items of one multiplication and addition (twice as many
//! operations). Heads are those of qwen2 1.5B: 12 of 128 values, 2 of keys and values. One thread works, so that sets
//! compare; `decode_with_all` has all threads.

mod common;

use backend_api::{
    contract::{Binding, ProgramId, QueueId},
    draft::Draft,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::{Operation, word},
    plugin::Device,
    types::Type,
};
use backend_cpu::{device::CpuDevice, kernel_set::Kernels};
use common::{cases, chosen, services};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};

const HEAD: u32 = 128;
const HEADS: u32 = 12;
const KV_HEADS: u32 = 2;
const PAGE: u32 = 64;
const DEPTH: u32 = 4096;
const COLUMNS: u32 = 512;
const PAGES: u32 = (DEPTH + COLUMNS) / PAGE;
/// Layers of a decoding step.
const LAYERS: u32 = 20;

const TYPES: [Type; 4] = [Type::F32, Type::F16, Type::Q8_0, Type::Q4_0];

/// A program of as many attentions as there are layers, ready to run.
struct Ready {
    device: CpuDevice,
    queue: QueueId,
    program: ProgramId,
    bindings: Vec<Binding>,
    workspace: Binding,
    columns: u32,
}

impl Ready {
    fn new(kernels: Kernels, ty: Type, layers: u32, columns: u32, threads: usize) -> Ready {
        let mut draft = Draft::new(columns, 1);
        let mut place = |role, ty, dims: [u32; 4], axis: Option<u8>| {
            let tensor = Tensor::contiguous(ty, dims, 0, 0).expect("sizes are small");
            let tensor = axis.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
            draft.place(role, tensor).expect("sizes are small")
        };
        let q = place(Role::Input, Type::F32, [HEAD, HEADS, columns, 1], Some(2));
        let positions = place(Role::Input, Type::I32, [columns, 1, 1, 1], Some(0));
        let starts = place(Role::Input, Type::I32, [2, 1, 1, 1], None);
        let table = place(Role::Input, Type::I32, [PAGES, 1, 1, 1], None);
        let y = place(Role::Output, Type::F32, [HEAD, HEADS, columns, 1], Some(2));
        let mut nodes = Vec::new();
        for _ in 0..layers {
            let [k, v] = [(); 2].map(|()| place(Role::Pool, ty, [HEAD, PAGE, KV_HEADS, PAGES], None));
            let node = Node::new(Operation::Attention.id(), &[q, k, v, positions, starts, table], y);
            nodes.push(node.with_f32(word::attention::SCALE, 0.1));
        }
        draft.nodes = nodes;
        let device = CpuDevice::new(services(), kernels, threads).expect("a device");
        let queue = device.create_queue().expect("a queue");
        let program = device.compile(&draft.graph()).expect("a program");
        let bind = |bytes: u64, byte: u8| {
            let buffer = device.allocate(bytes).expect("memory");
            device
                .write(queue, buffer, 0, &vec![byte; bytes as usize])
                .expect("a write");
            Binding {
                buffer,
                offset: 0,
                bytes,
            }
        };
        let ready = Ready {
            queue,
            program,
            // Bytes with which scales and f16 are ordinary numbers.
            bindings: draft.buffers.iter().map(|b| bind(b.bytes, 0x34)).collect(),
            workspace: bind(device.needs(program).expect("needs").workspace.max(64), 0),
            device,
            columns,
        };
        let write = |tensor: u32, values: &mut dyn Iterator<Item = u32>| {
            let bytes: Vec<u8> = values.flat_map(u32::to_le_bytes).collect();
            let buffer = ready.bindings[draft.tensors[tensor as usize].buffer as usize].buffer;
            ready.device.write(queue, buffer, 0, &bytes).expect("a write");
        };
        write(positions, &mut (DEPTH - 1..DEPTH - 1 + columns));
        write(starts, &mut [0, columns].into_iter());
        write(table, &mut (0..PAGES));
        ready
    }

    fn run(&self) {
        let step = Step {
            tokens: self.columns,
            context: DEPTH - 1 + self.columns,
            ..Step::default()
        };
        self.device
            .run(self.queue, self.program, &self.bindings, self.workspace, step)
            .expect("a run");
    }
}

fn ready(case: &str, layers: u32, columns: u32, threads: usize) -> (Ready, Type) {
    let (ty, kernels) = chosen(case);
    (Ready::new(kernels, ty, layers, columns, threads), ty)
}

fn bench_decode(bencher: Bencher<'_, '_>, case: &str, threads: usize) {
    let (ready, ty) = ready(case, LAYERS, 1, threads);
    let row = ty.row_bytes(HEAD.into()).expect("whole blocks");
    let bytes = row * u64::from(2 * KV_HEADS * DEPTH * LAYERS);
    bencher.counter(BytesCount::new(bytes)).bench(|| ready.run());
}

#[divan::bench(args = cases(&TYPES), sample_count = 20)]
fn decode(bencher: Bencher<'_, '_>, case: &str) {
    bench_decode(bencher, case, 1);
}

#[divan::bench(args = cases(&TYPES), sample_count = 20)]
fn decode_with_all(bencher: Bencher<'_, '_>, case: &str) {
    bench_decode(bencher, case, 0);
}

#[divan::bench(args = cases(&TYPES), sample_count = 4)]
fn prefill(bencher: Bencher<'_, '_>, case: &str) {
    let (ready, _) = ready(case, 1, COLUMNS, 1);
    let seen = u64::from(COLUMNS) * u64::from(DEPTH + COLUMNS / 2);
    let items = seen * u64::from(2 * HEAD * HEADS);
    bencher.counter(ItemsCount::new(items)).bench(|| ready.run());
}

fn main() {
    divan::main();
}
