//! From a model's graph to running programs.
//!
//! [`layout`] says which device each part of a model is meant for, [`lower`] puts every operation on a device that serves it,
//! [`planner`] divides each device's memory, exactly, and cuts the operations into [`plan::Segment`]s, one program each;
//! [`engine`] allocates what the plan says and runs steps.

pub mod arena;
mod contents;
pub mod device;
pub mod engine;
pub mod inputs;
pub mod layout;
mod ledger;
pub mod lower;
pub mod plan;
pub mod planner;
mod share;

#[cfg(test)]
mod tests;

pub use engine::Engine;
pub use plan::Plan;
