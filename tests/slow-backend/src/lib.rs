//! A whole backend in four small files: the place to start from when you write one.
//!
//! It computes with plain loops, in the memory of the host, and it serves only seven of the operations that a model
//! needs. That is enough: what it refuses, the host makes of simpler operations, puts on copies, or gives to another
//! device, and says so.
//!
//! - this file: who we are, and what is here,
//! - `memory`: buffers, which are vectors of bytes, and the tensors that lie in them,
//! - `device`: an open device, which keeps memory and programs,
//! - `operations`: what we serve, and how it is computed.

// Everything unsafe that a plugin needs stands in backend-api.
#![forbid(unsafe_code)]

mod device;
mod memory;
mod operations;

use backend_api::{
    BackendError, Result,
    contract::{DeviceInfo, DeviceKind, HostServices, Level, OpenOptions, Score},
    graph::{Graph, Node},
    plugin::{Backend, Device},
};

use device::SlowDevice;

/// The backend: a type without values, for a library holds one.
struct Slow;

impl Backend for Slow {
    const NAME: &'static str = "slow";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    // A backend that needs a driver or an instruction set looks for it here. Where that is missing it answers 0 and says
    // what was not found, which `host backends` shows. The score of a backend that is fast is in the hundreds.
    fn score(_services: HostServices) -> Result<Score> {
        Ok(Score::new(1.0, "slow but honest: plain loops on one core"))
    }

    // Kind `Other`: whoever asks for a GPU or for the processor does not mean us. No flags: we do not import host memory,
    // so the host uploads the weights.
    fn devices(_services: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            id: 0,
            kind: DeviceKind::Other as u32,
            name: "plain loops".into(),
            total: memory::CAPACITY,
            free: memory::CAPACITY,
            ..DeviceInfo::default()
        }])
    }

    fn open(services: HostServices, device: u32, _options: &OpenOptions) -> Result<Box<dyn Device>> {
        if device != 0 {
            return Err(BackendError::invalid(format!("there is no device {device}, only 0")));
        }
        services.log(Level::Debug, "slow", || "device 0 is open".into());
        Ok(Box::new(SlowDevice::new()))
    }

    // Asked for every node before anything is allocated, also when no device is open: the answer may depend on nothing
    // but the arguments.
    fn supports(_device: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        operations::check(graph, node)
    }

    // `workspace`, `weight`, `memory` and `query` have defaults that suit us: no scratch memory, weights as they lie in
    // the file.
}

backend_api::export_backend!(Slow);
