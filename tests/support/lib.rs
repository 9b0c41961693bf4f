//! What the end-to-end tests share.

mod build;
mod command;
mod fixture;
mod serving;

pub use build::{build, host, installed};
pub use command::{KERNELS, command, cpu_backend, json, kernel_sets, output};
pub use fixture::{Fixture, Logits, tokens};
pub use serving::{Serving, extend, settings, step, targets};
