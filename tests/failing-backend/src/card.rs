//! A card: a device of the CPU backend, each call to which may fail.

use std::{
    collections::HashMap,
    env,
    fs::OpenOptions,
    io::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use backend_api::{
    BackendError, Result,
    contract::{Binding, BufferId, Counter, EventId, Place, ProgramId, ProgramNeeds, QueueId},
    graph::{Graph, Step},
    plugin::Device,
};

use crate::faults::{Call, check};

/// What computes, with a queue for what other cards copy there.
struct Inner {
    device: Box<dyn Device>,
    queue: QueueId,
}

/// The cards that are open, which copy to each other.
static OPEN: LazyLock<Mutex<HashMap<u32, Weak<Inner>>>> = LazyLock::new(Mutex::default);

pub struct Card {
    number: u32,
    inner: Arc<Inner>,
}

impl Card {
    pub fn new(number: u32, device: Box<dyn Device>) -> Result<Card> {
        let queue = device.create_queue()?;
        let inner = Arc::new(Inner { device, queue });
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::downgrade(&inner));
        log(&format!("opened {number}"));
        Ok(Card { number, inner })
    }

    /// What computes, unless this call fails.
    fn at(&self, call: Call) -> Result<&dyn Device> {
        check(self.number, call)?;
        Ok(&*self.inner.device)
    }

    fn device(&self) -> &dyn Device {
        &*self.inner.device
    }
}

fn other(number: u32) -> Result<Arc<Inner>> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let other = open.get(&number).and_then(Weak::upgrade);
    other.ok_or_else(|| BackendError::invalid(format!("card {number} is not open")))
}

/// Adds a line to the file that `FAIL_LOG` names.
fn log(line: &str) {
    let Some(path) = env::var_os("FAIL_LOG") else { return };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.expect("FAIL_LOG can be written");
}

impl Drop for Card {
    /// With the last who holds it, a card's memory goes.
    fn drop(&mut self) {
        let counters = self.device().counters().unwrap_or_default();
        let bytes = counters
            .iter()
            .find(|counter| counter.name.as_str() == "allocated_bytes");
        let (bytes, others) = (bytes.map_or(0, |bytes| bytes.value), Arc::strong_count(&self.inner) - 1);
        log(&format!(
            "closed {} which gives back {bytes} bytes, held by {others} others",
            self.number
        ));
    }
}

impl Device for Card {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        self.at(Call::Allocate)?.allocate(bytes)
    }

    fn free(&self, buffer: BufferId) -> Result<()> {
        self.device().free(buffer)
    }

    fn write(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        self.at(Call::Write)?.write(queue, buffer, offset, data)
    }

    fn read(&self, queue: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        self.at(Call::Read)?.read(queue, buffer, offset, data)
    }

    fn copy(&self, queue: QueueId, from: Place, to: Place, bytes: u64) -> Result<()> {
        let device = self.at(Call::Copy)?;
        let mut staging = vec![0; bytes as usize];
        device.read(queue, from.buffer, from.offset, &mut staging)?;
        let other = other(to.device)?;
        other.device.write(other.queue, to.buffer, to.offset, &staging)
    }

    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        self.at(Call::Compile)?.compile(graph)
    }

    fn needs(&self, program: ProgramId) -> Result<ProgramNeeds> {
        self.device().needs(program)
    }

    fn free_program(&self, program: ProgramId) -> Result<()> {
        self.device().free_program(program)
    }

    fn run(
        &self,
        queue: QueueId,
        program: ProgramId,
        bindings: &[Binding],
        workspace: Binding,
        step: Step,
    ) -> Result<()> {
        self.at(Call::Run)?.run(queue, program, bindings, workspace, step)
    }

    fn free_memory(&self) -> Result<u64> {
        self.device().free_memory()
    }

    fn create_queue(&self) -> Result<QueueId> {
        self.device().create_queue()
    }

    fn create_event(&self) -> Result<EventId> {
        self.device().create_event()
    }

    fn signal(&self, queue: QueueId, event: EventId) -> Result<()> {
        self.device().signal(queue, event)
    }

    // all work is done when a function returns, so there is nothing to wait for
    fn wait(&self, _: QueueId, device: u32, _: EventId) -> Result<()> {
        other(device).map(drop)
    }

    fn synchronize(&self, queue: QueueId) -> Result<()> {
        self.at(Call::Synchronize)?.synchronize(queue)
    }

    fn counters(&self) -> Result<Vec<Counter>> {
        self.device().counters()
    }
}
