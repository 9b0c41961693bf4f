//! The conformance suite against this backend, under every set of kernels that this machine has.

mod common;

use backend_api::{
    Result,
    conformance::{Options, Verdict, check},
    contract::{DeviceInfo, HostServices, MemoryRules, OpenOptions, Score},
    graph::{Graph, Node},
    plugin::{Backend, Device, module},
};
use backend_cpu::{
    device::{CpuBackend, CpuDevice},
    kernel_set::{KernelSet, Kernels},
};

use common::SERVICES;

/// A number beyond those of [`KernelSet::ALL`]: the best set, with tiles in plain Rust.
const EMULATED: usize = 100;

/// The backend with a certain set of kernels: number `SET` of [`KernelSet::ALL`].
struct Forced<const SET: usize>;

fn kernels(set: usize) -> Result<Kernels> {
    match KernelSet::ALL.get(set) {
        Some(&set) => Kernels::forced(set),
        None => Ok(Kernels::best().with_emulated_tiles()),
    }
}

impl<const SET: usize> Backend for Forced<SET> {
    const NAME: &'static str = "cpu";
    const VERSION: &'static str = CpuBackend::VERSION;

    fn score(services: HostServices) -> Result<Score> {
        CpuBackend::score(services)
    }

    fn devices(services: HostServices) -> Result<Vec<DeviceInfo>> {
        CpuBackend::devices(services)
    }

    fn open(services: HostServices, _device: u32, options: &OpenOptions) -> Result<Box<dyn Device>> {
        Ok(Box::new(CpuDevice::new(
            services,
            kernels(SET)?,
            options.threads as usize,
        )?))
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

fn conforms<const SET: usize>() {
    if let Err(error) = kernels(SET) {
        return eprintln!("skipped: {error}");
    }
    let mut options = Options::default();
    options.open.threads = 2;
    let (mut passed, mut failures) = (0, Vec::new());
    check(
        module::<Forced<SET>>(),
        SERVICES,
        0,
        &options,
        &mut |case| match &case.verdict {
            Verdict::Passed { .. } => passed += 1,
            Verdict::Refused(_) => {}
            Verdict::Failed(why) => failures.push(format!("{}: {why}", case.label)),
        },
    )
    .unwrap();
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(passed > 0);
}

#[test]
fn scalar_kernels_conform() {
    conforms::<0>();
}

#[test]
fn avx2_kernels_conform() {
    conforms::<1>();
}

#[test]
fn avxvnni_kernels_conform() {
    conforms::<2>();
}

#[test]
fn avx512_kernels_conform() {
    conforms::<3>();
}

#[test]
fn tiles_conform() {
    conforms::<EMULATED>();
}
