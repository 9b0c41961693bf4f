//! The contract between Graft's host and its backends.
//!
//! This crate is the only thing that the author of a backend needs.

pub mod types;
