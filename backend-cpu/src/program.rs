//! Compiled graphs and their execution.

use std::{
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId, ProgramNeeds},
    graph::{ABSENT, Graph, Node, Step, Tensor},
    operations::Operation,
    tally::Slot,
    terms::Terms,
    types::Type,
};

use crate::{
    counters::Counters,
    kernel_set::Kernels,
    memory::{ALIGNMENT, Memory},
    ops,
    pool::Pool,
    product,
    view::View,
};

/// What an operation runs with.
pub struct Context<'a> {
    /// The device's threads.
    pub pool: &'a Pool,
    /// The kernels to call.
    pub kernels: Kernels,
    /// Scratch memory, at least as large as the node's `workspace`.
    pub workspace: Workspace,
    /// T′, R′ and C′.
    pub step: Step,
    /// Where kernels are counted.
    pub counters: &'a Counters,
}

/// Scratch memory of a run, one for all nodes: what a node leaves there is garbage to the next.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address; the operation that holds it hands disjoint parts to its threads.
unsafe impl Send for Workspace {}
// SAFETY: as above.
unsafe impl Sync for Workspace {}

impl Workspace {
    /// The address of `count` values of type `N` from byte `offset`: aligned to 64 bytes where `offset` is. Panics
    /// where they lie outside.
    pub fn part<N>(&self, offset: usize, count: usize) -> *mut N {
        let end = count.checked_mul(size_of::<N>()).and_then(|b| b.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.bytes) && offset.is_multiple_of(align_of::<N>()));
        // SAFETY: the offset lies inside the workspace.
        unsafe { self.start.add(offset).cast().as_ptr() }
    }
}

/// A node with its operands resolved.
pub struct Operands<'a> {
    node: &'a Planned,
    views: &'a [View],
}

impl<'a> Operands<'a> {
    /// Input `i`, which the operation cannot lack (checked when the graph was compiled).
    pub fn input(&self, i: usize) -> &'a View {
        &self.views[self.node.node.inputs[i] as usize]
    }

    /// Input `i`, if it is there.
    pub fn optional(&self, i: usize) -> Option<&'a View> {
        self.node.node.input(i).map(|t| &self.views[t as usize])
    }

    /// All inputs that are there.
    pub fn inputs(&self) -> impl Iterator<Item = &'a View> {
        let there = self.node.node.inputs.iter().filter(|&&input| input != ABSENT);
        there.map(|&input| &self.views[input as usize])
    }

    /// The output.
    pub fn output(&self) -> &'a View {
        &self.views[self.node.node.output as usize]
    }

    /// Parameter `i` as u32.
    pub fn word(&self, i: usize) -> u32 {
        self.node.node.params[i]
    }

    /// Parameter `i` as f32.
    pub fn f32(&self, i: usize) -> f32 {
        self.node.node.f32(i)
    }
}

struct Planned {
    operation: Operation,
    node: Node,
    /// What the kernel is counted under.
    slot: Slot,
}

/// A tensor, its type and the alignment that its uses ask for.
struct Operand {
    tensor: Tensor,
    ty: Type,
    align: usize,
}

/// A compiled graph.
pub struct Program {
    tensors: Vec<Operand>,
    nodes: Vec<Planned>,
    terms: Terms,
    /// Room for a run, made once: runs of one program take turns.
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    memory: Vec<Arc<Memory>>,
    starts: Vec<NonNull<u8>>,
    views: Vec<View>,
}

// SAFETY: addresses that are used only by the run that holds the lock and wrote them.
unsafe impl Send for Room {}

impl Program {
    /// Checks a graph and prepares it; refused where `supports` refuses one of its nodes.
    pub fn compile(graph: &Graph<'_>) -> Result<Program> {
        let mut plan = Plan {
            graph,
            tensors: Vec::new(),
            places: vec![None; graph.tensors.len()],
            workspace: 0,
        };
        backend_api::validate::graph(graph)?;
        let nodes = graph
            .nodes
            .iter()
            .map(|node| plan.add(node))
            .collect::<Result<Vec<_>>>()?;
        let terms = Terms::new(graph, plan.workspace, ALIGNMENT as u64);
        Ok(Program {
            nodes,
            room: Mutex::new(Room {
                memory: Vec::with_capacity(terms.buffers() + 1),
                starts: Vec::with_capacity(terms.buffers()),
                views: Vec::with_capacity(plan.tensors.len()),
            }),
            tensors: plan.tensors,
            terms,
        })
    }

    /// All that the program needs.
    pub fn needs(&self) -> ProgramNeeds {
        self.terms.needs()
    }

    /// Runs all nodes in order. `find` gives the memory of a handle.
    pub fn run(
        &self,
        context: Context<'_>,
        bindings: &[Binding],
        find: impl Fn(BufferId) -> Result<Arc<Memory>>,
        scratch: Binding,
    ) -> Result<()> {
        self.terms.check(context.step, bindings, scratch)?;
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        // A run that failed may have left some.
        room.clear();
        let ran = self.run_in(&mut room, context, bindings, &find, scratch);
        room.clear();
        ran
    }

    fn run_in(
        &self,
        room: &mut Room,
        mut context: Context<'_>,
        bindings: &[Binding],
        find: &impl Fn(BufferId) -> Result<Arc<Memory>>,
        scratch: Binding,
    ) -> Result<()> {
        self.bind(room, bindings, find)?;
        self.resolve(room, &context.step)?;
        if self.needs().workspace > 0 {
            let memory = find(scratch.buffer)?;
            context.workspace = self.workspace(&memory, scratch)?;
            room.memory.push(memory);
        }
        for node in &self.nodes {
            let operands = Operands {
                node,
                views: &room.views,
            };
            if operands.output().values() > 0 {
                if !product::counts(node.operation) {
                    context.counters.tally.called(node.slot);
                }
                let start = Instant::now();
                ops::run(node.operation, &context, &operands);
                let bytes = ops::traffic::bytes(node.operation, &operands, &context.step);
                context.counters.tally.took(node.slot, start.elapsed());
                context.counters.tally.moved(node.slot, bytes);
            }
        }
        Ok(())
    }

    fn bind(
        &self,
        room: &mut Room,
        bindings: &[Binding],
        find: &impl Fn(BufferId) -> Result<Arc<Memory>>,
    ) -> Result<()> {
        for (i, binding) in bindings.iter().enumerate() {
            let memory = find(binding.buffer)?;
            room.starts.push(if self.terms.writes(i) {
                memory.range_mut(binding.offset, binding.bytes)?
            } else {
                memory.range(binding.offset, binding.bytes)?
            });
            room.memory.push(memory);
        }
        Ok(())
    }

    fn workspace(&self, memory: &Memory, scratch: Binding) -> Result<Workspace> {
        let start = memory.range_mut(scratch.offset, scratch.bytes)?;
        self.terms.check_workspace(scratch, start.as_ptr() as u64)?;
        Ok(Workspace {
            start,
            bytes: self.needs().workspace as usize,
        })
    }

    fn resolve(&self, room: &mut Room, step: &Step) -> Result<()> {
        for (i, operand) in self.tensors.iter().enumerate() {
            let tensor = &operand.tensor;
            let start = room.starts[tensor.buffer as usize]
                .as_ptr()
                .wrapping_add(tensor.offset as usize);
            if !(start as usize).is_multiple_of(operand.align) {
                let align = operand.align;
                return Err(BackendError::invalid(format!(
                    "tensor {i} is not aligned to {align} bytes"
                )));
            }
            // SAFETY: compiling checked that the tensor's extent lies inside its buffer and that strides keep its
            // alignment; binding checked that the buffer lies inside the memory, which `room` keeps alive.
            room.views.push(unsafe {
                View::new(
                    start,
                    operand.ty,
                    tensor.dims_in(step).map(|d| d as usize),
                    tensor.strides.map(|s| s as usize),
                )
            });
        }
        Ok(())
    }
}

impl Room {
    fn clear(&mut self) {
        self.views.clear();
        self.starts.clear();
        self.memory.clear();
    }
}

/// A program in the making.
struct Plan<'a> {
    graph: &'a Graph<'a>,
    /// The tensors that nodes name; the graph may hold others, which nobody checked.
    tensors: Vec<Operand>,
    /// Where each of the graph's tensors stands among them.
    places: Vec<Option<u32>>,
    workspace: u64,
}

impl Plan<'_> {
    fn add(&mut self, node: &Node) -> Result<Planned> {
        let operation = ops::supports(self.graph, node)?;
        self.workspace = self.workspace.max(ops::workspace(self.graph, node)?);
        let mut planned = *node;
        for (i, input) in planned.inputs.iter_mut().enumerate().filter(|(_, t)| **t != ABSENT) {
            *input = self.place(*input, !ops::may_be_unaligned(operation, i))?;
        }
        planned.output = self.place(node.output, true)?;
        Ok(Planned {
            operation,
            slot: Slot::of(
                operation,
                ops::kernel_type(operation, &planned).map(|t| self.tensors[t as usize].ty),
            ),
            node: planned,
        })
    }

    fn place(&mut self, index: u32, aligned: bool) -> Result<u32> {
        let missing = || BackendError::invalid(format!("there is no tensor {index}"));
        let place = self.places.get_mut(index as usize).ok_or_else(missing)?;
        let place = match *place {
            Some(place) => place,
            None => {
                let tensor = *self.graph.tensor(index).ok_or_else(missing)?;
                let ty = tensor.kind().ok_or_else(missing)?;
                self.tensors.push(Operand { tensor, ty, align: 1 });
                *place.insert(self.tensors.len() as u32 - 1)
            }
        };
        let operand = &mut self.tensors[place as usize];
        if aligned && !operand.ty.is_quantized() {
            operand.align = operand.ty.block_bytes();
        }
        Ok(place)
    }
}

/// No scratch memory: programs that need none.
pub const NO_WORKSPACE: Workspace = Workspace {
    start: NonNull::dangling(),
    bytes: 0,
};
