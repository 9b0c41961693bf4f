//! The host: finds backends, plans memory, runs models on what it found.

pub mod cache;
pub mod cli;
pub mod commands;
pub mod conversation;
pub mod dialect;
pub mod environment;
pub mod execution;
pub mod generation;
pub mod loading;
pub mod log;
pub mod model;
pub mod placement;
pub mod plugins;
pub mod progress;
pub mod reply;
pub mod sampling;
pub mod setup;
pub mod stats;
pub mod stop;
pub mod structured;
pub mod terminal;
