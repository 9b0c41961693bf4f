//! What crosses the boundary between host and plugin.
//!
//! Everything reachable from [`BackendModule`] is frozen: a host refuses a plugin whose copy of these types differs in
//! any way. What comes later comes through `query`, through reserved words that are 0 today, and through new numbers of
//! operations, types, roles and flags.

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec},
};

use crate::{
    error::BackendError,
    graph::{Graph, Step, Tensor},
};

/// What every function of the contract returns.
pub type Outcome<T> = RResult<T, BackendError>;

/// How well a backend can serve on this machine.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq)]
pub struct Score {
    /// Higher is better; 0 means that it cannot serve here.
    pub value: f32,
    /// Why, in words: "AVX-512 on 16 cores", "libcuda.so.1 not found".
    pub reason: RString,
}

impl Score {
    /// A score and its reason in words.
    pub fn new(value: f32, reason: impl Into<RString>) -> Self {
        Score {
            value,
            reason: reason.into(),
        }
    }
}

/// What kind of device it is. The host may ask for a kind, never for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceKind {
    /// Something else.
    Other = 0,
    /// The processor that the host runs on.
    Cpu = 1,
    /// A graphics card.
    Gpu = 2,
}

impl DeviceKind {
    /// The kind with number `id`; unknown ones are `Other`.
    pub fn from_id(id: u32) -> DeviceKind {
        match id {
            1 => DeviceKind::Cpu,
            2 => DeviceKind::Gpu,
            _ => DeviceKind::Other,
        }
    }
}

/// Flags of [`DeviceInfo::flags`].
pub mod flags {
    /// `import` uses host memory without a copy.
    pub const IMPORTS: u64 = 1;
    /// `copy` reaches the backend's other devices.
    pub const PEER_COPY: u64 = 2;
}

/// A device, or the description of one that is not here: all that the planning queries may depend on.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Default)]
pub struct DeviceInfo {
    /// Index among the backend's devices.
    pub id: u32,
    /// See [`DeviceKind`].
    pub kind: u32,
    /// The maker's name of it.
    pub name: RString,
    /// Bytes of memory that the device has.
    pub total: u64,
    /// Bytes of it that are free now.
    pub free: u64,
    /// See [`flags`].
    pub flags: u64,
    /// The backend's own measure, such as compute capability × 10.
    pub capability: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

/// How a device's memory is divided.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRules {
    /// An allocation takes its bytes rounded up to a multiple of this.
    pub granularity: u64,
    /// Bytes that the start of an activation should be a multiple of: a power of two.
    pub alignment: u64,
}

/// How a weight lies in the device's memory when it is uploaded.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightLayout {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Alignment of its start in bytes: a power of two.
    pub alignment: u64,
}

/// What the host asks of a device when it opens it.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OpenOptions {
    /// Threads that a device of kind cpu uses; 0 lets it choose.
    pub threads: u32,
    /// Zero.
    pub reserved: u32,
    /// Zero.
    pub reserved2: [u64; 7],
}

/// What the host offers to a plugin.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct HostServices {
    /// Takes a log record: level (1 error … 5 trace), target, message.
    pub log: extern "C" fn(level: u32, target: RStr<'_>, message: RStr<'_>),
    /// The highest level that anybody listens to.
    pub level: u32,
    /// Zero.
    pub reserved: u32,
    /// Zero.
    pub reserved2: [u64; 6],
}

/// Levels of [`HostServices::log`], as tracing has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something that the user should know.
    Warn = 2,
    /// Progress.
    Info = 3,
    /// For who looks for a fault.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl HostServices {
    /// Forwards a record to the host's log; the message is made only if somebody listens.
    pub fn log(&self, level: Level, target: &str, message: impl FnOnce() -> String) {
        if level as u32 <= self.level {
            (self.log)(level as u32, target.into(), message().as_str().into());
        }
    }
}

/// Defines handles: numbers that a device gives out, meaningful to that device alone.
macro_rules! handle {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);
    )+};
}

handle!(
    /// Memory of a device.
    BufferId,
    /// An ordered stream of work.
    QueueId,
    /// A point in a queue's work.
    EventId,
    /// A compiled graph.
    ProgramId,
);

/// Memory that takes the place of a graph's buffer in a run.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// A buffer of the device that runs.
    pub buffer: BufferId,
    /// Bytes from its start.
    pub offset: u64,
    /// Bytes bound, at least as many as the graph's buffer has.
    pub bytes: u64,
}

impl Binding {
    /// Whether two bindings, which lie inside their buffers, have a byte in common.
    pub fn shares_bytes(&self, other: &Binding) -> bool {
        let same = self.buffer == other.buffer && self.bytes > 0 && other.bytes > 0;
        let end = |binding: &Binding| binding.offset.saturating_add(binding.bytes);
        same && self.offset < end(other) && other.offset < end(self)
    }
}

/// A place in a buffer of a device of the same backend.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The device's [`DeviceInfo::id`].
    pub device: u32,
    /// Zero.
    pub reserved: u32,
    /// A buffer of that device.
    pub buffer: BufferId,
    /// Bytes from its start.
    pub offset: u64,
}

/// All the memory that a program needs beside its bindings.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ProgramNeeds {
    /// Bytes of scratch memory that the host binds in every run: exactly the largest `workspace` of its nodes.
    pub workspace: u64,
    /// Bytes of device memory that the program itself holds until it is freed: 0 today. Whatever a plan cannot know, a
    /// host refuses.
    pub resident: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

/// A number that a device counts: allocations, runs, calls of a kernel.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `allocated_bytes`, `kernel.product.q8_0.avx512`, …
    pub name: RString,
    /// Its value since the device was opened.
    pub value: u64,
}

/// An open device. Work of one queue takes effect in order; functions may return before it is done, except `read` and
/// `synchronize`. All of them may be called from any thread; a queue is used from one at a time.
#[sabi_trait]
pub trait DeviceInterface: Send + Sync {
    /// Memory of `bytes` bytes, uninitialized, aligned for every type.
    fn allocate(&self, bytes: u64) -> Outcome<BufferId>;
    /// Gives a buffer back. Work that uses it must have ended.
    fn free(&self, buffer: BufferId) -> Outcome<()>;
    /// Uses the host's memory as a buffer that is only read, without a copy. The host keeps it in place, valid and
    /// unchanged until it frees the buffer. Refused where the device cannot.
    fn import(&self, memory: RSlice<'_, u8>) -> Outcome<BufferId>;
    /// Copies host memory to `offset` of a buffer; `data` is free again when the function returns.
    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: RSlice<'_, u8>) -> Outcome<()>;
    /// Copies a weight, as it lies in the file, to `offset` of a buffer, in the layout that the planning query
    /// `weight` declared. What a program then binds for it begins there, holds no other weight, and has the file's bytes: the
    /// offsets and strides of its views are those of the file, and views of block types keep its dimension 0.
    fn upload(
        &self,
        queue: QueueId,
        buffer: BufferId,
        offset: u64,
        weight: &Tensor,
        data: RSlice<'_, u8>,
    ) -> Outcome<()>;
    /// Copies from `offset` of a buffer to host memory, after the queue's earlier work.
    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: RSliceMut<'_, u8>) -> Outcome<()>;
    /// Copies between buffers of this device, or from this one to another of the same backend.
    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Outcome<()>;
    /// A new queue.
    fn create_queue(&self) -> Outcome<QueueId>;
    /// Ends a queue after its work.
    fn free_queue(&self, queue: QueueId) -> Outcome<()>;
    /// A new event, not signalled.
    fn create_event(&self) -> Outcome<EventId>;
    /// Ends an event.
    fn free_event(&self, event: EventId) -> Outcome<()>;
    /// Signals an event once the queue's earlier work is done. This takes the place of what signalled it before: who waits
    /// from here on waits for this.
    fn signal(&self, queue: QueueId, event: EventId) -> Outcome<()>;
    /// Holds the queue's later work until an event, of this or another device of the backend, was signalled.
    fn wait(&self, queue: QueueId, device: u32, event: EventId) -> Outcome<()>;
    /// Returns when the queue's work is done, with the first failure in it.
    fn synchronize(&self, queue: QueueId) -> Outcome<()>;
    /// Makes a program of a graph whose nodes the backend supports.
    fn compile(&self, graph: &Graph<'_>) -> Outcome<ProgramId>;
    /// All that a program needs.
    fn needs(&self, program: ProgramId) -> Outcome<ProgramNeeds>;
    /// Ends a program.
    fn free_program(&self, program: ProgramId) -> Outcome<()>;
    /// Runs a program: one binding for each buffer of the graph, in order, and scratch memory of the size in `needs`.
    /// What is bound to a buffer that the program writes, and the scratch memory, share no byte with another binding.
    fn run(
        &self,
        queue: QueueId,
        program: ProgramId,
        bindings: RSlice<'_, Binding>,
        workspace: Binding,
        step: Step,
    ) -> Outcome<()>;
    /// Memory free now, in bytes.
    fn free_memory(&self) -> Outcome<u64>;
    /// What the device counted so far.
    #[sabi(last_prefix_field)]
    fn counters(&self) -> Outcome<RVec<Counter>>;
}

/// An open device as it crosses the boundary; dropping it closes the device.
pub type DeviceObject = DeviceInterface_TO<'static, RBox<()>>;

/// An interface that `query` gives: a table of functions whose layout its name and version say.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Interface {
    /// Its version.
    pub version: u64,
    /// Bytes of the table.
    pub bytes: u64,
    /// The table, `#[repr(C)]`; it stays where it is while the library is loaded, which is for good.
    pub table: *const (),
}

/// The functions of a backend. The planning queries (`supports`, `workspace`, `weight`, `memory`) are pure functions of
/// their arguments and need neither driver nor device.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendModule, prefix_fields = BackendModulePrefix)))]
#[sabi(missing_field(panic))]
pub struct BackendFunctions {
    /// The backend's name, as `--backend` takes it.
    pub name: RStr<'static>,
    /// The backend's own version.
    pub version: RStr<'static>,
    /// How well it can serve on this machine. Checks what the operating system allows, not only the processor.
    pub score: extern "C" fn(HostServices) -> Outcome<Score>,
    /// The devices that are here.
    pub devices: extern "C" fn(HostServices) -> Outcome<RVec<DeviceInfo>>,
    /// Whether the device serves node `node` of the graph; if not, an error of code `Unsupported` says why.
    pub supports: extern "C" fn(device: &DeviceInfo, graph: &Graph<'_>, node: u32) -> Outcome<()>,
    /// Bytes of scratch memory for node `node`: the maximum over every T′ ≤ T and R′ ≤ R.
    pub workspace: extern "C" fn(device: &DeviceInfo, graph: &Graph<'_>, node: u32) -> Outcome<u64>,
    /// What an uploaded weight takes.
    pub weight: extern "C" fn(device: &DeviceInfo, weight: &Tensor) -> Outcome<WeightLayout>,
    /// How the device's memory is divided.
    pub memory: extern "C" fn(device: &DeviceInfo) -> Outcome<MemoryRules>,
    /// Opens the device with this [`DeviceInfo::id`].
    pub open: extern "C" fn(HostServices, device: u32, options: &OpenOptions) -> Outcome<DeviceObject>,
    /// A versioned interface by its name, such as `graft.capture/1`; nothing where the backend has none of this name.
    #[sabi(last_prefix_field)]
    pub query: extern "C" fn(name: RStr<'_>) -> ROption<Interface>,
}

impl RootModule for BackendModule {
    declare_root_module_statics! {BackendModule}
    const BASE_NAME: &'static str = "backend";
    const NAME: &'static str = "backend";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// The symbol that a backend's library exports; `export_backend!` spells it too, since an attribute takes no constant.
pub const ROOT_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";
