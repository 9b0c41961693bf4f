//! Nothing is read past the end of what is bound: every input ends where its memory does.
//!
//! Each case runs with its inputs in memory that is followed by a page that cannot be read, and again in the device's
//! own; both give the same bytes.

mod common;

use backend_api::{
    contract::{Binding, BufferId},
    draft::Draft,
    error::Code,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::{Operation, word},
    plugin::{Device, guard},
    types::Type,
};
use backend_cpu::{
    device::CpuDevice,
    kernel_set::{KernelSet, Kernels},
};

use common::SERVICES;

const PAGE: usize = 4096;

/// Malformed graphs that are tried.
const ROUNDS: usize = 20_000;

/// Memory whose last byte lies before a page that faults.
struct Edge {
    mapping: *mut libc::c_void,
    length: usize,
    bytes: usize,
}

impl Edge {
    fn of(bytes: &[u8]) -> Edge {
        let room = bytes.len().next_multiple_of(PAGE);
        let length = room + PAGE;
        // SAFETY: a new mapping of `length` bytes, whose last page alone becomes unreadable; the copy ends before it.
        unsafe {
            let mapping = libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(mapping, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(mapping.byte_add(room), PAGE, libc::PROT_NONE), 0);
            let start = mapping.byte_add(room - bytes.len()).cast::<u8>();
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Edge {
                mapping,
                length,
                bytes: bytes.len(),
            }
        }
    }

    fn slice(&self) -> &[u8] {
        // SAFETY: the bytes before the last page, which were written.
        unsafe {
            let start = self.mapping.byte_add(self.length - PAGE - self.bytes);
            std::slice::from_raw_parts(start.cast(), self.bytes)
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and the device that used it is gone.
        unsafe { libc::munmap(self.mapping, self.length) };
    }
}

/// Numbers that look random, the same in every run (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 24
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// A graph with the contents of its buffers; the last one is the output.
struct Case {
    draft: Draft,
    contents: Vec<Vec<u8>>,
}

impl Case {
    fn new(tokens: u32) -> Case {
        Case {
            draft: Draft::new(tokens, 1),
            contents: Vec::new(),
        }
    }

    /// A contiguous tensor of moderate numbers, whatever its type, at the end of a buffer of its own.
    fn tensor(&mut self, role: Role, ty: Type, dims: &[u32], axis: Option<u8>) -> u32 {
        let dims = std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1));
        let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
        let tensor = axis.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
        let index = self.draft.place(role, tensor).unwrap();
        let bytes = self.draft.buffers.last().unwrap().bytes;
        let mut random = Random(bytes.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        self.contents
            .push((0..bytes).map(|_| random.next() as u8 & 0x3f).collect());
        index
    }

    fn ids(&mut self, dims: &[u32], axis: Option<u8>, ids: &[i32]) -> u32 {
        let index = self.tensor(Role::Input, Type::I32, dims, axis);
        *self.contents.last_mut().unwrap() = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        index
    }

    /// Adds the node: the output is the last tensor.
    fn node(&mut self, operation: Operation, inputs: &[u32], output: u32) -> &mut Node {
        self.draft.nodes.push(Node::new(operation.id(), inputs, output));
        self.draft.nodes.last_mut().unwrap()
    }

    /// The output of a run whose inputs `place` puts into buffers of the device.
    fn run(&self, device: &CpuDevice, place: impl Fn(&[u8]) -> BufferId) -> Vec<u8> {
        let program = device.compile(&self.draft.graph()).unwrap();
        let queue = device.create_queue().unwrap();
        let workspace = device.needs(program).unwrap().workspace;
        let bind = |buffer, bytes| Binding {
            buffer,
            offset: 0,
            bytes,
        };
        let (output, inputs) = self.contents.split_last().unwrap();
        let size = output.len() as u64;
        let output = bind(device.allocate(size).unwrap(), size);
        let bindings: Vec<Binding> = inputs
            .iter()
            .map(|c| bind(place(c), c.len() as u64))
            .chain([output])
            .collect();
        let scratch = bind(device.allocate(workspace).unwrap(), workspace);
        let step = Step {
            tokens: self.draft.tokens,
            rows: 1,
            context: self.draft.tokens,
            reserved: 0,
        };
        device.run(queue, program, &bindings, scratch, step).unwrap();
        let mut bytes = vec![0; size as usize];
        device.read(queue, output.buffer, 0, &mut bytes).unwrap();
        bytes
    }

    /// Runs it at the edge, under every set of kernels, and compares with a run elsewhere.
    fn check(&self) {
        let edges: Vec<Edge> = self.contents.iter().map(|c| Edge::of(c)).collect();
        for kernels in every_set() {
            let device = CpuDevice::new(SERVICES, kernels, 2).unwrap();
            let at_edge = self.run(&device, |contents| {
                let edge = edges.iter().find(|e| e.slice() == contents).unwrap();
                // SAFETY: the edges outlive the device, and nobody writes them.
                unsafe { device.import(edge.slice()) }.unwrap()
            });
            let elsewhere = self.run(&device, |contents| {
                let buffer = device.allocate(contents.len() as u64).unwrap();
                device
                    .write(device.create_queue().unwrap(), buffer, 0, contents)
                    .unwrap();
                buffer
            });
            assert!(at_edge == elsewhere, "{kernels}: {:?}", self.draft.nodes);
            assert!(at_edge.iter().any(|&b| b != 0), "{kernels}: {:?}", self.draft.nodes);
        }
    }
}

fn every_set() -> Vec<Kernels> {
    let here = KernelSet::ALL.into_iter().filter(|set| set.is_available());
    let forced = here.map(|set| Kernels::forced(set).unwrap());
    let mut all: Vec<Kernels> = forced.flat_map(|k| [k, k.without_vnni()]).collect();
    all.dedup();
    all
}

/// Values of a row: one block, and with plain types what fills no register too.
fn row_lengths(ty: Type) -> Vec<u32> {
    match ty.block_values() as u32 {
        1 => vec![1, 4, 19, 275],
        block => vec![block, 288u32.next_multiple_of(block)],
    }
}

#[test]
fn products_stop_at_the_end_of_their_weights_and_columns() {
    for &ty in Type::WEIGHTS {
        for k in row_lengths(ty) {
            for (rows, tokens, precision) in [(1, 1, 0), (3, 1, 1), (9, 2, 0), (8, 5, 1), (17, 33, 0), (17, 33, 1)] {
                let mut case = Case::new(tokens);
                let x = case.tensor(Role::Input, Type::F32, &[k, tokens], Some(1));
                let w = case.tensor(Role::Weight, ty, &[k, rows], None);
                let b = case.tensor(Role::Weight, Type::F32, &[rows], None);
                let y = case.tensor(Role::Output, Type::F32, &[rows, tokens], Some(1));
                let node = case.node(Operation::Products, &[x, w, b], y);
                node.params[word::product::PRECISION] = precision;
                case.check();
            }
        }
    }
}

#[test]
fn experts_stop_at_the_end_whatever_their_ids() {
    for &ty in Type::WEIGHTS {
        let k = *row_lengths(ty).last().unwrap();
        let mut case = Case::new(3);
        let x = case.tensor(Role::Input, Type::F32, &[k, 1, 3], Some(2));
        let w = case.tensor(Role::Weight, ty, &[k, 5, 4], None);
        let ids = case.ids(&[2, 3], Some(1), &[3, -1, i32::MIN, 4, i32::MAX, 3]);
        let b = case.tensor(Role::Weight, Type::F32, &[5, 4], None);
        let y = case.tensor(Role::Output, Type::F32, &[5, 2, 3], Some(2));
        case.node(Operation::ExpertProductAdd, &[x, w, ids, b], y);
        case.check();
    }
}

#[test]
fn rows_stop_at_the_end_of_the_table_whatever_the_ids() {
    for &ty in Type::WEIGHTS {
        for d in row_lengths(ty) {
            let mut case = Case::new(5);
            let table = case.tensor(Role::Weight, ty, &[d, 3], None);
            let ids = case.ids(&[5], Some(0), &[2, -1, i32::MIN, 3, i32::MAX]);
            let y = case.tensor(Role::Output, Type::F32, &[d, 5], Some(1));
            let node = case.node(Operation::Rows, &[table, ids], y);
            *node = node.with_f32(word::rows::SCALE, 1.0);
            case.check();
        }
    }
}

/// Attention of `positions`, each of a sequence of its own, over a pool whose last page comes last.
fn attention(ty: Type, positions: &[i32]) -> Case {
    attention_over(24, ty, positions)
}

/// The same over so many pages of 16 positions.
fn attention_over(pages: u32, ty: Type, positions: &[i32]) -> Case {
    const WIDTH: u32 = 32;
    let columns = positions.len() as u32;
    let mut case = Case::new(columns);
    let q = case.tensor(Role::Input, Type::F32, &[WIDTH, 2, columns], Some(2));
    let k = case.tensor(Role::Pool, ty, &[WIDTH, 16, 1, pages], None);
    let v = case.tensor(Role::Pool, ty, &[WIDTH, 16, 1, pages], None);
    let positions = case.ids(&[columns], Some(0), positions);
    let starts: Vec<i32> = (0..=columns as i32).collect();
    let starts = case.ids(&[columns + 1], None, &starts);
    let entries: Vec<i32> = (0..columns).flat_map(|_| 0..pages as i32).collect();
    let table = case.ids(&[pages, columns], None, &entries);
    let sinks = case.tensor(Role::Weight, Type::F32, &[2], None);
    let y = case.tensor(Role::Output, Type::F32, &[WIDTH, 2, columns], Some(2));
    let node = case.node(Operation::Attention, &[q, k, v, positions, starts, table, sinks], y);
    *node = node.with_f32(word::attention::SCALE, 0.125);
    case
}

#[test]
fn attention_stops_at_the_end_of_the_cache() {
    for ty in Type::CACHE {
        attention(ty, &[383]).check();
        attention(ty, &[383, 0, 200, 382, 17, 15, 16, 1, 255]).check();
    }
}

/// As `contents` lie, on a device of these kernels.
fn run_on(kernels: Kernels, case: &Case) -> Vec<u8> {
    let device = CpuDevice::new(SERVICES, kernels, 2).unwrap();
    case.run(&device, |contents| {
        let buffer = device.allocate(contents.len() as u64).unwrap();
        let queue = device.create_queue().unwrap();
        device.write(queue, buffer, 0, contents).unwrap();
        buffer
    })
}

/// All but the first position weigh e^−12 of it: beside it too little to count, and yet the whole answer, since what is summed
/// together with it, 64 positions, has values of 0, as has what lies beyond its part.
#[test]
fn positions_below_a_high_score_are_not_rounded_away() {
    for ty in [Type::Q8_0, Type::Q4_0] {
        let mut case = attention_over(128, ty, &[2047]);
        case.draft.nodes[0] = case.draft.nodes[0].with_f32(word::attention::SCALE, 1.0);
        let block = case.contents[1].len() / 2048;
        let [key, value] = [1, 2].map(|pool: usize| case.contents[pool].clone());
        for cell in 0..2048 {
            let at = cell * block..(cell + 1) * block;
            let (k, v) = (&mut case.contents[1][at.clone()], &key[at.clone()]);
            k.copy_from_slice(v);
            // a scale of 1, and codes of 0 but for one of 12, or 7
            k[..2].copy_from_slice(&0x3c00u16.to_le_bytes());
            let none = if ty == Type::Q8_0 { 0 } else { 0x88 };
            k[2..].fill(none);
            if cell == 0 {
                k[2] = if ty == Type::Q8_0 { 12 } else { 0x8f };
            }
            let v = &mut case.contents[2][at.clone()];
            v.copy_from_slice(&value[at]);
            v[..2].copy_from_slice(&if !(64..128).contains(&cell) {
                [0, 0]
            } else {
                0x3c00u16.to_le_bytes()
            });
        }
        let ones = [1.0f32; 64].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        case.contents[0] = ones;
        let none = [f32::NEG_INFINITY; 2].iter().flat_map(|x| x.to_le_bytes());
        case.contents[6] = none.collect();
        let numbers =
            |bytes: Vec<u8>| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect() };
        let exact = numbers(run_on(Kernels::forced(KernelSet::Scalar).unwrap(), &case));
        let power: f32 = exact.iter().map(|x| x * x).sum();
        assert!(power > 0.0, "{exact:?}");
        for kernels in every_set() {
            let found = numbers(run_on(kernels, &case));
            let error: f32 = found.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum();
            assert!(error <= 1e-4 * power, "{ty} {kernels}: {error} of {power}");
        }
    }
}

#[test]
fn positions_past_the_table_count_as_its_last() {
    let device = CpuDevice::new(SERVICES, Kernels::best(), 2).unwrap();
    let run = |positions: &[i32], window: u32| {
        let mut case = attention(Type::F16, positions);
        let node = &mut case.draft.nodes[0];
        node.params[word::attention::WINDOW_KIND] = 1;
        node.params[word::attention::WINDOW] = window;
        case.run(&device, |contents| {
            let buffer = device.allocate(contents.len() as u64).unwrap();
            device
                .write(device.create_queue().unwrap(), buffer, 0, contents)
                .unwrap();
            buffer
        })
    };
    for window in [1, 100, 1 << 20] {
        assert!(run(&[3, 1 << 23], window) == run(&[3, 383], window));
    }
}

#[test]
fn what_is_written_is_bound_once() {
    let device = CpuDevice::new(SERVICES, Kernels::best(), 2).unwrap();
    let mut case = Case::new(1);
    let x = case.tensor(Role::Input, Type::F32, &[64, 1], Some(1));
    let w = case.tensor(Role::Weight, Type::Q8_0, &[64, 16], None);
    let y = case.tensor(Role::Output, Type::F32, &[16, 1], Some(1));
    case.node(Operation::Product, &[x, w], y);
    let program = device.compile(&case.draft.graph()).unwrap();
    let queue = device.create_queue().unwrap();
    let needed = device.needs(program).unwrap().workspace;
    let buffer = device.allocate(1 << 16).unwrap();
    let run = |offsets: [u64; 3], scratch: u64| {
        let at = |offset, bytes| Binding { buffer, offset, bytes };
        let bindings: Vec<Binding> = offsets
            .into_iter()
            .zip(&case.draft.buffers)
            .map(|(offset, b)| at(offset, b.bytes))
            .collect();
        let step = Step {
            tokens: 1,
            rows: 1,
            ..Step::default()
        };
        device.run(queue, program, &bindings, at(scratch, needed), step)
    };
    assert!(run([0, 4096, 8192], 16384).is_ok());
    assert!(run([0, 4096, 256], 16384).is_ok(), "side by side");
    for (offsets, scratch) in [
        ([0, 4096, 252], 16384),
        ([0, 4096, 4096], 16384),
        ([0, 4096, 8192], 8192),
        ([0, 4096, 8192], 4096),
    ] {
        assert_eq!(
            run(offsets, scratch).unwrap_err().code(),
            Code::Invalid,
            "{offsets:?} {scratch}"
        );
    }
}

/// Graphs of the operations that compute addresses from data or strides.
fn graphs() -> [Case; 4] {
    let mut product = Case::new(3);
    let x = product.tensor(Role::Input, Type::F32, &[64, 2, 3], Some(2));
    let w = product.tensor(Role::Weight, Type::Q8_0, &[64, 9, 4], None);
    let ids = product.tensor(Role::Input, Type::I32, &[2, 3], Some(1));
    let b = product.tensor(Role::Constant, Type::F32, &[9], None);
    let y = product.tensor(Role::Activation, Type::F32, &[9, 2, 3], Some(2));
    let z = product.tensor(Role::Output, Type::F16, &[9, 2, 3], Some(2));
    product.node(Operation::ExpertProduct, &[x, w, ids], y);
    product.node(Operation::Add, &[y, b], y);
    product.node(Operation::Copy, &[y], z);
    let mut cache = Case::new(3);
    let table = cache.tensor(Role::Weight, Type::Q4_0, &[32, 5], None);
    let tokens = cache.tensor(Role::Input, Type::I32, &[3], Some(0));
    let x = cache.tensor(Role::Activation, Type::F32, &[32, 3], Some(1));
    let heads = Tensor {
        buffer: cache.draft.tensors[x as usize].buffer,
        ..Tensor::contiguous(Type::F32, [32, 1, 3, 1], 0, 0).unwrap()
    };
    let heads = cache.draft.tensor(heads.symbolic(Symbol::Tokens, 2));
    let freq = cache.tensor(Role::Constant, Type::F32, &[16], None);
    let pool = cache.tensor(Role::Pool, Type::Q8_0, &[32, 16, 1, 2], None);
    let norm = cache.tensor(Role::Weight, Type::F32, &[32], None);
    cache.node(Operation::Rows, &[table, tokens], x);
    cache.node(Operation::RmsNorm, &[x, norm], x);
    cache.node(Operation::Rope, &[heads, tokens, freq], heads);
    cache.node(Operation::CacheStore, &[heads, tokens], pool);
    let mut router = Case::new(3);
    let x = router.tensor(Role::Input, Type::F32, &[9, 3], Some(1));
    let ids = router.tensor(Role::Activation, Type::I32, &[2, 3], Some(1));
    let y = router.tensor(Role::Output, Type::F32, &[2, 3], Some(1));
    router.node(Operation::TopK, &[x], ids);
    router.node(Operation::Pick, &[x, ids], y);
    [product, cache, router, attention(Type::F16, &[383, 3])]
}

/// Changes one number of a graph.
fn damage(draft: &mut Draft, random: &mut Random) {
    let numbers = [
        0,
        1,
        2,
        3,
        4,
        5,
        8,
        16,
        17,
        31,
        33,
        64,
        68,
        255,
        1 << 16,
        1 << 31,
        u32::MAX,
    ];
    let number = random.of(&numbers);
    let wide = random.of(&[0, 4, -4, 2, 36, 1 << 40, i64::MIN, i64::MAX, number.into()]);
    let (tensors, nodes, buffers) = (draft.tensors.len(), draft.nodes.len(), draft.buffers.len());
    let (dim, place) = (random.below(4), random.below(12));
    let tensor = &mut draft.tensors[random.below(tensors)];
    let node = &mut draft.nodes[random.below(nodes)];
    match random.below(14) {
        0 => tensor.ty = random.of(Type::WEIGHTS).id(),
        1 => tensor.symbol = number as u8,
        2 => tensor.axis = number as u8,
        3 | 4 => tensor.dims[dim] = number,
        5 | 6 => tensor.strides[dim] = wide,
        7 => tensor.buffer = random.below(buffers + 1) as u32,
        8 => tensor.offset = wide as u64,
        9 => node.operation = Operation::ALL[random.below(Operation::ALL.len())].id(),
        10 => node.inputs[place] = random.below(tensors + 1) as u32,
        11 => node.output = random.below(tensors + 1) as u32,
        12 => node.params[place] = number,
        _ => draft.buffers[random.below(buffers)].bytes = u64::from(number),
    }
}

/// Runs a graph that may be malformed, every buffer at the end of its memory. Says whether it was compiled.
fn run_damaged(draft: &Draft, contents: &[Vec<u8>], random: &mut Random) -> bool {
    let device = CpuDevice::new(SERVICES, Kernels::best(), 1).unwrap();
    if draft.buffers.iter().any(|b| b.bytes > 1 << 20) {
        return false;
    }
    let Ok(program) = device.compile(&draft.graph()) else {
        return false;
    };
    let written: Vec<u32> = draft
        .nodes
        .iter()
        .map(|n| draft.tensors[n.output as usize].buffer)
        .collect();
    let contents = draft.buffers.iter().zip(contents).map(|(buffer, contents)| {
        let mut contents = contents.clone();
        contents.resize(buffer.bytes as usize, 0);
        if !contents.is_empty() && random.below(4) == 0 {
            let place = random.below(contents.len());
            contents[place] = random.next() as u8;
        }
        contents
    });
    let edges: Vec<Edge> = contents.map(|c| Edge::of(&c)).collect();
    let bindings: Vec<Binding> = (0u32..)
        .zip(&edges)
        .map(|(i, edge)| {
            let room = edge.bytes.next_multiple_of(PAGE);
            let (buffer, offset) = if written.contains(&i) {
                (device.allocate(room as u64).unwrap(), room - edge.bytes)
            } else {
                // SAFETY: the edges outlive the device's work, and nobody writes them.
                (unsafe { device.import(edge.slice()) }.unwrap(), 0)
            };
            Binding {
                buffer,
                offset: offset as u64,
                bytes: edge.bytes as u64,
            }
        })
        .collect();
    let bytes = device.needs(program).unwrap().workspace;
    let scratch = Binding {
        buffer: device.allocate(bytes).unwrap(),
        offset: 0,
        bytes,
    };
    let step = Step {
        tokens: random.below(5) as u32,
        rows: random.below(3) as u32,
        ..Step::default()
    };
    let queue = device.create_queue().unwrap();
    // Indices out of range may panic, which the boundary turns into an error; addresses may not be wrong.
    let _ = guard(|| device.run(queue, program, &bindings, scratch, step));
    true
}

#[test]
fn malformed_graphs_are_refused_or_stay_in_bounds() {
    let (graphs, mut random) = (graphs(), Random(0x2545_F491_4F6C_DD1D));
    let mut compiled = 0;
    for i in 0..ROUNDS {
        let case = &graphs[i % graphs.len()];
        let mut draft = case.draft.clone();
        for _ in 0..=random.below(3) {
            damage(&mut draft, &mut random);
        }
        compiled += usize::from(run_damaged(&draft, &case.contents, &mut random));
    }
    assert!(compiled > ROUNDS / 100 && compiled < ROUNDS, "{compiled} of {ROUNDS}");
    for case in graphs {
        assert!(run_damaged(&case.draft, &case.contents, &mut random));
    }
}
