//! A backend's device: first as a description that plans are made for, then open.

use backend_api::{
    BackendError, Result,
    contract::{
        BackendModule, Binding, BufferId, Counter, DeviceInfo, DeviceKind, DeviceObject, HostServices, MemoryRules,
        OpenOptions, Place, ProgramId, ProgramNeeds, QueueId, WeightLayout, flags,
    },
    graph::{Graph, Step, Tensor},
};

/// A device as plans see it. It need not be here.
#[derive(Clone)]
pub struct Target {
    /// The backend's name.
    pub backend: String,
    /// The backend's functions.
    pub module: BackendModule,
    /// The device.
    pub info: DeviceInfo,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("backend", &self.backend)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Whether the device serves a node; if not, why.
    pub fn supports(&self, graph: &Graph<'_>, node: u32) -> Result<()> {
        self.module.supports()(&self.info, graph, node).into_result()
    }

    /// Bytes of scratch memory for a node.
    pub fn workspace(&self, graph: &Graph<'_>, node: u32) -> Result<u64> {
        self.module.workspace()(&self.info, graph, node).into_result()
    }

    /// What an uploaded weight takes.
    pub fn weight(&self, weight: &Tensor) -> Result<WeightLayout> {
        self.module.weight()(&self.info, weight).into_result()
    }

    /// How its memory is divided.
    pub fn memory(&self) -> Result<MemoryRules> {
        let rules = self.module.memory()(&self.info).into_result()?;
        let sound = rules.granularity > 0 && rules.alignment.is_power_of_two();
        sound
            .then_some(rules)
            .ok_or_else(|| BackendError::failed("the backend's memory rules make no sense"))
    }

    /// Whether it uses host memory without a copy.
    pub fn imports(&self) -> bool {
        self.info.flags & flags::IMPORTS != 0
    }

    /// What kind of device it is.
    pub fn kind(&self) -> DeviceKind {
        DeviceKind::from_id(self.info.kind)
    }

    /// `cpu:0 AMD EPYC`, as people see it.
    pub fn label(&self) -> String {
        format!("{}:{} {}", self.backend, self.info.id, self.info.name)
    }

    /// Opens the device.
    pub fn open(&self, services: HostServices, options: &OpenOptions) -> Result<Device> {
        let object = self.module.open()(services, self.info.id, options).into_result()?;
        let queue = object.create_queue().into_result()?;
        Ok(Device {
            object,
            queue,
            target: self.clone(),
        })
    }
}

/// An open device with one queue.
pub struct Device {
    object: DeviceObject,
    queue: QueueId,
    target: Target,
}

impl Device {
    /// Its description.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Memory of `bytes` bytes, uninitialized.
    pub fn allocate(&self, bytes: u64) -> Result<BufferId> {
        self.object.allocate(bytes).into_result()
    }

    /// Uses `memory` as a buffer that is only read. It must stay in place, valid and unchanged until the device is
    /// dropped or the buffer freed.
    pub fn import(&self, memory: &[u8]) -> Result<BufferId> {
        self.object.import(memory.into()).into_result()
    }

    /// Copies `data` to `offset` of a buffer.
    pub fn write(&self, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        self.object.write(self.queue, buffer, offset, data.into()).into_result()
    }

    /// Copies a weight as it lies in the file to `offset` of a buffer.
    pub fn upload(&self, buffer: BufferId, offset: u64, weight: &Tensor, data: &[u8]) -> Result<()> {
        self.object
            .upload(self.queue, buffer, offset, weight, data.into())
            .into_result()
    }

    /// Copies from `offset` of a buffer, after all work so far.
    pub fn read(&self, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        self.object.read(self.queue, buffer, offset, data.into()).into_result()
    }

    /// Copies within one buffer or between two of this device.
    pub fn copy(&self, from: (BufferId, u64), to: (BufferId, u64), bytes: u64) -> Result<()> {
        let place = |(buffer, offset)| Place {
            device: self.target.info.id,
            reserved: 0,
            buffer,
            offset,
        };
        self.object
            .copy(self.queue, place(from), place(to), bytes)
            .into_result()
    }

    /// Makes a program of a graph; it stays until the device is dropped.
    pub fn compile(&self, graph: &Graph<'_>) -> Result<(ProgramId, ProgramNeeds)> {
        let program = self.object.compile(graph).into_result()?;
        Ok((program, self.object.needs(program).into_result()?))
    }

    /// Runs a program.
    pub fn run(&self, program: ProgramId, bindings: &[Binding], workspace: Binding, step: Step) -> Result<()> {
        self.object
            .run(self.queue, program, bindings.into(), workspace, step)
            .into_result()
    }

    /// What the device counted so far.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        Ok(self.object.counters().into_result()?.into_vec())
    }
}
