//! The author's side: implement [`Backend`] and [`Device`], then [`crate::export_backend!`].
//!
//! ```ignore
//! struct MyBackend;
//! impl backend_api::plugin::Backend for MyBackend { … }
//! backend_api::export_backend!(MyBackend);
//! ```

use std::{
    any::Any,
    collections::HashMap,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use abi_stable::{
    prefix_type::PrefixTypeTrait,
    sabi_trait::TD_Opaque,
    std_types::{RErr, ROption, RSlice, RSliceMut, RStr, RVec},
};

use crate::{
    contract::*,
    error::{BackendError, Code, Result},
    graph::{Graph, Node, Step, Tensor},
};

/// A backend. All of it is static: a library holds one backend.
pub trait Backend: 'static {
    /// The name, as `--backend` takes it.
    const NAME: &'static str;
    /// The version that `host backends` shows.
    const VERSION: &'static str;

    /// How well it can serve on this machine; see [`BackendFunctions::score`].
    fn score(services: HostServices) -> Result<Score>;
    /// The devices that are here.
    fn devices(services: HostServices) -> Result<Vec<DeviceInfo>>;
    /// Opens a device.
    fn open(services: HostServices, device: u32, options: &OpenOptions) -> Result<Box<dyn Device>>;
    /// Whether the device serves the node; [`BackendError::unsupported`] says why not.
    fn supports(device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()>;

    /// Bytes of scratch memory for the node.
    fn workspace(_device: &DeviceInfo, _graph: &Graph<'_>, _node: &Node) -> Result<u64> {
        Ok(0)
    }

    /// What an uploaded weight takes: as in the file, unless the backend arranges it anew.
    fn weight(_device: &DeviceInfo, weight: &Tensor) -> Result<WeightLayout> {
        let bytes = weight
            .extent()
            .ok_or_else(|| BackendError::invalid("a weight of unknown type or size"))?;
        Ok(WeightLayout { bytes, alignment: 64 })
    }

    /// How the device's memory is divided.
    fn memory(_device: &DeviceInfo) -> Result<MemoryRules> {
        Ok(MemoryRules {
            granularity: 64,
            alignment: 64,
        })
    }

    /// A versioned interface by name.
    fn query(_name: &str) -> Option<Interface> {
        None
    }
}

/// An open device; see [`DeviceInterface`] for what each function promises. The defaults suit a device that works while
/// it is called: its queues are always done, its events always signalled.
pub trait Device: Send + Sync {
    /// Memory of `bytes` bytes.
    fn allocate(&self, bytes: u64) -> Result<BufferId>;
    /// Gives a buffer back.
    fn free(&self, buffer: BufferId) -> Result<()>;
    /// Copies host memory to `offset` of a buffer.
    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()>;
    /// Copies from `offset` of a buffer to host memory.
    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()>;
    /// Makes a program of a graph.
    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId>;
    /// All that a program needs.
    fn needs(&self, program: ProgramId) -> Result<ProgramNeeds>;
    /// Ends a program.
    fn free_program(&self, program: ProgramId) -> Result<()>;
    /// Runs a program.
    fn run(
        &self,
        queue: QueueId,
        program: ProgramId,
        bindings: &[Binding],
        workspace: Binding,
        step: Step,
    ) -> Result<()>;
    /// Memory free now, in bytes.
    fn free_memory(&self) -> Result<u64>;

    /// Uses host memory as a buffer.
    ///
    /// # Safety
    /// `memory` stays in place, valid and unchanged until the buffer is freed.
    unsafe fn import(&self, _memory: &[u8]) -> Result<BufferId> {
        Err(BackendError::unsupported("this device does not import host memory"))
    }

    /// Copies a weight as it lies in the file, in the layout that [`Backend::weight`] declared. Programs bind it by itself, and
    /// describe views of it as in the file.
    fn upload(&self, queue: QueueId, buffer: BufferId, offset: u64, _weight: &Tensor, data: &[u8]) -> Result<()> {
        self.write(queue, buffer, offset, data)
    }

    /// Copies between buffers.
    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Result<()> {
        if from.device != to.device {
            return Err(BackendError::unsupported("this device does not copy to others"));
        }
        let mut staging = vec![0; usize::try_from(bytes).map_err(|_| BackendError::invalid("copy is too large"))?];
        self.read(queue, from.buffer, from.offset, &mut staging)?;
        self.write(queue, to.buffer, to.offset, &staging)
    }

    /// A new queue.
    fn create_queue(&self) -> Result<QueueId> {
        Ok(QueueId(0))
    }
    /// Ends a queue.
    fn free_queue(&self, _queue: QueueId) -> Result<()> {
        Ok(())
    }
    /// A new event.
    fn create_event(&self) -> Result<EventId> {
        Ok(EventId(0))
    }
    /// Ends an event.
    fn free_event(&self, _event: EventId) -> Result<()> {
        Ok(())
    }
    /// Signals an event.
    fn signal(&self, _queue: QueueId, _event: EventId) -> Result<()> {
        Ok(())
    }
    /// Waits for an event.
    fn wait(&self, _queue: QueueId, _device: u32, _event: EventId) -> Result<()> {
        Ok(())
    }
    /// Waits for a queue's work.
    fn synchronize(&self, _queue: QueueId) -> Result<()> {
        Ok(())
    }
    /// What the device counted so far.
    fn counters(&self) -> Result<Vec<Counter>> {
        Ok(Vec::new())
    }
}

/// Runs `f`; a panic in it becomes an error. Nothing may unwind across the boundary: it would end the process.
pub fn guard<T>(f: impl FnOnce() -> Result<T>) -> Outcome<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.into(),
        Err(payload) => RErr(BackendError::new(
            Code::Panicked,
            format!("the plugin panicked: {}", message_of(payload)),
        )),
    }
}

/// What a panic said. The payload is leaked: dropping a stranger's value may panic again.
fn message_of(payload: Box<dyn Any + Send>) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    std::mem::forget(payload);
    message
}

/// A device behind its guard.
struct Guarded(ManuallyDrop<Box<dyn Device>>);

impl Drop for Guarded {
    /// Closes the device. A panic in that ends here, since the host could not catch it; what was left is leaked.
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after.
        let device = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(device))) {
            std::mem::forget(payload);
        }
    }
}

impl DeviceInterface for Guarded {
    fn allocate(&self, bytes: u64) -> Outcome<BufferId> {
        guard(|| self.0.allocate(bytes))
    }
    fn free(&self, buffer: BufferId) -> Outcome<()> {
        guard(|| self.0.free(buffer))
    }
    fn import(&self, memory: RSlice<'_, u8>) -> Outcome<BufferId> {
        // SAFETY: the contract's `import` asks of the host what `Device::import` asks of its caller.
        guard(|| unsafe { self.0.import(memory.as_slice()) })
    }
    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: RSlice<'_, u8>) -> Outcome<()> {
        guard(|| self.0.write(queue, buffer, offset, data.as_slice()))
    }
    fn upload(
        &self,
        queue: QueueId,
        buffer: BufferId,
        offset: u64,
        weight: &Tensor,
        data: RSlice<'_, u8>,
    ) -> Outcome<()> {
        guard(|| self.0.upload(queue, buffer, offset, weight, data.as_slice()))
    }
    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: RSliceMut<'_, u8>) -> Outcome<()> {
        guard(|| self.0.read(queue, buffer, offset, data.into_mut_slice()))
    }
    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Outcome<()> {
        guard(|| self.0.copy(queue, from, to, bytes))
    }
    fn create_queue(&self) -> Outcome<QueueId> {
        guard(|| self.0.create_queue())
    }
    fn free_queue(&self, queue: QueueId) -> Outcome<()> {
        guard(|| self.0.free_queue(queue))
    }
    fn create_event(&self) -> Outcome<EventId> {
        guard(|| self.0.create_event())
    }
    fn free_event(&self, event: EventId) -> Outcome<()> {
        guard(|| self.0.free_event(event))
    }
    fn signal(&self, queue: QueueId, event: EventId) -> Outcome<()> {
        guard(|| self.0.signal(queue, event))
    }
    fn wait(&self, queue: QueueId, device: u32, event: EventId) -> Outcome<()> {
        guard(|| self.0.wait(queue, device, event))
    }
    fn synchronize(&self, queue: QueueId) -> Outcome<()> {
        guard(|| self.0.synchronize(queue))
    }
    fn compile(&self, graph: &Graph<'_>) -> Outcome<ProgramId> {
        guard(|| self.0.compile(graph))
    }
    fn needs(&self, program: ProgramId) -> Outcome<ProgramNeeds> {
        guard(|| self.0.needs(program))
    }
    fn free_program(&self, program: ProgramId) -> Outcome<()> {
        guard(|| self.0.free_program(program))
    }
    fn run(
        &self,
        queue: QueueId,
        program: ProgramId,
        bindings: RSlice<'_, Binding>,
        workspace: Binding,
        step: Step,
    ) -> Outcome<()> {
        guard(|| self.0.run(queue, program, bindings.as_slice(), workspace, step))
    }
    fn free_memory(&self) -> Outcome<u64> {
        guard(|| self.0.free_memory())
    }
    fn counters(&self) -> Outcome<RVec<Counter>> {
        guard(|| Ok(self.0.counters()?.into()))
    }
}

extern "C" fn score<B: Backend>(services: HostServices) -> Outcome<Score> {
    guard(|| B::score(services))
}

extern "C" fn devices<B: Backend>(services: HostServices) -> Outcome<RVec<DeviceInfo>> {
    guard(|| Ok(B::devices(services)?.into()))
}

fn node_of<'a>(graph: &Graph<'a>, node: u32) -> Result<&'a Node> {
    let missing = || BackendError::invalid(format!("the graph has no node {node}"));
    graph.nodes.as_slice().get(node as usize).ok_or_else(missing)
}

extern "C" fn supports<B: Backend>(device: &DeviceInfo, graph: &Graph<'_>, node: u32) -> Outcome<()> {
    guard(|| B::supports(device, graph, node_of(graph, node)?))
}

extern "C" fn workspace<B: Backend>(device: &DeviceInfo, graph: &Graph<'_>, node: u32) -> Outcome<u64> {
    guard(|| B::workspace(device, graph, node_of(graph, node)?))
}

extern "C" fn weight<B: Backend>(device: &DeviceInfo, weight: &Tensor) -> Outcome<WeightLayout> {
    guard(|| B::weight(device, weight))
}

extern "C" fn memory<B: Backend>(device: &DeviceInfo) -> Outcome<MemoryRules> {
    guard(|| B::memory(device))
}

extern "C" fn open<B: Backend>(services: HostServices, device: u32, options: &OpenOptions) -> Outcome<DeviceObject> {
    guard(|| {
        Ok(DeviceInterface_TO::from_value(
            Guarded(ManuallyDrop::new(B::open(services, device, options)?)),
            TD_Opaque,
        ))
    })
}

extern "C" fn query<B: Backend>(name: RStr<'_>) -> ROption<Interface> {
    guard(|| Ok(B::query(name.as_str())))
        .into_result()
        .ok()
        .flatten()
        .into()
}

/// The root module of a backend: what [`crate::export_backend!`] exports.
pub fn module<B: Backend>() -> BackendModule {
    BackendFunctions {
        name: RStr::from_str(B::NAME),
        version: RStr::from_str(B::VERSION),
        score: score::<B>,
        devices: devices::<B>,
        supports: supports::<B>,
        workspace: workspace::<B>,
        weight: weight::<B>,
        memory: memory::<B>,
        open: open::<B>,
        query: query::<B>,
    }
    .leak_into_prefix()
}

/// Exports a type that implements [`Backend`] as this library's backend.
#[macro_export]
macro_rules! export_backend {
    ($backend:ty) => {
        const _: () = {
            fn module() -> $crate::contract::BackendModule {
                $crate::plugin::module::<$backend>()
            }

            extern "C" fn load() -> $crate::abi_stable::library::RootModuleResult {
                $crate::abi_stable::library::__call_root_module_loader(module)
            }

            // SAFETY: the name is abi_stable's own, so no other item of a backend has it; `load` makes the module that
            // the header is typed with.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            #[used]
            pub static HEADER: $crate::abi_stable::library::LibHeader = unsafe {
                $crate::abi_stable::library::LibHeader::from_constructor::<$crate::contract::BackendModule>(
                    load,
                    $crate::abi_stable::library::CheckTypeLayout::Yes,
                )
            };
        };
    };
}

/// What a device gave handles for: a table from numbers to values, for authors.
pub struct Handles<T> {
    what: &'static str,
    table: RwLock<(u64, HashMap<u64, Arc<T>>)>,
}

impl<T> Handles<T> {
    /// An empty table; `what` names its values in errors.
    pub fn new(what: &'static str) -> Self {
        Handles {
            what,
            table: RwLock::new((1, HashMap::new())),
        }
    }

    /// Takes a value and gives its number. Numbers are not used twice.
    pub fn insert(&self, value: T) -> u64 {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let id = table.0;
        table.0 += 1;
        table.1.insert(id, Arc::new(value));
        id
    }

    /// The value with this number.
    pub fn get(&self, id: u64) -> Result<Arc<T>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.1.get(&id).cloned().ok_or_else(|| self.unknown(id))
    }

    /// Takes a value out.
    pub fn remove(&self, id: u64) -> Result<Arc<T>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.1.remove(&id).ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: u64) -> BackendError {
        BackendError::invalid(format!("this device has no {} {id}", self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let outcome: Outcome<()> = guard(|| panic!("out of {}", "luck"));
        let error = outcome.into_result().unwrap_err();
        assert_eq!(error.code(), Code::Panicked);
        assert_eq!(error.message.as_str(), "the plugin panicked: out of luck");
    }

    /// Serves nothing, and fails when it is closed.
    struct Fragile;

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("it cannot be closed");
        }
    }

    impl Device for Fragile {
        fn allocate(&self, _: u64) -> Result<BufferId> {
            Err(BackendError::failed("no memory"))
        }
        fn free(&self, _: BufferId) -> Result<()> {
            Ok(())
        }
        fn write(&self, _: QueueId, _: BufferId, _: u64, _: &[u8]) -> Result<()> {
            Ok(())
        }
        fn read(&self, _: QueueId, _: BufferId, _: u64, _: &mut [u8]) -> Result<()> {
            Ok(())
        }
        fn compile(&self, _: &Graph<'_>) -> Result<ProgramId> {
            Ok(ProgramId(0))
        }
        fn needs(&self, _: ProgramId) -> Result<ProgramNeeds> {
            Ok(ProgramNeeds::default())
        }
        fn free_program(&self, _: ProgramId) -> Result<()> {
            Ok(())
        }
        fn run(&self, _: QueueId, _: ProgramId, _: &[Binding], _: Binding, _: Step) -> Result<()> {
            Ok(())
        }
        fn free_memory(&self) -> Result<u64> {
            Ok(0)
        }
    }

    impl Backend for Fragile {
        const NAME: &'static str = "fragile";
        const VERSION: &'static str = "0";

        fn score(_: HostServices) -> Result<Score> {
            Ok(Score::new(1.0, "a test"))
        }
        fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
            Ok(Vec::new())
        }
        fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
            Ok(Box::new(Fragile))
        }
        fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
            Ok(())
        }
    }

    extern "C" fn ignore(_: u32, _: RStr<'_>, _: RStr<'_>) {}

    #[test]
    fn a_device_that_panics_while_it_is_closed_takes_nobody_with_it() {
        let services = HostServices {
            log: ignore,
            level: 0,
            reserved: 0,
            reserved2: [0; 6],
        };
        let opened = module::<Fragile>().open()(services, 0, &OpenOptions::default());
        let device = opened.into_result().unwrap();
        assert!(device.allocate(1).into_result().is_err());
        drop(device);
    }

    #[test]
    fn the_exported_symbol_is_the_one_that_hosts_look_for() {
        assert_eq!(
            crate::contract::ROOT_SYMBOL,
            abi_stable::library::ROOT_MODULE_LOADER_NAME
        );
    }

    #[test]
    fn handles_are_not_used_twice() {
        let handles = Handles::new("buffer");
        let first = handles.insert('a');
        handles.remove(first).unwrap();
        assert_ne!(handles.insert('b'), first);
        assert_eq!(
            handles.get(first).unwrap_err().message.as_str(),
            format!("this device has no buffer {first}")
        );
    }
}
