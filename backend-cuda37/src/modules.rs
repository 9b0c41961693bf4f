//! Kernels by name. Modules are loaded when the first of their kernels is needed.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    io::{self, Read},
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
};

use backend_api::{BackendError, Result};
use flate2::read::DeflateDecoder;

use crate::driver::{Driver, Kernel, Module};

/// The name of every module, and its PTX, deflated.
pub static MODULES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// The PTX of a module. Fails where there is no such module.
pub fn source(module: &str) -> Result<String> {
    let found = MODULES.binary_search_by_key(&module, |(name, _)| name).ok();
    let (_, packed) = found
        .map(|i| MODULES[i])
        .ok_or_else(|| BackendError::failed(format!("module {module} is no part of this library")))?;
    unpacked(packed).map_err(|e| BackendError::failed(format!("module {module} of this library is damaged: {e}")))
}

fn unpacked(packed: &[u8]) -> io::Result<String> {
    let mut text = String::new();
    DeflateDecoder::new(packed).read_to_string(&mut text)?;
    Ok(text)
}

/// The kernels of a device.
pub struct Kernels {
    driver: Arc<dyn Driver>,
    loaded: RwLock<Loaded>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<String, Module>,
    kernels: HashMap<String, Kernel>,
}

impl Kernels {
    /// No kernels yet.
    pub fn new(driver: &Arc<dyn Driver>) -> Kernels {
        Kernels {
            driver: driver.clone(),
            loaded: RwLock::default(),
        }
    }

    /// The kernel `name` of `module`.
    pub fn get(&self, module: &str, name: &str) -> Result<Kernel> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = loaded.kernels.get(name) {
            return Ok(*kernel);
        }
        drop(loaded);
        self.load(module, name)
    }

    fn load(&self, module: &str, name: &str) -> Result<Kernel> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let handle = match loaded.modules.get(module) {
            Some(handle) => *handle,
            None => {
                let handle = self.driver.load(module, &source(module)?)?;
                loaded.modules.insert(module.to_owned(), handle);
                handle
            }
        };
        // SAFETY: the module is loaded until `self` is dropped.
        let kernel = unsafe { self.driver.kernel(handle, name)? };
        loaded.kernels.insert(name.to_owned(), kernel);
        Ok(kernel)
    }

    /// How many modules are loaded.
    pub fn modules(&self) -> usize {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.modules.len()
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        for module in loaded.modules.values() {
            // SAFETY: the device's work has ended, and no kernel of the module is used after this.
            unsafe { self.driver.unload(*module) };
        }
    }
}

/// The longest name that fits a [`Name`].
const LONGEST: usize = 64;

/// A name that is put together without allocating: `name!("product_{ty}_c{columns}")`.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Name {
    /// The formatted name, cut at 64 bytes.
    pub fn new(arguments: fmt::Arguments<'_>) -> Name {
        let mut name = Name {
            bytes: [0; LONGEST],
            length: 0,
        };
        // a name that was cut is not found, which says it in full
        let _ = name.write_fmt(arguments);
        name
    }
}

impl Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self
            .bytes
            .get_mut(self.length..self.length + text.len())
            .ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// A [`Name`] by a format string.
#[macro_export]
macro_rules! name {
    ($($format:tt)*) => { $crate::modules::Name::new(format_args!($($format)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together_and_cut_whole() {
        let (ty, columns) = ("q4_k", 3);
        assert_eq!(&*name!("product_{ty}_c{columns}"), "product_q4_k_c3");
        let long = "x".repeat(LONGEST);
        assert_eq!(&*name!("{long}"), long);
        assert_eq!(&*name!("a{long}"), "a");
    }

    #[test]
    fn modules_are_ptx_for_the_oldest_card_that_old_drivers_read() {
        for (name, _) in MODULES {
            let ptx = source(name).unwrap();
            assert!(
                ptx.contains(".version 6.0\n") && ptx.contains(".target sm_37"),
                "{name}"
            );
            assert!(!ptx.contains('\0'), "{name}");
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = source("product_one.q9_9").unwrap_err().to_string();
        assert!(error.contains("module product_one.q9_9 is no part"), "{error}");
    }
}
