//! An open device: memory and programs.

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId, ProgramId, ProgramNeeds, QueueId},
    draft::Draft,
    graph::{Graph, Step},
    plugin::{Device, Handles},
    validate,
};

use crate::{memory::Memory, operations};

/// The device. The host may call it from several threads at once, so what changes stands behind locks.
pub struct SlowDevice {
    memory: Memory,
    // A program is a copy of its graph. A real backend would choose its kernels here, once, and keep them.
    programs: Handles<Draft>,
}

impl SlowDevice {
    pub fn new() -> Self {
        SlowDevice {
            memory: Memory::new(),
            programs: Handles::new("program"),
        }
    }
}

// All work is done when a function returns, so queues and events have nothing to do: the defaults of `Device` say so.
// A panic in any of these becomes an error before it reaches the host.
impl Device for SlowDevice {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        self.memory.allocate(bytes)
    }

    fn free(&self, buffer: BufferId) -> Result<()> {
        self.memory.free(buffer)
    }

    fn write(&self, _queue: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        self.memory.write(buffer, offset, data)
    }

    fn read(&self, _queue: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        self.memory.read(buffer, offset, data)
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(self.memory.available())
    }

    // The slices of a graph belong to the host and end with this call: a program keeps a copy.
    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        validate::graph(graph)?;
        graph.nodes.iter().try_for_each(|node| operations::check(graph, node))?;
        Ok(ProgramId(self.programs.insert(Draft::from(graph))))
    }

    // The host allocates all of a program's memory. Ours needs none beside its bindings.
    fn needs(&self, program: ProgramId) -> Result<ProgramNeeds> {
        self.programs.get(program.0).map(|_| ProgramNeeds::default())
    }

    fn free_program(&self, program: ProgramId) -> Result<()> {
        self.programs.remove(program.0).map(|_| ())
    }

    fn run(
        &self,
        _queue: QueueId,
        program: ProgramId,
        bindings: &[Binding],
        _workspace: Binding,
        step: Step,
    ) -> Result<()> {
        let program = self.programs.get(program.0)?;
        let graph = program.graph();
        if step.tokens > graph.tokens || step.rows > graph.rows {
            return Err(BackendError::invalid("the step is larger than the program"));
        }
        let bound = |(i, buffer)| bindings.get(i).is_some_and(|b: &Binding| b.bytes >= buffer);
        if !graph.buffers.iter().map(|b| b.bytes).enumerate().all(bound) {
            return Err(BackendError::invalid(
                "a buffer of the program is bound to less than its bytes",
            ));
        }
        let call = |node| operations::Call {
            memory: &self.memory,
            bindings,
            graph,
            node,
            step,
        };
        graph.nodes.iter().try_for_each(|node| call(node).evaluate())
    }
}
