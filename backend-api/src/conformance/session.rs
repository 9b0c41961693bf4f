//! A device under test, and memory of it with guards around.

use abi_stable::std_types::{RSlice, RSliceMut};

use super::image::{Garbage, litter};
use crate::{
    contract::{BackendModule, Binding, BufferId, DeviceInfo, DeviceObject, MemoryRules, ProgramId, QueueId},
    graph::{Graph, Step, Tensor},
};

/// The device that is tested.
pub(super) struct Session {
    pub module: BackendModule,
    pub info: DeviceInfo,
    pub device: DeviceObject,
    pub queue: QueueId,
    pub rules: MemoryRules,
}

/// A plugin's error as text.
pub(super) fn failed(what: &str) -> impl Fn(crate::BackendError) -> String + '_ {
    move |e| format!("{what} failed: {e}")
}

/// Memory of the device, freed in the end.
pub(super) struct Held<'a> {
    session: &'a Session,
    pub id: BufferId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // An error of `free` has its own case; here nobody could take it.
        let _ = self.session.device.free(self.id);
    }
}

/// A program of the device, freed in the end.
pub(super) struct Compiled<'a> {
    session: &'a Session,
    pub id: ProgramId,
}

impl Drop for Compiled<'_> {
    fn drop(&mut self) {
        let _ = self.session.device.free_program(self.id);
    }
}

impl Session {
    pub fn hold(&self, bytes: usize) -> Result<Held<'_>, String> {
        let id = self.device.allocate(bytes as u64).into_result();
        let id = id.map_err(failed("allocate"))?;
        Ok(self.held(id))
    }

    /// Takes over a buffer.
    pub fn held(&self, id: BufferId) -> Held<'_> {
        Held { session: self, id }
    }

    pub fn write(&self, buffer: BufferId, offset: usize, bytes: &[u8]) -> Result<(), String> {
        let done = self.device.write(self.queue, buffer, offset as u64, bytes.into());
        done.into_result().map_err(failed("write"))
    }

    pub fn read(&self, buffer: BufferId, offset: usize, bytes: usize) -> Result<Vec<u8>, String> {
        let mut memory = vec![0; bytes];
        let into = RSliceMut::from_mut_slice(&mut memory);
        let done = self.device.read(self.queue, buffer, offset as u64, into);
        done.into_result().map_err(failed("read"))?;
        Ok(memory)
    }

    pub fn compile(&self, graph: &Graph<'_>) -> Result<Compiled<'_>, String> {
        let id = self.device.compile(graph).into_result();
        let id = id.map_err(failed("compile of a graph whose nodes are supported"))?;
        Ok(Compiled { session: self, id })
    }

    /// Runs and waits.
    pub fn run(&self, program: ProgramId, bindings: &[Binding], workspace: Binding, step: Step) -> Result<(), String> {
        let bindings = RSlice::from_slice(bindings);
        let done = self.device.run(self.queue, program, bindings, workspace, step);
        done.into_result().map_err(failed("run"))?;
        let done = self.device.synchronize(self.queue);
        done.into_result().map_err(failed("synchronize after run"))
    }
}

/// Bytes on both sides of what is bound.
const GUARD: usize = 128;

/// Bound memory with a guard on both sides.
pub(super) struct Guarded<'a> {
    held: Held<'a>,
    lead: usize,
    bytes: usize,
    /// All that the device's buffer should hold, guards included.
    image: Vec<u8>,
}

impl<'a> Guarded<'a> {
    /// Uninitialized memory that starts at a multiple of `alignment`.
    pub fn new(session: &'a Session, bytes: usize, alignment: u64) -> Result<Guarded<'a>, String> {
        let lead = GUARD.next_multiple_of(alignment.max(1) as usize);
        let mut image = vec![0; lead + bytes + GUARD];
        let held = session.hold(image.len())?;
        litter(Garbage::NotNumbers, held.id.0 ^ 0x5afe, &mut image);
        Ok(Guarded {
            held,
            lead,
            bytes,
            image,
        })
    }

    pub fn binding(&self) -> Binding {
        Binding {
            buffer: self.held.id,
            offset: self.lead as u64,
            bytes: self.bytes as u64,
        }
    }

    /// Writes what is bound, and the guards.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.image[self.lead..self.lead + self.bytes].copy_from_slice(bytes);
        self.held.session.write(self.held.id, 0, &self.image)
    }

    /// Uploads a weight between the guards and remembers what then lies there.
    pub fn upload(&mut self, weight: &Tensor, bytes: &[u8]) -> Result<(), String> {
        let session = self.held.session;
        session.write(self.held.id, 0, &self.image)?;
        let at = self.lead as u64;
        let done = session
            .device
            .upload(session.queue, self.held.id, at, weight, bytes.into());
        done.into_result().map_err(failed("upload"))?;
        let uploaded = session.read(self.held.id, self.lead, self.bytes)?;
        self.image[self.lead..self.lead + self.bytes].copy_from_slice(&uploaded);
        self.intact("uploading a weight")
    }

    /// What is bound now; an error where a guard was changed.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        let all = self.held.session.read(self.held.id, 0, self.image.len())?;
        let (end, mut at) = (self.lead + self.bytes, 0..self.image.len());
        if let Some(at) = at.find(|&i| !(self.lead..end).contains(&i) && all[i] != self.image[i]) {
            let place = at as i64 - self.lead as i64;
            return Err(format!(
                "byte {place} of {} bound bytes was written: outside of them",
                self.bytes
            ));
        }
        Ok(all[self.lead..end].to_vec())
    }

    /// An error where anything differs from what was written.
    pub fn intact(&self, what: &str) -> Result<(), String> {
        let now = self.read()?;
        let then = &self.image[self.lead..self.lead + self.bytes];
        match now.iter().zip(then).position(|(a, b)| a != b) {
            Some(at) => Err(format!("{what} changed byte {at} of memory that is only read")),
            None => Ok(()),
        }
    }
}
