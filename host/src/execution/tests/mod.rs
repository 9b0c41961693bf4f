//! Devices that refuse what a test says, and compute the rest by the reference.

mod lowering;
mod planning;
mod running;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use backend_api::{
    BackendError, Result,
    contract::{
        Binding, BufferId, Counter, DeviceInfo, HostServices, MemoryRules, OpenOptions, ProgramId, ProgramNeeds,
        QueueId, Score, flags,
    },
    draft::Draft,
    graph::{Graph, Node, Step, Tensor},
    operations::Operation,
    plugin::{Backend, Device, Handles, module},
    reference,
    types::Type,
    validate,
};
use models::{
    architecture::Model,
    gguf::{Gguf, GgufWriter},
};

use super::{device::Target, engine::Settings};

/// A device in a test. It imports host memory.
#[derive(Clone, Copy, Default)]
struct Double<'a> {
    refuses: &'a [Operation],
    /// Every view with gaps is refused, but in `copy`.
    refuses_views: bool,
    discrete: bool,
}

impl Double<'_> {
    /// The answers of `supports` may depend on the description alone, so it carries what is refused.
    fn target(self, name: &str) -> Target {
        let info = DeviceInfo {
            name: name.into(),
            flags: if self.discrete { 0 } else { flags::IMPORTS },
            capability: self.refuses.iter().map(|&o| bit(o)).sum(),
            reserved: [self.refuses_views.into(), 0, 0, 0, 0, 0],
            ..DeviceInfo::default()
        };
        Target {
            backend: "double".into(),
            module: module::<Doubles>(),
            info,
            logical: None,
        }
    }
}

fn bit(operation: Operation) -> u64 {
    1 << (operation.id() % 64)
}

struct Doubles;

impl Backend for Doubles {
    const NAME: &'static str = "double";
    const VERSION: &'static str = "0";

    fn score(_: HostServices) -> Result<Score> {
        Ok(Score::new(1.0, "there"))
    }

    fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(Vec::new())
    }

    fn memory(_: &DeviceInfo) -> Result<MemoryRules> {
        Ok(MemoryRules {
            granularity: 4096,
            alignment: 64,
        })
    }

    fn open(_: HostServices, id: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
        Ok(Box::new(Evaluator {
            id,
            buffers: Handles::new("buffer"),
            programs: Handles::new("program"),
            allocated: AtomicU64::new(0),
        }))
    }

    fn supports(info: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        let operation = validate::node(graph, node)?;
        if info.capability & bit(operation) != 0 {
            return Err(BackendError::unsupported(format!("no {}", operation.name())));
        }
        let mut tensors = super::lower::tensors_of(node).filter_map(|t| graph.tensor(t));
        let views = info.reserved[0] != 0 && operation != Operation::Copy;
        match views && tensors.any(|t: &Tensor| !t.is_contiguous()) {
            true => Err(BackendError::unsupported("no views")),
            false => Ok(()),
        }
    }
}

/// Memory is NaN until it is written, so that whatever reads it too early shows.
struct Evaluator {
    id: u32,
    buffers: Handles<Mutex<Vec<u8>>>,
    programs: Handles<Draft>,
    allocated: AtomicU64,
}

/// What devices with numbers from here on were asked to do.
const WATCHED: u32 = 1000;
static SEEN: Mutex<Vec<(u32, &str)>> = Mutex::new(Vec::new());

impl Evaluator {
    fn note(&self, what: &'static str) {
        if self.id >= WATCHED {
            SEEN.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((self.id, what));
        }
    }

    fn with<T>(&self, buffer: BufferId, f: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let buffer = self.buffers.get(buffer.0)?;
        let mut bytes = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(f(&mut bytes))
    }
}

impl Device for Evaluator {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        self.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(BufferId(self.buffers.insert(Mutex::new(vec![0xFF; bytes as usize]))))
    }

    fn free(&self, buffer: BufferId) -> Result<()> {
        self.buffers.remove(buffer.0).map(|_| ())
    }

    unsafe fn import(&self, memory: &[u8]) -> Result<BufferId> {
        Ok(BufferId(self.buffers.insert(Mutex::new(memory.to_vec()))))
    }

    fn write(&self, _: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        self.with(buffer, |bytes| {
            bytes[offset as usize..][..data.len()].copy_from_slice(data)
        })
    }

    fn synchronize(&self, _: QueueId) -> Result<()> {
        self.note("wait");
        Ok(())
    }

    fn read(&self, _: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        self.note("wait");
        self.with(buffer, |bytes| {
            data.copy_from_slice(&bytes[offset as usize..][..data.len()])
        })
    }

    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        validate::graph(graph)?;
        Ok(ProgramId(self.programs.insert(Draft::from(graph))))
    }

    fn needs(&self, _: ProgramId) -> Result<ProgramNeeds> {
        Ok(ProgramNeeds::default())
    }

    fn free_program(&self, program: ProgramId) -> Result<()> {
        self.programs.remove(program.0).map(|_| ())
    }

    fn run(&self, _: QueueId, program: ProgramId, bindings: &[Binding], _: Binding, step: Step) -> Result<()> {
        self.note("run");
        let range = |b: &Binding| b.offset as usize..(b.offset + b.bytes) as usize;
        let copy = |b: &Binding| self.with(b.buffer, |bytes| bytes[range(b)].to_vec());
        let mut memory = bindings.iter().map(copy).collect::<Result<Vec<_>>>()?;
        let outcome = reference::run(&self.programs.get(program.0)?.graph(), &mut memory, &step);
        for (binding, bytes) in bindings.iter().zip(memory) {
            self.with(binding.buffer, |place| place[range(binding)].copy_from_slice(&bytes))?;
        }
        outcome
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(0)
    }

    fn counters(&self) -> Result<Vec<Counter>> {
        Ok(vec![Counter {
            name: "allocated_bytes".into(),
            value: self.allocated.load(Ordering::Relaxed),
        }])
    }
}

/// A model of the fixtures, for steps of up to 4 tokens and 2 wanted columns.
fn fixture(name: &str) -> (Arc<Gguf>, Model, Settings) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    served(Gguf::open(&fixtures.join(name)).unwrap())
}

fn served(file: Gguf) -> (Arc<Gguf>, Model, Settings) {
    let model = Model::load(&file).unwrap();
    let settings = Settings {
        ahead: 0,
        context: 32,
        batch: 4,
        rows: 2,
        sequences: 2,
        page_tokens: 16,
        cache_types: [Type::F32; 2],
        threads: 1,
    };
    (Arc::new(file), model, settings)
}

/// A small qwen2.
fn model() -> (Arc<Gguf>, Model, Settings) {
    fixture("qwen2-f32.gguf")
}

/// A small qwen3moe.
fn mixture() -> (Arc<Gguf>, Model, Settings) {
    fixture("families/qwen3moe-f16.gguf")
}

/// The same, gate and up of its experts in one tensor: for each expert the gate's rows, then the up's.
fn fused_mixture() -> (Arc<Gguf>, Model, Settings) {
    let (file, ..) = mixture();
    let mut copy = GgufWriter::copy_of(&file);
    for layer in 0..2 {
        let [gate, up] = ["gate", "up"].map(|part| format!("blk.{layer}.ffn_{part}_exps.weight"));
        let (gate, up) = (file.tensor(&gate).unwrap(), file.tensor(&up).unwrap());
        let expert = file.data(gate).len() / gate.dims[2] as usize;
        let experts = file.data(gate).chunks(expert).zip(file.data(up).chunks(expert));
        let data: Vec<u8> = experts.flat_map(|(gate, up)| [gate, up].concat()).collect();
        let dims = [gate.dims[0], gate.dims[1] * 2, gate.dims[2]];
        let name = format!("blk.{layer}.ffn_gate_up_exps.weight");
        copy.tensor(&name, &dims, gate.kind, data).unwrap();
        copy.remove_tensor(&gate.name).remove_tensor(&up.name);
    }
    served(Gguf::from_bytes("fused", copy.to_bytes()).unwrap())
}
