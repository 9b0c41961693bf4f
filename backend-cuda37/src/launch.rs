//! What an operation has when it launches its kernels: operands at their addresses, scratch memory, the queue.

use std::ops::Deref;

use backend_api::{
    BackendError, Result,
    graph::{ABSENT, Node, Step},
    operations::Operation,
    tally::Slot,
    types::Type,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    counters::Counters,
    driver::{Address, Driver, Shape, Stream},
    modules::Kernels,
};

/// A tensor in device memory as kernels take it: `View` of `kernels/common.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
pub struct View {
    /// The first element.
    pub address: Address,
    /// Bytes from one entry to the next; 0 along dimensions of 1.
    pub strides: [i64; 4],
    /// Entries of each dimension in the step, fastest first.
    pub dims: [u32; 4],
}

impl View {
    /// Instead of an optional input that is not there.
    pub const ABSENT: View = View {
        address: 0,
        strides: [0; 4],
        dims: [0; 4],
    };

    /// Values in it.
    pub fn values(&self) -> u64 {
        self.dims.iter().map(|&d| u64::from(d)).product()
    }

    /// Rows of dimension 0.
    pub fn rows(&self) -> u32 {
        self.dims[1..].iter().product()
    }
}

/// A tensor in device memory, and its type.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    /// Where it lies.
    pub view: View,
    /// The element or block type.
    pub ty: Type,
}

impl Deref for Operand {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

/// A node of a program.
pub struct Planned {
    /// What it computes.
    pub operation: Operation,
    /// Its operands are indices into the program's own tensors.
    pub node: Node,
    /// Where it is counted.
    pub slot: Slot,
}

/// A node with its operands resolved.
pub struct Operands<'a> {
    /// The node.
    pub planned: &'a Planned,
    /// The program's tensors in this step.
    pub tensors: &'a [Operand],
}

impl<'a> Operands<'a> {
    /// Input `i`, which the operation cannot lack (checked when the graph was compiled).
    pub fn input(&self, i: usize) -> &'a Operand {
        &self.tensors[self.planned.node.inputs[i] as usize]
    }

    /// Input `i`, if it is there.
    pub fn optional(&self, i: usize) -> Option<&'a Operand> {
        let input = self.planned.node.inputs[i];
        (input != ABSENT).then(|| &self.tensors[input as usize])
    }

    /// The output.
    pub fn output(&self) -> &'a Operand {
        &self.tensors[self.planned.node.output as usize]
    }

    /// Parameter `i` as u32.
    pub fn word(&self, i: usize) -> u32 {
        self.planned.node.params[i]
    }

    /// Parameter `i` as f32.
    pub fn f32(&self, i: usize) -> f32 {
        self.planned.node.f32(i)
    }
}

/// Scratch memory of a run, one for all nodes: what a node leaves there is garbage to the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Workspace {
    /// Its start, a multiple of 256.
    pub address: Address,
    /// Bytes of it.
    pub bytes: u64,
}

/// Where kernels go.
pub struct Launcher<'a> {
    /// The driver.
    pub driver: &'a dyn Driver,
    /// The device's kernels.
    pub kernels: &'a Kernels,
    /// The queue's stream, alive.
    pub stream: Stream,
    /// T′, R′ and C′; C′ is rounded up, so that it seldom changes.
    pub step: Step,
    /// Scratch memory.
    pub workspace: Workspace,
    /// Where launches are counted.
    pub counters: &'a Counters,
}

impl Launcher<'_> {
    /// The address of `bytes` bytes from `offset` of the scratch memory. Fails where the node asked for less in
    /// `workspace`.
    pub fn scratch(&self, offset: u64, bytes: u64) -> Result<Address> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.workspace.bytes) {
            return Err(BackendError::failed(format!(
                "{offset} + {bytes} bytes of scratch memory, where {} are there",
                self.workspace.bytes
            )));
        }
        Ok(self.workspace.address + offset)
    }

    /// Starts kernel `name` of `module` over `grid` blocks of `block` threads. Nothing is started over an empty grid.
    /// `argument` is the struct that the kernel takes, laid out as in its source.
    pub fn launch<A: IntoBytes + Immutable>(
        &mut self,
        module: &str,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        argument: &A,
    ) -> Result<()> {
        self.launch_with(module, name, Shape { grid, block, shared: 0 }, argument)
    }

    /// As [`Launcher::launch`], with dynamic shared memory.
    pub fn launch_with<A: IntoBytes + Immutable>(
        &mut self,
        module: &str,
        name: &str,
        shape: Shape,
        argument: &A,
    ) -> Result<()> {
        if shape.grid.contains(&0) {
            return Ok(());
        }
        let kernel = self.kernels.get(module, name)?;
        self.counters.launched();
        // SAFETY: the stream and the kernel are alive; the addresses in the argument are those of bindings that were
        // checked against the graph, which was checked against the rules of its operations.
        unsafe { self.driver.launch(self.stream, kernel, &shape, argument.as_bytes()) }
    }
}
