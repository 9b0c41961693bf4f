//! Cards that compute as the CPU backend does, bit for bit, and fail on command.
//!
//! - `FAIL_AT`: the faults, `DEVICE:CALL:NUMBER:HOW` with commas between them; see [`faults`].
//! - `FAIL_LOG`: a file to which each device writes a line when it is opened and when it is closed, with the bytes that
//!   are then allocated of it.
//! - `FAIL_PEERS`: set if cards copy to each other without the host.
//! - `FAIL_BYTES`: the memory of a card; 64 MiB where it is not set.

#![forbid(unsafe_code)]

mod card;
mod faults;

use std::env;

use backend_api::{
    Result,
    contract::{DeviceInfo, DeviceKind, HostServices, MemoryRules, OpenOptions, Score, flags},
    graph::{Graph, Node},
    plugin::{Backend, Device},
};
use backend_cpu::device::CpuBackend;
use card::Card;
use faults::Call;

const CARDS: u32 = 3;

struct Failing;

impl Backend for Failing {
    const NAME: &'static str = "failing";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn score(_: HostServices) -> Result<Score> {
        Ok(Score::new(200.0, "it fails on command alone"))
    }

    fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
        let bytes = env::var("FAIL_BYTES").ok().and_then(|bytes| bytes.parse().ok());
        let bytes = bytes.unwrap_or(64 << 20);
        let card = |id| DeviceInfo {
            id,
            kind: DeviceKind::Gpu as u32,
            name: "card".into(),
            total: bytes,
            free: bytes,
            flags: env::var_os("FAIL_PEERS").map_or(0, |_| flags::PEER_COPY),
            ..DeviceInfo::default()
        };
        Ok((0..CARDS).map(card).collect())
    }

    fn open(services: HostServices, device: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
        faults::check(device, Call::Open)?;
        // a thread alone: the cards work side by side, and would take the processor from each other
        let options = OpenOptions {
            threads: 1,
            ..OpenOptions::default()
        };
        Ok(Box::new(Card::new(device, CpuBackend::open(services, 0, &options)?)?))
    }

    fn supports(device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        CpuBackend::supports(device, graph, node)
    }

    fn workspace(device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<u64> {
        CpuBackend::workspace(device, graph, node)
    }

    fn memory(device: &DeviceInfo) -> Result<MemoryRules> {
        CpuBackend::memory(device)
    }
}

backend_api::export_backend!(Failing);
