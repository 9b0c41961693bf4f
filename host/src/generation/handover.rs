//! Going on elsewhere when a device fails.

use backend_api::BackendError;
use serde::Serialize;

use crate::{
    execution::device::Target,
    setup::{Layers, Running},
};

/// Knows where else a model can run.
pub trait Rescue {
    /// Starts the model again without the device that `failed`, with `context` tokens of context or fewer. All devices were
    /// given back before. An error says why nothing is left.
    fn rescue(&mut self, failed: &Target, error: &BackendError, context: u32) -> anyhow::Result<Running>;
}

/// A device that failed, and where its work went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HandOver {
    /// The device.
    pub from: String,
    /// What it said.
    pub reason: String,
    /// The backend that goes on.
    pub backend: String,
    /// Its devices.
    pub devices: Vec<String>,
    /// Tokens of context that there are now.
    pub context: u32,
    /// Tokens that had been evaluated and are once more.
    pub evaluated_again: usize,
    /// What the devices have of the model.
    #[serde(skip)]
    pub layers: Layers,
}

impl HandOver {
    /// Says where it goes on. `before` is the context that there was.
    pub(super) fn tell(&self, before: u32) {
        let tokens = crate::stats::counted(self.evaluated_again, "token");
        let there = self.devices.join(", ");
        tracing::warn!("going on with {there}; {tokens} to be evaluated again");
        if self.context < before {
            let context = self.context;
            tracing::warn!("the context holds {context} tokens there, instead of {before}");
        }
    }
}
