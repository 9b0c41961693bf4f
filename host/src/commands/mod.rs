//! The commands of the binary `host`.

pub mod backends;
