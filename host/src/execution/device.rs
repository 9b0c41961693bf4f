//! A backend's device: first as a description that plans are made for, then open.

use std::sync::Arc;

use backend_api::{
    BackendError, Result,
    contract::{
        BackendModule, Binding, BufferId, Counter, DeviceInfo, DeviceKind, DeviceObject, EventId, HostServices,
        MemoryRules, OpenOptions, Place, ProgramId, ProgramNeeds, QueueId, WeightLayout, flags,
    },
    graph::{Graph, Step, Tensor},
};

use super::ledger::Ledger;
use crate::plugins::answer::told;

/// The most bytes that one answer of a backend may name: more than any device has, and few enough that what is summed
/// of them stays far below 2^64.
const MOST_BYTES: u64 = 1 << 46;

/// The most that sizes are rounded up to a multiple of.
const MOST_ROUNDING: u64 = 1 << 32;

fn is_alignment(bytes: u64) -> bool {
    bytes.is_power_of_two() && bytes <= MOST_ROUNDING
}

/// `answer`, or an error that shows it.
fn sensible<T: std::fmt::Debug>(answer: T, holds: bool) -> Result<T> {
    match holds {
        true => Ok(answer),
        false => Err(BackendError::failed(format!(
            "the backend's answer makes no sense: {answer:?}, expected sizes up to 2^46, granularities from 1 to 2^32, \
             and alignments that are powers of two up to 2^32"
        ))),
    }
}

/// A device as plans see it. It need not be here.
#[derive(Clone)]
pub struct Target {
    /// The backend's name.
    pub backend: String,
    /// The backend's functions.
    pub module: BackendModule,
    /// The device. A logical one has the number of the device that it is part of, a size of its own, and imports nothing.
    pub info: DeviceInfo,
    /// For a logical device, its number among them: several share a real one, each with memory of its own.
    pub logical: Option<u32>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("backend", &self.backend)
            .field("info", &self.info)
            .field("logical", &self.logical)
            .finish_non_exhaustive()
    }
}

/// What the driver of a logical card is taken to keep for itself.
const ASSUMED_CONTEXT: u64 = 128 << 20;

impl Target {
    /// Whether the device serves a node; if not, why.
    pub fn supports(&self, graph: &Graph<'_>, node: u32) -> Result<()> {
        told(self.module.supports()(&self.info, graph, node))
    }

    /// Bytes of scratch memory for a node.
    pub fn workspace(&self, graph: &Graph<'_>, node: u32) -> Result<u64> {
        let bytes = told(self.module.workspace()(&self.info, graph, node))?;
        sensible(bytes, bytes <= MOST_BYTES)
    }

    /// What an uploaded weight takes: at least what it has in the file, since so much is bound for it.
    pub fn weight(&self, weight: &Tensor) -> Result<WeightLayout> {
        let layout = told(self.module.weight()(&self.info, weight))?;
        let layout = sensible(layout, layout.bytes <= MOST_BYTES && is_alignment(layout.alignment))?;
        Ok(WeightLayout {
            bytes: layout.bytes.max(weight.extent().unwrap_or(0)),
            ..layout
        })
    }

    /// How its memory is divided.
    pub fn memory(&self) -> Result<MemoryRules> {
        let rules = told(self.module.memory()(&self.info))?;
        let granular = (1..=MOST_ROUNDING).contains(&rules.granularity);
        sensible(rules, granular && is_alignment(rules.alignment))
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
        format!("{} {}", self.short_label(), self.info.name)
            .trim_end()
            .to_owned()
    }

    /// `cpu:0`, as it is asked for, and `cpu:0/2` for the third logical device over it.
    pub fn short_label(&self) -> String {
        match self.logical {
            None => format!("{}:{}", self.backend, self.info.id),
            Some(number) => format!("{}:{}/{number}", self.backend, self.info.id),
        }
    }

    /// Bytes that a driver keeps for itself, which no plan has: assumed of a logical card. What is free of a real one is
    /// measured beside it.
    pub fn context(&self) -> u64 {
        match (self.kind(), self.logical) {
            (DeviceKind::Gpu, Some(_)) => ASSUMED_CONTEXT,
            _ => 0,
        }
    }

    /// Whether both are the same real device.
    pub fn is_part_of(&self, other: &Target) -> bool {
        self.backend == other.backend && self.info.id == other.info.id
    }

    /// Whether it copies to the other without the host.
    pub fn reaches(&self, other: &Target) -> bool {
        let peers = self.info.flags & other.info.flags & flags::PEER_COPY != 0;
        self.is_part_of(other) || peers && self.backend == other.backend
    }

    /// Opens the device; or shares it, where one of `opened` is the same real one.
    pub fn open<'a>(
        &self,
        services: HostServices,
        options: &OpenOptions,
        opened: impl IntoIterator<Item = &'a Device>,
    ) -> Result<Device> {
        let shared = opened.into_iter().find(|other| self.is_part_of(&other.target));
        let object = match shared {
            Some(other) => other.object.clone(),
            None => Arc::new(told(self.module.open()(services, self.info.id, options))?),
        };
        let queue = told(object.create_queue())?;
        Ok(Device {
            object,
            queue,
            ledger: Ledger::new(self.logical.map(|_| self.info.total)),
            target: self.clone(),
        })
    }
}

/// An open device with one queue.
pub struct Device {
    object: Arc<DeviceObject>,
    queue: QueueId,
    ledger: Ledger,
    target: Target,
}

impl Device {
    /// Its description.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Memory of `bytes` bytes, uninitialized.
    pub fn allocate(&self, bytes: u64) -> Result<BufferId> {
        self.ledger.allocate(bytes, || told(self.object.allocate(bytes)))
    }

    /// Uses `memory` as a buffer that is only read.
    ///
    /// # Safety
    /// `memory` stays in place, valid and unchanged until the device is dropped.
    pub unsafe fn import(&self, memory: &[u8]) -> Result<BufferId> {
        told(self.object.import(memory.into()))
    }

    /// Copies `data` to `offset` of a buffer.
    pub fn write(&self, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        told(self.object.write(self.queue, buffer, offset, data.into()))
    }

    /// Copies a weight as it lies in the file to `offset` of a buffer.
    pub fn upload(&self, buffer: BufferId, offset: u64, weight: &Tensor, data: &[u8]) -> Result<()> {
        told(self.object.upload(self.queue, buffer, offset, weight, data.into()))
    }

    /// Copies from `offset` of a buffer, after all work so far.
    pub fn read(&self, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        told(self.object.read(self.queue, buffer, offset, data.into()))
    }

    /// Whether [`Device::copy`] goes to the other.
    pub fn reaches(&self, other: &Device) -> bool {
        self.target.reaches(&other.target)
    }

    /// Whether both are the same real device.
    pub fn shares_with(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.object, &other.object)
    }

    /// Copies within one buffer, between two of this device, or to one of another that it reaches.
    pub fn copy(&self, from: (BufferId, u64), to: &Device, place: (BufferId, u64), bytes: u64) -> Result<()> {
        let place_of = |device: &Device, (buffer, offset)| Place {
            device: device.target.info.id,
            reserved: 0,
            buffer,
            offset,
        };
        told(
            self.object
                .copy(self.queue, place_of(self, from), place_of(to, place), bytes),
        )
    }

    /// A new event.
    pub fn create_event(&self) -> Result<EventId> {
        told(self.object.create_event())
    }

    /// Holds the later work of `other` until all work of this device so far is done; `event` is one of this device.
    pub fn holds(&self, event: EventId, other: &Device) -> Result<()> {
        told(self.object.signal(self.queue, event))?;
        told(other.object.wait(other.queue, self.target.info.id, event))
    }

    /// Waits until all work so far is done.
    pub fn synchronize(&self) -> Result<()> {
        told(self.object.synchronize(self.queue))
    }

    /// Makes a program of a graph; it stays until the device is dropped.
    pub fn compile(&self, graph: &Graph<'_>) -> Result<(ProgramId, ProgramNeeds)> {
        let program = told(self.object.compile(graph))?;
        Ok((program, told(self.object.needs(program))?))
    }

    /// Runs a program.
    pub fn run(&self, program: ProgramId, bindings: &[Binding], workspace: Binding, step: Step) -> Result<()> {
        told(self.object.run(self.queue, program, bindings.into(), workspace, step))
    }

    /// Bytes that were allocated here, and the most that ever were.
    pub fn allocated(&self) -> (u64, u64) {
        self.ledger.counted()
    }

    /// What the real device counted so far, for all that share it.
    pub fn counters(&self) -> Result<Vec<Counter>> {
        Ok(told(self.object.counters())?.into_vec())
    }
}

#[cfg(test)]
mod tests {
    use backend_api::{
        contract::Score,
        graph::Node,
        plugin::{self, Backend, module},
        types::Type,
    };

    use super::*;

    /// Answers with the numbers that its description has.
    struct Absurd;

    impl Backend for Absurd {
        const NAME: &'static str = "absurd";
        const VERSION: &'static str = "0";

        fn score(_: HostServices) -> Result<Score> {
            Ok(Score::new(1.0, "a test"))
        }
        fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
            Ok(Vec::new())
        }
        fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn plugin::Device>> {
            Err(BackendError::failed("it is not here"))
        }
        fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
            Ok(())
        }
        fn workspace(info: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<u64> {
            Ok(info.total)
        }
        fn weight(info: &DeviceInfo, _: &Tensor) -> Result<WeightLayout> {
            Ok(WeightLayout {
                bytes: info.total,
                alignment: info.free,
            })
        }
        fn memory(info: &DeviceInfo) -> Result<MemoryRules> {
            Ok(MemoryRules {
                granularity: info.total,
                alignment: info.free,
            })
        }
    }

    fn target(size: u64, alignment: u64) -> Target {
        Target {
            backend: "absurd".into(),
            module: module::<Absurd>(),
            info: DeviceInfo {
                total: size,
                free: alignment,
                ..DeviceInfo::default()
            },
            logical: None,
        }
    }

    #[test]
    fn sizes_that_sums_cannot_hold_and_alignments_that_are_none_are_refused() {
        let weight = Tensor::contiguous(Type::F32, [1; 4], 0, 0).unwrap();
        let (tensors, nodes) = ([weight], [Node::new(1, &[], 0)]);
        let graph = Graph::new(&tensors, &nodes, &[], 1, 1);
        let answers = |size, alignment| {
            let target = target(size, alignment);
            [
                target.memory().is_ok(),
                target.weight(&weight).is_ok(),
                target.workspace(&graph, 0).is_ok(),
            ]
        };
        assert_eq!(answers(4096, 64), [true; 3]);
        assert_eq!(answers(1 << 46, 1), [false, true, true]);
        assert_eq!(answers(u64::MAX, 64), [false; 3]);
        for alignment in [0, 3, u64::MAX, 1 << 63] {
            assert_eq!(answers(4096, alignment), [false, false, true], "{alignment}");
        }
        assert!(target(0, 64).memory().is_err());
    }
}
