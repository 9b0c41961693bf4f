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
    arrange::{self, Placed},
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

/// A tensor as it lies on the device, its type, and what its address is a multiple of.
struct Described {
    tensor: Tensor,
    ty: Type,
    alignment: u64,
}

/// A compiled graph.
pub struct Program {
    tensors: Vec<Described>,
    nodes: Vec<Planned>,
    terms: Terms,
    /// For each buffer the bytes that its arranged weights reach to, which may be more than the graph's; 0 where there are none.
    arranged: Vec<u64>,
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
            arranged: vec![0; graph.buffers.len()],
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
            arranged: plan.arranged,
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
        for (binding, &arranged) in bindings.iter().zip(&self.arranged) {
            let memory = find(binding.buffer)?;
            // the host may bind the file's bytes of what takes more
            let bytes = binding.bytes.max(arranged);
            room.addresses.push(memory.at(binding.offset, bytes)?);
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
        for (i, described) in self.tensors.iter().enumerate() {
            let Described { tensor, ty, alignment } = described;
            let address = room.addresses[tensor.buffer as usize] + tensor.offset;
            if !address.is_multiple_of(*alignment) {
                return Err(BackendError::invalid(format!(
                    "tensor {i} is not aligned to {alignment} bytes"
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
    /// As in the program.
    arranged: Vec<u64>,
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
        let described = match arrange::placed(self.graph, &tensor)? {
            Some(Placed { tensor, end }) => {
                let reach = self.arranged.get_mut(tensor.buffer as usize).ok_or_else(missing)?;
                *reach = end.max(*reach);
                let alignment = arrange::ALIGNMENT;
                Described { tensor, ty, alignment }
            }
            None => Described {
                tensor,
                ty,
                alignment: element_alignment(ty),
            },
        };
        self.tensors.push(described);
        Ok(*place.insert(self.tensors.len() as u32 - 1))
    }
}

#[cfg(test)]
mod tests {
    use backend_api::{
        draft::Draft,
        error::Code,
        graph::{Role, Symbol},
        operations::Operation,
    };

    use super::*;

    /// 32 values of Q4_0: 18 bytes in the file, 32 on the device.
    const ROW: u64 = 18;
    const PITCH: u64 = 32;

    fn rows(dims: [u32; 4]) -> Tensor {
        Tensor::contiguous(Type::Q4_0, dims, 0, 0).unwrap()
    }

    /// Rows of a table in a buffer of 24 rows.
    fn looked_up(role: Role, table: Tensor) -> Draft {
        let mut draft = Draft::new(2, 1);
        let buffer = draft.buffer(role, 24 * ROW);
        let table = draft.tensor(Tensor { buffer, ..table });
        let mut place = |role, ty, dims, axis| {
            let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
            draft.place(role, tensor.symbolic(Symbol::Tokens, axis)).unwrap()
        };
        let ids = place(Role::Input, Type::I32, [2, 1, 1, 1], 0);
        let y = place(Role::Output, Type::F32, [32, 2, 1, 1], 1);
        draft
            .nodes
            .push(Node::new(Operation::Rows.id(), &[table, ids], y).with_f32(0, 1.0));
        draft
    }

    #[test]
    fn views_of_weights_are_placed_by_rows() {
        let every_second = Tensor {
            offset: 3 * ROW,
            strides: [18, 2 * ROW as i64, 7, 7],
            ..rows([32, 10, 1, 1])
        };
        let program = Program::compile(&looked_up(Role::Weight, every_second).graph()).unwrap();
        let Described { tensor, alignment, .. } = program.tensors[0];
        assert_eq!((tensor.offset, tensor.strides[1]), (3 * PITCH, 2 * PITCH as i64));
        assert_eq!(alignment, 16);
        // rows 3 to 21; ids and output lie as they are bound
        assert_eq!(program.arranged, [22 * PITCH, 0, 0]);
    }

    #[test]
    fn weights_of_element_types_lie_as_in_the_file() {
        let halves = Tensor {
            offset: 2,
            ..Tensor::contiguous(Type::F16, [32, 6, 1, 1], 0, 0).unwrap()
        };
        let program = Program::compile(&looked_up(Role::Weight, halves).graph()).unwrap();
        let Described { tensor, alignment, .. } = program.tensors[0];
        assert_eq!((tensor.offset, tensor.strides[1], alignment), (2, 64, 2));
        assert_eq!(program.arranged, [0, 0, 0]);
    }

    #[test]
    fn views_that_are_no_rows_are_not_served() {
        let refused = |role, table, message: &str| {
            let refusal = Program::compile(&looked_up(role, table).graph()).err().unwrap();
            assert_eq!((refusal.message.as_str(), refusal.code()), (message, Code::Unsupported));
        };
        let (all, offset) = (rows([32, 10, 1, 1]), ROW + 2);
        let askew = "a view of a weight of Q4_0 with an offset of 20 bytes, where rows take 18";
        refused(Role::Weight, Tensor { offset, ..all }, askew);
        refused(Role::Constant, all, "a constant of a block type");
    }
}
