//! The interface `graft.measure/1` of `query`: what a device can do at most, measured now, to compare work with.
//!
//! An author implements [`Measures`] and gives out `Measure::of::<MyMeasures>()` from [`crate::plugin::Backend::query`]; who
//! asks takes [`Measure::find`].

use abi_stable::std_types::{RResult, RSlice, RStr};

use crate::{
    contract::{BackendModule, Interface, Outcome},
    error::Result,
    plugin::guard,
};

/// The interface's name.
pub const NAME: &str = "graft.measure/1";

/// The author's side.
pub trait Measures: 'static {
    /// Bytes a second that `threads` threads of `device` (0: as many as it would take) read of the host's `memory`, at best.
    fn read_bandwidth(device: u32, threads: u32, memory: &[u8]) -> Result<f64>;
    /// Operations a second in the arithmetic of quantized products, a multiplication and an addition each counted, at best.
    fn arithmetic_peak(device: u32, threads: u32) -> Result<f64>;
}

/// The table of functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    read_bandwidth: extern "C" fn(device: u32, threads: u32, memory: RSlice<'_, u8>) -> Outcome<f64>,
    arithmetic_peak: extern "C" fn(device: u32, threads: u32) -> Outcome<f64>,
}

impl Measure {
    /// The interface that an author's functions make.
    pub fn of<M: Measures>() -> Interface {
        const { assert!(size_of::<Measure>() < 1 << 16) };
        Interface {
            version: 1,
            bytes: size_of::<Measure>() as u64,
            table: std::ptr::from_ref(const { &Measure::table::<M>() }).cast(),
        }
    }

    const fn table<M: Measures>() -> Measure {
        Measure {
            read_bandwidth: read_bandwidth::<M>,
            arithmetic_peak: arithmetic_peak::<M>,
        }
    }

    /// The interface of a backend, if it has it.
    pub fn find(module: BackendModule) -> Option<Measure> {
        let interface = module.query()(RStr::from(NAME)).into_option()?;
        let fits = interface.version == 1 && interface.bytes >= size_of::<Measure>() as u64;
        let table = interface.table.cast::<Measure>();
        // SAFETY: the contract has the backend give a table of this layout under this name and version, for good.
        (fits && !table.is_null() && table.is_aligned()).then(|| unsafe { *table })
    }

    /// See [`Measures::read_bandwidth`].
    pub fn read_bandwidth(&self, device: u32, threads: u32, memory: &[u8]) -> Result<f64> {
        plain((self.read_bandwidth)(device, threads, RSlice::from_slice(memory)))
    }

    /// See [`Measures::arithmetic_peak`].
    pub fn arithmetic_peak(&self, device: u32, threads: u32) -> Result<f64> {
        plain((self.arithmetic_peak)(device, threads))
    }
}

fn plain(outcome: Outcome<f64>) -> Result<f64> {
    match outcome {
        RResult::ROk(value) => Ok(value),
        RResult::RErr(error) => Err(error),
    }
}

extern "C" fn read_bandwidth<M: Measures>(device: u32, threads: u32, memory: RSlice<'_, u8>) -> Outcome<f64> {
    guard(|| M::read_bandwidth(device, threads, memory.as_slice()))
}

extern "C" fn arithmetic_peak<M: Measures>(device: u32, threads: u32) -> Outcome<f64> {
    guard(|| M::arithmetic_peak(device, threads))
}
