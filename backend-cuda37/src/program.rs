//! Compiled graphs and their execution.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId, ProgramNeeds},
    graph::{ABSENT, Graph, Node, Step, Tensor},
    tally::Slot,
    terms::Terms,
    types::Type,
};

use crate::{
    backend::ALIGNMENT,
    capture::{Captures, Sight},
    counters::Counters,
    driver::{Address, Driver},
    launch::{Launcher, Operand, Operands, Planned, View, Workspace},
    modules::Kernels,
    ops,
    resources::{Memory, Queue, Recording},
};

/// C′ is rounded up to a power of two from here on, so that a sequence that grows is seldom captured anew.
const LEAST_CONTEXT: u32 = 256;

/// What a program runs with.
pub struct Context<'a> {
    /// The driver.
    pub driver: &'a Arc<dyn Driver>,
    /// The device's kernels.
    pub kernels: &'a Kernels,
    /// Where it runs.
    pub queue: &'a Queue,
    /// Where kernels are counted.
    pub counters: &'a Counters,
    /// Whether the time of each node is taken, which makes runs longer.
    pub timed: bool,
}

/// A tensor and its type.
struct Described {
    tensor: Tensor,
    ty: Type,
}

/// A compiled graph.
pub struct Program {
    tensors: Vec<Described>,
    nodes: Vec<Planned>,
    terms: Terms,
    /// Room for a run, made once: runs of one program take turns.
    room: Mutex<Room>,
}

#[derive(Default)]
struct Room {
    /// Of the buffers, then of the workspace.
    addresses: Vec<Address>,
    operands: Vec<Operand>,
    captures: Captures,
}

impl Program {
    /// Checks a graph and prepares it; refused where `supports` refuses one of its nodes.
    pub fn compile(graph: &Graph<'_>) -> Result<Program> {
        backend_api::validate::graph(graph)?;
        let mut plan = Plan {
            graph,
            tensors: Vec::new(),
            places: vec![None; graph.tensors.len()],
            workspace: 0,
        };
        let nodes = graph.nodes.iter().map(|node| plan.add(node));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let terms = Terms::new(graph, plan.workspace, ALIGNMENT);
        Ok(Program {
            nodes,
            room: Mutex::new(Room {
                addresses: Vec::with_capacity(terms.buffers() + 1),
                operands: Vec::with_capacity(plan.tensors.len()),
                captures: Captures::default(),
            }),
            tensors: plan.tensors,
            terms,
        })
    }

    /// All that the program needs.
    pub fn needs(&self) -> ProgramNeeds {
        self.terms.needs()
    }

    /// Starts all nodes in order. `find` gives the memory of a handle.
    pub fn run(
        &self,
        context: Context<'_>,
        bindings: &[Binding],
        find: impl Fn(BufferId) -> Result<Arc<Memory>>,
        scratch: Binding,
        step: Step,
    ) -> Result<()> {
        self.terms.check(step, bindings, scratch)?;
        let told = step;
        let step = Step {
            context: step.context.max(LEAST_CONTEXT).next_power_of_two(),
            ..step
        };
        let room = &mut *self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.addresses.clear();
        for binding in bindings {
            let memory = find(binding.buffer)?;
            room.addresses.push(memory.at(binding.offset, binding.bytes)?);
        }
        let workspace = self.workspace(scratch, &find)?;
        room.addresses.push(workspace.address);
        self.resolve(room, &step)?;
        let mut launcher = Launcher {
            driver: context.driver.as_ref(),
            kernels: context.kernels,
            stream: context.queue.handle(),
            step,
            workspace,
            counters: context.counters,
        };
        self.count(&room.operands, &told, context.counters);
        let Room {
            addresses,
            operands,
            captures,
        } = room;
        if context.timed {
            return self.launch_timed(&mut launcher, operands, context.queue);
        }
        match captures.sight(step, addresses) {
            Sight::New => self.launch(&mut launcher, operands),
            Sight::Captured(recording) => replay(&context, recording),
            Sight::Again(place) => {
                let launch = || self.launch(&mut launcher, operands);
                let Ok(recording) = Recording::of(context.driver, context.queue, launch) else {
                    captures.refuse();
                    return self.launch(&mut launcher, operands);
                };
                context.counters.captured();
                replay(&context, place.insert(recording))
            }
        }
    }

    /// The nodes whose outputs are not empty, with their operands.
    fn there<'a>(&'a self, tensors: &'a [Operand]) -> impl Iterator<Item = Operands<'a>> {
        let nodes = self.nodes.iter().map(move |planned| Operands { planned, tensors });
        nodes.filter(|operands| operands.output().values() > 0)
    }

    fn count(&self, tensors: &[Operand], step: &Step, counters: &Counters) {
        for operands in self.there(tensors) {
            counters.tally.called(operands.planned.slot);
            let bytes = ops::traffic::bytes(&operands, step);
            counters.tally.moved(operands.planned.slot, bytes);
        }
    }

    fn launch(&self, launcher: &mut Launcher<'_>, tensors: &[Operand]) -> Result<()> {
        self.there(tensors)
            .try_for_each(|operands| ops::launch(launcher, &operands))
    }

    /// As `launch`, taking the time of each node until it is done.
    fn launch_timed(&self, launcher: &mut Launcher<'_>, tensors: &[Operand], queue: &Queue) -> Result<()> {
        queue.synchronize()?;
        self.there(tensors).try_for_each(|operands| {
            let start = Instant::now();
            ops::launch(launcher, &operands)?;
            queue.synchronize()?;
            launcher.counters.tally.took(operands.planned.slot, start.elapsed());
            Ok(())
        })
    }

    fn workspace(&self, binding: Binding, find: &impl Fn(BufferId) -> Result<Arc<Memory>>) -> Result<Workspace> {
        let bytes = self.needs().workspace;
        if bytes == 0 {
            return Ok(Workspace::default());
        }
        let address = find(binding.buffer)?.at(binding.offset, binding.bytes)?;
        self.terms.check_workspace(binding, address)?;
        Ok(Workspace { address, bytes })
    }

    fn resolve(&self, room: &mut Room, step: &Step) -> Result<()> {
        room.operands.clear();
        for (i, Described { tensor, ty }) in self.tensors.iter().enumerate() {
            let address = room.addresses[tensor.buffer as usize] + tensor.offset;
            let align = element_alignment(*ty);
            if !address.is_multiple_of(align) {
                return Err(BackendError::invalid(format!(
                    "tensor {i} is not aligned to {align} bytes"
                )));
            }
            let stride = |(&stride, &dim): (&i64, &u32)| if dim > 1 { stride } else { 0 };
            let mut strides = [0; 4];
            let told = tensor.strides.iter().zip(&tensor.dims).map(stride);
            strides.iter_mut().zip(told).for_each(|(to, from)| *to = from);
            let view = View {
                address,
                strides,
                dims: tensor.dims_in(step),
            };
            room.operands.push(Operand { view, ty: *ty });
        }
        Ok(())
    }
}

fn replay(context: &Context<'_>, recording: &Recording) -> Result<()> {
    context.counters.replayed();
    // SAFETY: the recording and the stream are alive; it was captured over the addresses of these same bindings.
    unsafe { context.driver.replay(context.queue.handle(), recording.handle()) }
}

/// What addresses of a type are multiples of: of the largest word of which all blocks begin at multiples.
pub fn element_alignment(ty: Type) -> u64 {
    let bytes = ty.block_bytes() as u64;
    (1 << bytes.trailing_zeros()).min(16)
}

/// A program in the making.
struct Plan<'a> {
    graph: &'a Graph<'a>,
    /// The tensors that nodes name; the graph may hold others, which nobody checked.
    tensors: Vec<Described>,
    /// Where each of the graph's tensors stands among them.
    places: Vec<Option<u32>>,
    workspace: u64,
}

impl Plan<'_> {
    fn add(&mut self, node: &Node) -> Result<Planned> {
        let operation = ops::supports(self.graph, node)?;
        self.workspace = self.workspace.max(ops::workspace(self.graph, node)?);
        let mut planned = *node;
        for input in planned.inputs.iter_mut().filter(|t| **t != ABSENT) {
            *input = self.place(*input)?;
        }
        planned.output = self.place(node.output)?;
        let ty = ops::kernel_type(operation, &planned).map(|t| self.tensors[t as usize].ty);
        Ok(Planned {
            operation,
            slot: Slot::of(operation, ty),
            node: planned,
        })
    }

    fn place(&mut self, index: u32) -> Result<u32> {
        let missing = || BackendError::invalid(format!("there is no tensor {index}"));
        let place = self.places.get_mut(index as usize).ok_or_else(missing)?;
        if let Some(place) = *place {
            return Ok(place);
        }
        let tensor = *self.graph.tensor(index).ok_or_else(missing)?;
        let ty = tensor.kind().ok_or_else(missing)?;
        self.tensors.push(Described { tensor, ty });
        Ok(*place.insert(self.tensors.len() as u32 - 1))
    }
}
