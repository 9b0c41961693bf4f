//! An open device and its handles.

use std::{
    env,
    sync::{Arc, PoisonError, RwLock, Weak},
};

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId, Counter, EventId, HostServices, Level, Place, ProgramId, ProgramNeeds, QueueId},
    graph::{Graph, Step, Tensor},
    plugin::{Device, Handles},
};

use crate::{
    arrange::Rows,
    backend::GRANULARITY,
    counters::Counters,
    driver::Driver,
    modules::Kernels,
    program::{Context, Program},
    resources::{Mark, Memory, Queue},
    staging::Staging,
};

/// The environment variable that asks for the time of each operation, in the counters `time_ns.OPERATION`.
const TIMED: &str = "GRAFT_CUDA37_TIMES";

/// Bytes of a weight that are arranged before they go to the ring of pinned memory, but for longer rows.
const ARRANGED_AT_ONCE: usize = 4 << 20;

/// The open devices of this library, so that they find each other's buffers and events.
static OPEN: RwLock<Vec<Weak<Shared>>> = RwLock::new(Vec::new());

/// What other devices may see of a device.
struct Shared {
    id: u32,
    driver: Arc<dyn Driver>,
    buffers: Handles<Memory>,
    events: Handles<Mark>,
}

/// The open device.
pub struct CudaDevice {
    services: HostServices,
    target: &'static str,
    /// Bytes of its memory that may be used.
    most: u64,
    counters: Counters,
    /// Whether the user asks for the time of each operation.
    timed: bool,
    programs: Handles<Program>,
    staging: Staging,
    kernels: Kernels,
    queues: Handles<Queue>,
    shared: Arc<Shared>,
}

/// What an allocation of `bytes` bytes takes, as `memory` says.
fn taken(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(GRANULARITY).unwrap_or(u64::MAX)
}

impl CudaDevice {
    /// Device `id` of the backend, of whose memory at most `most` bytes may be used.
    pub fn new(
        services: HostServices,
        target: &'static str,
        driver: Arc<dyn Driver>,
        id: u32,
        most: u64,
    ) -> Result<CudaDevice> {
        let shared = Arc::new(Shared {
            id,
            driver: driver.clone(),
            buffers: Handles::new("buffer"),
            events: Handles::new("event"),
        });
        let mut open = OPEN.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|device| device.strong_count() > 0);
        open.push(Arc::downgrade(&shared));
        drop(open);
        Ok(CudaDevice {
            services,
            target,
            most,
            counters: Counters::default(),
            timed: env::var_os(TIMED).is_some_and(|value| value == "1"),
            programs: Handles::new("program"),
            staging: Staging::new(&driver)?,
            kernels: Kernels::new(&driver),
            queues: Handles::new("queue"),
            shared,
        })
    }

    fn driver(&self) -> &Arc<dyn Driver> {
        &self.shared.driver
    }

    fn log(&self, message: impl FnOnce() -> String) {
        self.services.log(Level::Debug, self.target, message);
    }

    /// This device, or another one that is open; of several with one id, the one that was opened last.
    fn device(&self, id: u32) -> Result<Arc<Shared>> {
        if id == self.shared.id {
            return Ok(self.shared.clone());
        }
        let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
        let found = open
            .iter()
            .rev()
            .filter_map(Weak::upgrade)
            .find(|device| device.id == id);
        found.ok_or_else(|| BackendError::invalid(format!("device {id} is not open")))
    }
}

impl Device for CudaDevice {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        let taken = taken(bytes);
        let left = self.most.saturating_sub(self.counters.tally.in_use());
        if taken > left {
            let message = format!(
                "cannot allocate {bytes} bytes: {left} of the device's {} are left",
                self.most
            );
            return Err(BackendError::out_of_memory(message));
        }
        let memory = Memory::allocate(self.driver(), bytes)?;
        self.counters.tally.allocated(taken);
        Ok(BufferId(self.shared.buffers.insert(memory)))
    }

    fn free(&self, buffer: BufferId) -> Result<()> {
        let memory = self.shared.buffers.remove(buffer.0)?;
        self.counters.tally.freed(taken(memory.bytes()));
        Ok(())
    }

    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        let (queue, memory) = (self.queues.get(queue.0)?, self.shared.buffers.get(buffer.0)?);
        let to = memory.at(offset, data.len() as u64)?;
        // SAFETY: the bytes lie in the buffer, which the host frees only after the queue's work.
        unsafe { self.staging.write(&queue, to, data) }
    }

    fn upload(&self, queue: QueueId, buffer: BufferId, offset: u64, weight: &Tensor, data: &[u8]) -> Result<()> {
        let Some(rows) = Rows::of(weight)? else {
            return self.write(queue, buffer, offset, data);
        };
        let bytes = rows.whole("data of", data.len() as u64)?;
        let (queue, memory) = (self.queues.get(queue.0)?, self.shared.buffers.get(buffer.0)?);
        let mut to = memory.at(offset, bytes)?;
        let mut arranged = Vec::new();
        let at_once = (ARRANGED_AT_ONCE / rows.pitch().max(1)).max(1) * rows.file();
        for part in data.chunks(at_once.max(1)) {
            arranged.resize(part.len() / rows.file() * rows.pitch(), 0);
            rows.arrange(part, &mut arranged)?;
            // SAFETY: the bytes lie in the buffer, which the host frees only after the queue's work.
            unsafe { self.staging.write(&queue, to, &arranged)? };
            to += arranged.len() as u64;
        }
        Ok(())
    }

    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        let (queue, memory) = (self.queues.get(queue.0)?, self.shared.buffers.get(buffer.0)?);
        let from = memory.at(offset, data.len() as u64)?;
        // SAFETY: the bytes lie in the buffer, which `memory` keeps.
        unsafe { self.staging.read(&queue, from, data) }
    }

    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Result<()> {
        let queue = self.queues.get(queue.0)?;
        if from.device != self.shared.id {
            let (asked, id) = (from.device, self.shared.id);
            return Err(BackendError::invalid(format!(
                "device {id} cannot copy from device {asked}"
            )));
        }
        let target = self.device(to.device)?;
        let source = self.shared.buffers.get(from.buffer.0)?.at(from.offset, bytes)?;
        let end = target.buffers.get(to.buffer.0)?.at(to.offset, bytes)?;
        let driver = self.driver();
        // SAFETY: both places lie in buffers, which the host frees only after the queue's work.
        unsafe {
            match bytes {
                0 => Ok(()),
                _ if target.id == self.shared.id => driver.copy(queue.handle(), end, source, bytes),
                _ => driver.copy_to(target.driver.as_ref(), queue.handle(), end, source, bytes),
            }
        }
    }

    fn create_queue(&self) -> Result<QueueId> {
        Ok(QueueId(self.queues.insert(Queue::new(self.driver())?)))
    }

    fn free_queue(&self, queue: QueueId) -> Result<()> {
        self.queues.remove(queue.0)?.synchronize()
    }

    fn create_event(&self) -> Result<EventId> {
        Ok(EventId(self.shared.events.insert(Mark::new(self.driver())?)))
    }

    fn free_event(&self, event: EventId) -> Result<()> {
        self.shared.events.remove(event.0).map(drop)
    }

    fn signal(&self, queue: QueueId, event: EventId) -> Result<()> {
        let queue = self.queues.get(queue.0)?;
        self.shared.events.get(event.0)?.record(&queue)
    }

    fn wait(&self, queue: QueueId, device: u32, event: EventId) -> Result<()> {
        let queue = self.queues.get(queue.0)?;
        let event = self.device(device)?.events.get(event.0)?;
        // SAFETY: both are alive; an event that is destroyed later is kept by the driver for who waits.
        unsafe { self.driver().wait(queue.handle(), event.handle()) }
    }

    fn synchronize(&self, queue: QueueId) -> Result<()> {
        self.queues.get(queue.0)?.synchronize()
    }

    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        let program = Program::compile(graph)?;
        let needs = program.needs();
        let nodes = graph.nodes.len();
        self.log(|| format!("compiled {nodes} nodes, workspace {} bytes", needs.workspace));
        Ok(ProgramId(self.programs.insert(program)))
    }

    fn needs(&self, program: ProgramId) -> Result<ProgramNeeds> {
        Ok(self.programs.get(program.0)?.needs())
    }

    fn free_program(&self, program: ProgramId) -> Result<()> {
        self.programs.remove(program.0).map(drop)
    }

    fn run(
        &self,
        queue: QueueId,
        program: ProgramId,
        bindings: &[Binding],
        workspace: Binding,
        step: Step,
    ) -> Result<()> {
        let (queue, program) = (self.queues.get(queue.0)?, self.programs.get(program.0)?);
        let context = Context {
            driver: self.driver(),
            kernels: &self.kernels,
            queue: &queue,
            counters: &self.counters,
            timed: self.timed,
        };
        program.run(context, bindings, |id| self.shared.buffers.get(id.0), workspace, step)?;
        self.counters.tally.ran();
        Ok(())
    }

    fn free_memory(&self) -> Result<u64> {
        let left = self.most.saturating_sub(self.counters.tally.in_use());
        Ok(self.driver().free_memory()?.min(left))
    }

    fn counters(&self) -> Result<Vec<Counter>> {
        Ok(self.counters.list())
    }
}
