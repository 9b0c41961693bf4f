//! A program that runs takes no memory from the heap, on any thread.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use backend_api::{
    contract::Binding,
    draft::Draft,
    graph::{Node, Role, Step, Symbol, Tensor},
    operations::{Operation, word},
    plugin::Device,
    types::Type,
};
use backend_cpu::{device::CpuDevice, kernel_set::Kernels};

use common::SERVICES;

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, with a count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is the one asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TOKENS: u32 = 40;
const HEAD: u32 = 64;
const HEADS: u32 = 4;
const PAGE: u32 = 16;
const PAGES: u32 = 32;

/// Norm, product, rope, store and attention over up to [`TOKENS`] tokens: enough to wake the threads.
fn layer() -> Draft {
    let mut draft = Draft::new(TOKENS, TOKENS);
    let mut place = |role, ty, dims: [u32; 4], axis: Option<u8>| {
        let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
        let tensor = axis.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
        draft.place(role, tensor).unwrap()
    };
    let d = HEAD * HEADS;
    let x = place(Role::Input, Type::F32, [d, TOKENS, 1, 1], Some(1));
    let w = place(Role::Weight, Type::Q8_0, [d, d, 1, 1], None);
    let normed = place(Role::Activation, Type::F32, [d, TOKENS, 1, 1], Some(1));
    let q = place(Role::Activation, Type::F32, [d, TOKENS, 1, 1], Some(1));
    let pool = place(Role::Pool, Type::F16, [HEAD, PAGE, HEADS, PAGES], None);
    let positions = place(Role::Input, Type::I32, [TOKENS, 1, 1, 1], Some(0));
    let starts = place(Role::Input, Type::I32, [2, 1, 1, 1], None);
    let table = place(Role::Input, Type::I32, [PAGES, 1, 1, 1], None);
    let freq = place(Role::Constant, Type::F32, [HEAD / 2, 1, 1, 1], None);
    let y = place(Role::Output, Type::F32, [HEAD, HEADS, TOKENS, 1], Some(2));
    let heads = Tensor {
        buffer: draft.tensors[q as usize].buffer,
        ..Tensor::contiguous(Type::F32, [HEAD, HEADS, TOKENS, 1], 0, 0).unwrap()
    };
    let heads = draft.tensor(heads.symbolic(Symbol::Tokens, 2));
    draft.nodes = vec![
        Node::new(Operation::RmsNorm.id(), &[x], normed),
        Node::new(Operation::Product.id(), &[normed, w], q),
        Node::new(Operation::Rope.id(), &[heads, positions, freq], heads).with_f32(word::rope::MAGNITUDE, 1.0),
        Node::new(Operation::CacheStore.id(), &[heads, positions], pool),
        Node::new(
            Operation::Attention.id(),
            &[heads, pool, pool, positions, starts, table],
            y,
        )
        .with_f32(word::attention::SCALE, 0.125),
    ];
    draft
}

/// A thread that starts late would be counted with a run, since that allocates.
fn threads_start_before_a_device_is_open() {
    let _device = CpuDevice::new(SERVICES, Kernels::best(), 64).unwrap();
    let before = CALLS.load(Relaxed);
    thread::sleep(Duration::from_millis(20));
    assert_eq!(CALLS.load(Relaxed), before, "allocations after the device was opened");
}

#[test]
fn a_run_allocates_nothing() {
    threads_start_before_a_device_is_open();
    let device = CpuDevice::new(SERVICES, Kernels::best(), 3).unwrap();
    let draft = layer();
    let program = device.compile(&draft.graph()).unwrap();
    let queue = device.create_queue().unwrap();
    let buffer = |bytes: u64| Binding {
        buffer: device.allocate(bytes).unwrap(),
        offset: 0,
        bytes,
    };
    let bindings: Vec<Binding> = draft.buffers.iter().map(|b| buffer(b.bytes)).collect();
    let workspace = buffer(device.needs(program).unwrap().workspace);
    let write = |tensor: usize, values: &mut dyn Iterator<Item = i32>| {
        let bytes: Vec<u8> = values.flat_map(i32::to_le_bytes).collect();
        let buffer = bindings[draft.tensors[tensor].buffer as usize].buffer;
        device.write(queue, buffer, 0, &bytes).unwrap();
    };
    write(5, &mut (0..TOKENS as i32));
    write(7, &mut (0..PAGES as i32));
    let run = |tokens: u32| {
        write(6, &mut [0, tokens as i32].into_iter());
        let step = Step {
            tokens,
            rows: tokens,
            context: tokens,
            reserved: 0,
        };
        let before = CALLS.load(Relaxed);
        device.run(queue, program, &bindings, workspace, step).unwrap();
        CALLS.load(Relaxed) - before
    };
    run(TOKENS);
    for tokens in [TOKENS, 8, 1, 0] {
        assert_eq!(run(tokens), 0, "allocations in a step of {tokens} tokens");
    }
}
