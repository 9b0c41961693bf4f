//! A backend of this contract.

use std::{thread, time::Duration};

use backend_api::{
    BackendError, Result,
    contract::{
        Binding, BufferId, DeviceInfo, DeviceKind, HostServices, Level, OpenOptions, ProgramId, ProgramNeeds, QueueId,
        Score,
    },
    graph::{Graph, Node, Step},
    plugin::{Backend, Device, Handles},
};

struct Faulty;

impl Backend for Faulty {
    const NAME: &'static str = if cfg!(feature = "cannot-serve") {
        "absent"
    } else if cfg!(feature = "no-open") {
        "closed"
    } else {
        "plain"
    };
    const VERSION: &'static str = if cfg!(feature = "better") { "2.0.0" } else { "1.0.0" };

    fn score(services: HostServices) -> Result<Score> {
        services.log(Level::Info, "plain", || "asked for its score".into());
        if cfg!(feature = "panics") {
            panic!("no luck today");
        }
        if cfg!(feature = "aborts") {
            std::process::abort();
        }
        while cfg!(feature = "hangs") {
            thread::sleep(Duration::from_millis(100));
        }
        if cfg!(feature = "cannot-serve") {
            return Ok(score(0.0, "libabsent.so.1 not found"));
        }
        if cfg!(feature = "no-number") {
            return Ok(score(f32::NAN, "0/0"));
        }
        Ok(score(if cfg!(feature = "better") { 2.0 } else { 1.5 }, "always there"))
    }

    fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            id: 0,
            kind: DeviceKind::Other as u32,
            name: "nothing at all".into(),
            total: 1 << 30,
            free: 1 << 29,
            flags: 0,
            capability: 0,
            reserved: [0; 6],
        }])
    }

    fn open(_: HostServices, device: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
        match device {
            0 if cfg!(feature = "no-open") => Err(BackendError::out_of_memory("the device is full")),
            0 => Ok(Box::new(Memory(Handles::new("buffer")))),
            _ => Err(BackendError::invalid(format!("there is no device {device}"))),
        }
    }

    fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
        Err(BackendError::unsupported("this backend has no operations"))
    }
}

fn score(value: f32, reason: &str) -> Score {
    Score {
        value,
        reason: reason.into(),
    }
}

/// A device that only counts bytes.
struct Memory(Handles<u64>);

impl Device for Memory {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        Ok(BufferId(self.0.insert(bytes)))
    }
    fn free(&self, buffer: BufferId) -> Result<()> {
        self.0.remove(buffer.0).map(drop)
    }
    fn write(&self, _: QueueId, buffer: BufferId, _: u64, _: &[u8]) -> Result<()> {
        self.0.get(buffer.0).map(drop)
    }
    fn read(&self, _: QueueId, buffer: BufferId, _: u64, _: &mut [u8]) -> Result<()> {
        self.0.get(buffer.0).map(drop)
    }
    fn compile(&self, _: &Graph<'_>) -> Result<ProgramId> {
        Err(BackendError::unsupported("this backend has no operations"))
    }
    fn needs(&self, _: ProgramId) -> Result<ProgramNeeds> {
        Err(BackendError::invalid("there are no programs"))
    }
    fn free_program(&self, _: ProgramId) -> Result<()> {
        Err(BackendError::invalid("there are no programs"))
    }
    fn run(&self, _: QueueId, _: ProgramId, _: &[Binding], _: Binding, _: Step) -> Result<()> {
        Err(BackendError::invalid("there are no programs"))
    }
    fn free_memory(&self) -> Result<u64> {
        Ok(1 << 29)
    }
}

backend_api::export_backend!(Faulty);
