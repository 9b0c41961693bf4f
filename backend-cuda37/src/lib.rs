//! NVIDIA cards from compute capability 3.7 on, by kernels that are part of the library as PTX.
//!
//! [`backend`] and [`device`] are the plugin's side of the contract, [`program`] compiles and runs graphs, [`ops`] says
//! which kernels an operation launches, [`arrange`] how weights lie on the device. All of it stands on [`driver`]'s traits, which NVIDIA's driver implements and, for
//! tests, an emulation that runs the same kernels on the CPU.

pub mod arrange;
pub mod backend;
pub mod capture;
pub mod counters;
pub mod device;
pub mod driver;
pub mod launch;
pub mod logical;
pub mod measure;
pub mod modules;
pub mod ops;
pub mod program;
pub mod resources;
pub mod staging;

#[cfg(feature = "driver")]
backend_api::export_backend!(backend::Cuda37<driver::cuda::Cuda>);
