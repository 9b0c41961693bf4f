//! The host: loads backends, plans memory, runs models and serves them.

pub mod cache;
pub mod execution;
pub mod generation;
pub mod sampling;
pub mod stop;
