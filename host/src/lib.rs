//! The host: finds backends, plans memory, runs models on what it found.

pub mod commands;
pub mod environment;
pub mod log;
pub mod plugins;
