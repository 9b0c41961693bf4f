//! Memory, queues, captured runs and several devices, on the emulation, which puts off work until somebody waits for it.

use backend_api::abi_stable::std_types::{RSlice, RSliceMut};
use backend_api::{
    contract::{Binding, BufferId, DeviceObject, OpenOptions, Place, QueueId},
    draft::Draft,
    error::Code,
    graph::{Node, Role, Step, Symbol, Tensor},
    measure::Measure,
    operations::Operation,
    types::Type,
};
use host::{execution::device::Target, log};
use serde_json::Value;
use tests::{command, targets};

use crate::{EMULATED, emulation, has_card, plugin, plugins};

/// Values of a column.
const D: u32 = 5;
/// The most columns of a step.
const T: u32 = 16;

/// A device and a queue of it.
pub struct Opened {
    target: Target,
    pub device: DeviceObject,
    pub queue: QueueId,
}

impl Opened {
    fn new(target: &Target) -> Opened {
        let opened = target.module.open()(log::services(), target.info.id, &OpenOptions::default());
        let device = opened.into_result().unwrap();
        let queue = device.create_queue().into_result().unwrap();
        Opened {
            target: target.clone(),
            device,
            queue,
        }
    }

    /// Bytes that an uploaded weight takes.
    pub fn weight_bytes(&self, weight: &Tensor) -> u64 {
        self.target.weight(weight).unwrap().bytes
    }

    /// Memory with a tensor's bytes in it, as the device has them. The binding tells of the file's bytes alone.
    pub fn fill(&self, role: u32, tensor: &Tensor, data: &[u8]) -> Binding {
        let bytes = data.len() as u64;
        let bind = |buffer| Binding {
            buffer,
            offset: 0,
            bytes,
        };
        if role != Role::Weight as u32 {
            let binding = bind(self.hold(bytes));
            self.write(binding.buffer, data);
            return binding;
        }
        let binding = bind(self.hold(self.weight_bytes(tensor)));
        let data = RSlice::from_slice(data);
        let uploaded = self.device.upload(self.queue, binding.buffer, 0, tensor, data);
        uploaded.into_result().unwrap();
        binding
    }

    pub fn hold(&self, bytes: u64) -> BufferId {
        self.device.allocate(bytes).into_result().unwrap()
    }

    pub fn write(&self, buffer: BufferId, data: &[u8]) {
        let written = self.device.write(self.queue, buffer, 0, RSlice::from_slice(data));
        written.into_result().unwrap();
    }

    pub fn read(&self, buffer: BufferId, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let read = self
            .device
            .read(self.queue, buffer, 0, RSliceMut::from_mut_slice(&mut data));
        read.into_result().unwrap();
        data
    }

    fn place(&self, buffer: BufferId) -> Place {
        Place {
            device: self.target.info.id,
            reserved: 0,
            buffer,
            offset: 0,
        }
    }

    fn count(&self, name: &str) -> u64 {
        let counters = self.device.counters().into_result().unwrap();
        counters.iter().find(|c| c.name.as_str() == name).unwrap().value
    }
}

/// The emulated devices; without them, those of a card.
pub fn opened() -> Option<Vec<Opened>> {
    let library = emulation().or_else(|| has_card().then(plugin))?;
    Some(targets(library).iter().map(Opened::new).collect())
}

/// y = 2·(a + b) over `[D, T]`; the buffers are a, b and y.
fn doubled_sum() -> Draft {
    let mut draft = Draft::new(T, T);
    let mut place = |role| {
        let tensor = Tensor::contiguous(Type::F32, [D, T, 1, 1], 0, 0).unwrap();
        draft.place(role, tensor.symbolic(Symbol::Tokens, 1)).unwrap()
    };
    let operands = [place(Role::Input), place(Role::Input), place(Role::Output)];
    let node = Node::new(Operation::Add.id(), &operands[..2], operands[2]);
    draft.nodes.push(node.with_f32(0, 2.0).with_f32(1, 1.0));
    draft
}

const BYTES: u64 = (D * T * 4) as u64;

fn bytes_of(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn values_of(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks::<4>().0.iter();
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn a_run_that_comes_again_is_captured_and_replayed() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    let program = on.device.compile(&doubled_sum().graph()).into_result().unwrap();
    let buffers: [BufferId; 4] = std::array::from_fn(|_| on.hold(BYTES));
    let [a, b, y, other] = buffers;
    on.write(b, &bytes_of((0..D * T).map(|_| 1.0)));
    let run = |round: u32, tokens: u32, y: BufferId| {
        on.write(a, &bytes_of((0..D * T).map(|i| (round * 100 + i) as f32)));
        on.write(y, &bytes_of((0..D * T).map(|_| -1.0)));
        let bound = [a, b, y].map(|buffer| Binding {
            buffer,
            offset: 0,
            bytes: BYTES,
        });
        let step = Step {
            tokens,
            rows: tokens,
            context: round + 1,
            reserved: 0,
        };
        let ran = on
            .device
            .run(on.queue, program, RSlice::from_slice(&bound), bound[0], step);
        ran.into_result().unwrap();
        let expected = |i: u32| {
            if i < D * tokens {
                2.0 * ((round * 100 + i) as f32 + 1.0)
            } else {
                -1.0
            }
        };
        let found = values_of(&on.read(y, BYTES as usize));
        assert_eq!(found, (0..D * T).map(expected).collect::<Vec<_>>(), "round {round}");
        (on.count("captures"), on.count("replays"))
    };
    let rounds: Vec<(u64, u64)> = (0..4).map(|round| run(round, 1, y)).collect();
    assert_eq!(rounds, [(0, 0), (1, 1), (1, 2), (1, 3)]);
    // other memory, and other sizes, are other runs
    assert_eq!(run(4, 1, other), (1, 3));
    assert_eq!(run(5, 3, y), (1, 3));
    assert_eq!(run(6, 1, y), (1, 4));
    // a context that has grown much is launched anew
    assert_eq!(run(700, 1, y), (1, 4));
    // long steps are never captured
    assert_eq!([run(7, T, y), run(8, T, y)], [(1, 4); 2]);
    assert_eq!((on.count("runs"), on.count("kernel.add.cuda37")), (10, 10));
}

#[test]
fn writes_larger_than_what_is_pinned_arrive_whole_and_in_order() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    let bytes: Vec<u8> = (0..(41u32 << 20) + 13).map(|i| (i ^ (i >> 11)) as u8).collect();
    let buffer = on.hold(bytes.len() as u64);
    on.write(buffer, &bytes);
    for i in 0..1000u32 {
        on.write(buffer, &i.to_le_bytes());
    }
    let found = on.read(buffer, bytes.len());
    assert!(found[4..] == bytes[4..] && found[..4] == 999u32.to_le_bytes());
}

#[test]
fn devices_copy_to_each_other_and_wait_for_each_other() {
    let Some(devices) = opened() else { return };
    let [one, two, ..] = &devices[..] else {
        eprintln!("not tested: one device, of which GRAFT_CUDA37_DEVICES=2x1024 makes two");
        return;
    };
    let (from, to, end) = (one.hold(64), two.hold(64), two.hold(64));
    let event = one.device.create_event().into_result().unwrap();
    for round in 0..3u8 {
        let bytes = [round; 64];
        one.write(from, &bytes);
        let copied = one.device.copy(one.queue, one.place(from), two.place(to), 64);
        copied.into_result().unwrap();
        one.device.signal(one.queue, event).into_result().unwrap();
        two.device
            .wait(two.queue, one.target.info.id, event)
            .into_result()
            .unwrap();
        let copied = two.device.copy(two.queue, two.place(to), two.place(end), 64);
        copied.into_result().unwrap();
        assert_eq!(two.read(end, 64), bytes);
    }
    // a device copies what is its own
    let wrong = two.device.copy(two.queue, one.place(from), two.place(to), 64);
    assert_eq!(wrong.into_result().unwrap_err().code(), Code::Invalid);
}

#[test]
fn memory_ends_where_the_device_says() {
    let Some(devices) = opened() else { return };
    let on = &devices[0];
    let free = on.device.free_memory().into_result().unwrap();
    let refused = on.device.allocate(free + 1).into_result().unwrap_err();
    assert_eq!(refused.code(), Code::OutOfMemory);
    assert_eq!(on.count("allocated_bytes"), 0);
}

#[test]
fn how_fast_memory_is_read_can_be_measured() {
    let Some(library) = emulation() else { return };
    let target = targets(library).remove(0);
    let measure = Measure::find(target.module).unwrap();
    assert!(measure.read_bandwidth(1, 0, &[0; 1000]).unwrap() > 0.0);
    let missing = measure.read_bandwidth(2, 0, &[0; 1000]).unwrap_err();
    assert_eq!(missing.message.as_str(), "there is no device 2, but 2");
}

/// The emulated backend's entry in the list, with this many parts of this many MiB asked for.
fn parts(asked: &str) -> Option<Value> {
    let plugins = plugins()?;
    let mut command = command(&["backends", "--json", "--plugins"]);
    command.arg(plugins.path()).env("GRAFT_CUDA37_DEVICES", asked);
    let list: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let ours = |backend: &&Value| backend["name"] == EMULATED;
    list.as_array().unwrap().iter().find(ours).cloned()
}

#[test]
fn devices_are_divided_as_the_environment_asks() {
    let Some(entry) = parts("4x1000") else { return };
    let devices = entry["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 4);
    assert!(
        devices.iter().all(|device| device["total"] == 1000u64 << 20),
        "{devices:?}"
    );
    let wrong = parts("four").unwrap();
    assert_eq!(wrong["score"], 0.0);
    assert_eq!(
        wrong["reason"],
        "GRAFT_CUDA37_DEVICES=four: expected COUNTxMIB, such as 4x11441"
    );
}
