//! Devices that have less memory than they say.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend_api::{
    BackendError, Result,
    contract::{
        Binding, BufferId, DeviceInfo, DeviceKind, HostServices, OpenOptions, ProgramId, ProgramNeeds, QueueId, Score,
        flags,
    },
    graph::{Graph, Node, Step},
    plugin::{Backend, Device, module},
};

use super::*;
use crate::log::tests::logged;

const SAID: u64 = 64 << 20;

/// A backend of kind `KIND` whose device says that it has [`SAID`] bytes, and has `HAS`. It computes nothing.
struct Pretender<const KIND: u32, const HAS: u64>;

impl<const KIND: u32, const HAS: u64> Backend for Pretender<KIND, HAS> {
    const NAME: &'static str = if KIND == DeviceKind::Cpu as u32 { "host" } else { "card" };
    const VERSION: &'static str = "0";

    fn score(_: HostServices) -> Result<Score> {
        Ok(Score::new(1.0, "a test"))
    }
    fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            kind: KIND,
            total: SAID,
            free: SAID,
            flags: if KIND == DeviceKind::Cpu as u32 {
                flags::IMPORTS
            } else {
                0
            },
            ..DeviceInfo::default()
        }])
    }
    fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
        Ok(Box::new(Small {
            has: HAS,
            taken: AtomicU64::new(0),
        }))
    }
    fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
        Ok(())
    }
}

struct Small {
    has: u64,
    taken: AtomicU64,
}

impl Device for Small {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        match self.taken.fetch_add(bytes, Relaxed) + bytes <= self.has {
            true => Ok(BufferId(0)),
            false => Err(BackendError::new(Code::OutOfMemory, format!("no {bytes} bytes"))),
        }
    }
    unsafe fn import(&self, _: &[u8]) -> Result<BufferId> {
        Ok(BufferId(0))
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

fn plugin<B: Backend>(score: f32) -> Plugin {
    Plugin {
        name: Some(B::NAME.into()),
        score: Some(score),
        module: Some(module::<B>()),
        devices: B::devices(log::services()).unwrap(),
        ..Plugin::at(format!("/plugins/{}.so", B::NAME).into())
    }
}

/// Starts the embedded model on a card that has `HAS` bytes, with a host beside it.
fn started<const HAS: u64>(wishes: Wishes) -> (anyhow::Result<Running>, String) {
    let model = LoadedModel::open(None).unwrap();
    let request = Request {
        plugins: None,
        backend: None,
        fallback: true,
        devices: DeviceList::default(),
        threads: 1,
        wishes,
        sequences: 1,
        rows: 1,
        features: None,
        ahead: 0,
        cache_type: Type::F16,
    };
    let plugins = vec![
        plugin::<Pretender<{ DeviceKind::Gpu as u32 }, HAS>>(2.0),
        plugin::<Pretender<{ DeviceKind::Cpu as u32 }, SAID>>(1.0),
    ];
    let setup = Setup {
        model: &model,
        request: &request,
        plugins,
    };
    let mut outcome = None;
    let said = logged(|_| outcome = Some(setup.start(&Meter::default())));
    (outcome.unwrap(), said)
}

#[test]
fn an_allocation_that_fails_leads_to_a_plan_with_less() {
    let (whole, said) = started::<SAID>(Wishes::default());
    let layers = whole.unwrap().layers;
    assert_eq!((layers.on_devices, said.as_str()), (layers.total, ""));

    let (part, said) = started::<{ 3 << 20 }>(Wishes::default());
    let part = part.unwrap();
    assert_eq!(part.backend, "card");
    assert!(part.engine.allocated()[0].0 <= 3 << 20);
    assert!(
        (1..part.layers.total).contains(&part.layers.on_devices),
        "{:?}",
        part.layers
    );
    assert!(said.contains("planning again with less of it"), "{said}");
    assert!(said.contains("layers are on devices"), "{said}");
}

#[test]
fn a_device_without_any_memory_leaves_all_to_the_host() {
    let (none, _) = started::<4096>(Wishes::default());
    assert_eq!(none.unwrap().layers.on_devices, 0);
}

#[test]
fn a_wish_that_then_cannot_be_met_is_refused_and_nothing_else_is_tried() {
    let wishes = Wishes {
        layers: Some(99),
        ..Wishes::default()
    };
    let (refused, said) = started::<{ 3 << 20 }>(wishes);
    let error = refused.err().unwrap().to_string();
    assert!(error.starts_with("--gpu-layers 99: 7 of 7 layers take "), "{error}");
    assert!(!said.contains("using host"), "{said}");
}
