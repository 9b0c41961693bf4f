//! The CPU backend: every operation of the contract on the host's processor, with its own threads and with kernels that
//! are chosen at run time.
//!
//! [`device`] is the plugin's side of the contract, [`program`] compiles and runs graphs, [`ops`] and [`product`] are
//! the operations; they run on [`pool`]'s threads over [`view`]s of [`memory`], with the kernels of [`kernel_set`].

pub mod counters;
pub mod device;
mod features;
pub mod kernel_set;
mod lanes;
mod measure;
pub mod memory;
pub mod ops;
pub mod pool;
pub mod product;
pub mod program;
pub mod view;

#[cfg(feature = "plugin")]
backend_api::export_backend!(device::CpuBackend);
