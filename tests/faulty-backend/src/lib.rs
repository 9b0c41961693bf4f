//! A backend for the tests of loading plugins: it has a device and no operation, and the fault that its feature names.

#![allow(non_local_definitions, non_camel_case_types)] // as backend-api: the derive macros of abi_stable

#[cfg(not(any(feature = "other-abi", feature = "other-version")))]
pub mod faulty;
#[cfg(any(feature = "other-abi", feature = "other-version"))]
pub mod stranger;
