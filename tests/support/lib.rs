//! What the end-to-end tests share.

mod build;

pub use build::{build, host};
