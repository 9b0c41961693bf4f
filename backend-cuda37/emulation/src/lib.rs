//! The backend `cuda37` without a GPU, for tests: the same plugin, whose kernels are compiled by g++ and run on the CPU.
//!
//! Work is put off until somebody waits for it, as a device may do: what reads too early, or reuses memory too early,
//! gets wrong results here.

mod asked;
mod driver;
mod libcuda;
mod streams;

use backend_api::Result;
use backend_cuda37::{
    backend::Cuda37,
    driver::{Driver, Facts, Platform},
};

/// Emulated devices.
pub struct Emulation;

/// Bytes of memory of a die of a K80.
const MEMORY: u64 = 11441 << 20;

impl Platform for Emulation {
    const NAME: &'static str = "cuda37-emulated";

    fn devices() -> Result<Vec<Facts>, String> {
        let die = Facts {
            name: "emulation of a Tesla K80".into(),
            capability: 37,
            total: MEMORY,
        };
        Ok(vec![die.clone(), die])
    }

    fn free(_device: u32) -> Option<u64> {
        Some(MEMORY)
    }

    /// The least: it serves tests, which ask for it by name.
    fn score(_capability: u32) -> f32 {
        1.0
    }

    fn open(_device: u32) -> Result<Box<dyn Driver>> {
        Ok(Box::new(driver::Emulated::new(MEMORY)))
    }
}

backend_api::export_backend!(Cuda37<Emulation>);
