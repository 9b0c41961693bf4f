//! The contract between Graft's host and its backends.
//!
//! A backend is a shared library that exports one root module ([`contract::BackendModule`]). Its author implements
//! two plain traits, [`plugin::Backend`] and [`plugin::Device`], and writes `backend_api::export_backend!(MyBackend);`.
//! This crate is the only thing that the author of a backend needs:
//!
//! - [`contract`]: what crosses the boundary between host and plugin, all of it `#[repr(C)]`,
//! - [`plugin`]: the author's side, with the guard that turns panics into errors,
//! - [`types`]: element and block types,
//! - [`graph`]: tensors, nodes and graphs, [`operations`]: what a node may do,
//! - [`draft`]: a graph that owns its parts,
//! - [`validate`]: whether a node is what the contract says, with [`overlap`]: which views share bytes,
//! - [`decompose`]: composites as primitives,
//! - [`reference`]: what each operation means,
//! - [`measure`]: what a device can do at most, an interface that a backend may have,
//! - [`features`]: instruction sets that a backend lets be chosen, another one,
//! - for authors: [`products`], what products of a graph share; [`terms`], what a run has to be given; [`tally`], what a device
//!   counts; [`machine`], what memory the machine has,
//! - [`decode`] and [`encode`]: what the bytes of each type mean.
//!
//! [`conformance`] checks a backend against the reference: anybody's, on any device.

// abi_stable's derive macros place their items in anonymous constants, and name what they make after the trait.
#![allow(non_local_definitions, non_camel_case_types)]

pub use abi_stable;

pub mod conformance;
pub mod contract;
pub mod decode;
pub mod decompose;
pub mod draft;
pub mod encode;
pub mod error;
pub mod features;
pub mod graph;
pub mod machine;
pub mod measure;
pub mod operations;
pub mod overlap;
pub mod plugin;
pub mod products;
pub mod reference;
pub mod tally;
pub mod terms;
pub mod types;
pub mod validate;

#[cfg(test)]
mod testing;

pub use error::{BackendError, Result};
