//! Devices that failed, and are not to be used again.

use crate::execution::device::Target;

/// The devices that failed so far. All parts of a real device are lost with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(Vec<(String, u32)>);

impl Losses {
    /// Takes a device from those that may be used.
    pub fn add(&mut self, target: &Target) {
        if !self.has(&target.backend, target.info.id) {
            self.0.push((target.backend.clone(), target.info.id));
        }
    }

    /// Whether a backend's device with this number failed.
    pub fn has(&self, backend: &str, device: u32) -> bool {
        self.0.iter().any(|(of, id)| of == backend && *id == device)
    }

    /// Whether all are still there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
