//! The plugin: score, the one device, and its handles.

use std::{fs, sync::Arc};

use backend_api::{
    BackendError, Result,
    contract::{
        Binding, BufferId, Counter, DeviceInfo, DeviceKind, EventId, HostServices, Interface, Level, MemoryRules,
        OpenOptions, Place, ProgramId, ProgramNeeds, QueueId, Score, flags,
    },
    features::{self, Features},
    graph::{Graph, Node, Step},
    machine,
    measure::{self, Measure},
    plugin::{Backend, Device, Handles},
};

use crate::{
    counters::Counters,
    features::Sets,
    kernel_set::{KernelSet, Kernels},
    measure::Machine,
    memory::{self, Memory},
    ops,
    pool::{Pool, available_threads},
    program::{Context, NO_WORKSPACE, Program},
};

/// The target of log records.
const TARGET: &str = "backend_cpu";

/// The CPU backend.
pub struct CpuBackend;

impl Backend for CpuBackend {
    const NAME: &'static str = "cpu";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn query(name: &str) -> Option<Interface> {
        match name {
            measure::NAME => Some(Measure::of::<Machine>()),
            features::NAME => Some(Features::of::<Sets>()),
            _ => None,
        }
    }

    fn score(_services: HostServices) -> Result<Score> {
        Ok(match Kernels::detect() {
            Ok(kernels) => Score {
                value: value(kernels.set()),
                reason: format!("{kernels}, {}", threads(available_threads())).into(),
            },
            Err(error) => Score {
                value: 0.0,
                reason: error.message,
            },
        })
    }

    fn devices(_services: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            id: 0,
            kind: DeviceKind::Cpu as u32,
            name: processor_name().into(),
            total: machine::total(),
            free: machine::free(),
            flags: flags::IMPORTS,
            capability: 0,
            reserved: [0; 6],
        }])
    }

    fn open(services: HostServices, device: u32, options: &OpenOptions) -> Result<Box<dyn Device>> {
        if device != 0 {
            return Err(BackendError::invalid(format!("there is no device {device}, only 0")));
        }
        Ok(Box::new(CpuDevice::new(
            services,
            Kernels::detect()?,
            options.threads as usize,
        )?))
    }

    fn supports(_device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        ops::supports(graph, node).map(|_| ())
    }

    fn workspace(_device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<u64> {
        ops::supports(graph, node)?;
        ops::workspace(graph, node)
    }

    fn memory(_device: &DeviceInfo) -> Result<MemoryRules> {
        Ok(MemoryRules {
            granularity: memory::GRANULARITY,
            alignment: memory::ALIGNMENT as u64,
        })
    }
}

/// Leaves room for better sets, and for devices with memory of their own above 100.
fn value(set: KernelSet) -> f32 {
    match set {
        KernelSet::Scalar => 10.0,
        KernelSet::Avx2 => 20.0,
        KernelSet::AvxVnni => 25.0,
        KernelSet::Avx512 => 30.0,
    }
}

fn threads(count: usize) -> String {
    format!("{count} thread{}", if count == 1 { "" } else { "s" })
}

fn processor_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    model
        .and_then(|line| line.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}

/// What an allocation of `bytes` bytes takes, as `memory` says.
fn taken(bytes: u64) -> u64 {
    bytes.next_multiple_of(memory::GRANULARITY)
}

/// A queue or an event: the device works while it is called, so there is nothing to keep.
struct Mark;

/// The open device.
pub struct CpuDevice {
    services: HostServices,
    kernels: Kernels,
    pool: Pool,
    counters: Counters,
    buffers: Handles<Memory>,
    queues: Handles<Mark>,
    events: Handles<Mark>,
    programs: Handles<Program>,
}

impl CpuDevice {
    /// A device with these kernels and `threads` threads, 0 for as many as the process may use.
    pub fn new(services: HostServices, kernels: Kernels, threads: usize) -> Result<CpuDevice> {
        let device = CpuDevice {
            services,
            kernels,
            pool: Pool::new(threads)?,
            counters: Counters::default(),
            buffers: Handles::new("buffer"),
            queues: Handles::new("queue"),
            events: Handles::new("event"),
            programs: Handles::new("program"),
        };
        device.log(|| format!("opened with {kernels}, {}", self::threads(device.pool.threads())));
        Ok(device)
    }

    fn log(&self, message: impl FnOnce() -> String) {
        self.services.log(Level::Debug, TARGET, message);
    }

    fn add(&self, memory: Memory) -> BufferId {
        BufferId(self.buffers.insert(memory))
    }
}

impl Device for CpuDevice {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        let memory = Memory::allocate(bytes)?;
        self.counters.tally.allocated(taken(bytes));
        Ok(self.add(memory))
    }

    fn free(&self, buffer: BufferId) -> Result<()> {
        let memory = self.buffers.remove(buffer.0)?;
        if memory.is_owned() {
            self.counters.tally.freed(taken(memory.bytes() as u64));
        }
        Ok(())
    }

    unsafe fn import(&self, memory: &[u8]) -> Result<BufferId> {
        // SAFETY: the caller's promise is the one asked for.
        Ok(self.add(unsafe { Memory::import(memory) }))
    }

    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        self.queues.get(queue.0)?;
        let memory = self.buffers.get(buffer.0)?;
        let to = memory.range_mut(offset, data.len() as u64)?;
        // SAFETY: the range lies inside the device's own memory, which no borrowed slice overlaps.
        unsafe { to.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        Ok(())
    }

    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        self.queues.get(queue.0)?;
        let memory = self.buffers.get(buffer.0)?;
        let from = memory.range(offset, data.len() as u64)?;
        // SAFETY: the range lies inside the memory; `data` is the caller's alone, so it does not overlap.
        unsafe { data.as_mut_ptr().copy_from_nonoverlapping(from.as_ptr(), data.len()) };
        Ok(())
    }

    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Result<()> {
        self.queues.get(queue.0)?;
        if from.device != 0 || to.device != 0 {
            return Err(BackendError::unsupported("there is no other device to copy to or from"));
        }
        let (source, target) = (self.buffers.get(from.buffer.0)?, self.buffers.get(to.buffer.0)?);
        let (source, target) = (source.range(from.offset, bytes)?, target.range_mut(to.offset, bytes)?);
        // SAFETY: both ranges lie inside their memory; they may overlap.
        unsafe { target.as_ptr().copy_from(source.as_ptr(), bytes as usize) };
        Ok(())
    }

    fn create_queue(&self) -> Result<QueueId> {
        Ok(QueueId(self.queues.insert(Mark)))
    }

    fn free_queue(&self, queue: QueueId) -> Result<()> {
        self.queues.remove(queue.0).map(drop)
    }

    fn create_event(&self) -> Result<EventId> {
        Ok(EventId(self.events.insert(Mark)))
    }

    fn free_event(&self, event: EventId) -> Result<()> {
        self.events.remove(event.0).map(drop)
    }

    fn signal(&self, queue: QueueId, event: EventId) -> Result<()> {
        self.queues.get(queue.0)?;
        self.events.get(event.0).map(drop)
    }

    fn wait(&self, queue: QueueId, device: u32, event: EventId) -> Result<()> {
        self.queues.get(queue.0)?;
        if device != 0 {
            return Err(BackendError::invalid(format!(
                "there is no device {device} to wait for"
            )));
        }
        self.events.get(event.0).map(drop)
    }

    fn synchronize(&self, queue: QueueId) -> Result<()> {
        self.queues.get(queue.0).map(drop)
    }

    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        let program = Program::compile(graph)?;
        let needs = program.needs();
        self.log(|| {
            format!(
                "compiled {} nodes, workspace {} bytes",
                graph.nodes.len(),
                needs.workspace
            )
        });
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
        self.queues.get(queue.0)?;
        let program: Arc<Program> = self.programs.get(program.0)?;
        let context = Context {
            pool: &self.pool,
            kernels: self.kernels,
            workspace: NO_WORKSPACE,
            step,
            counters: &self.counters,
        };
        program.run(context, bindings, |id| self.buffers.get(id.0), workspace)?;
        self.counters.tally.ran();
        Ok(())
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(machine::free())
    }

    fn counters(&self) -> Result<Vec<Counter>> {
        Ok(self.counters.list(self.kernels.set()))
    }
}
