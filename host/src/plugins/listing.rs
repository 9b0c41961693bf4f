//! Plugins as JSON has them.

use std::borrow::Cow;

use backend_api::contract::{DeviceInfo, DeviceKind};
use serde::Serialize;

use super::{Plugin, features};

/// A plugin as `host backends --json` lists it. What is not known is null.
#[derive(Debug, Serialize)]
pub struct Listing<'a> {
    /// The file.
    pub path: Cow<'a, str>,
    /// The backend's name.
    pub name: Option<&'a str>,
    /// The backend's version.
    pub version: Option<&'a str>,
    /// Its score; 0 where it cannot serve.
    pub score: Option<f32>,
    /// The reason of the score.
    pub reason: Option<&'a str>,
    /// Why the plugin cannot be used.
    pub error: Option<String>,
    /// The instruction sets that it lets be chosen, the best one last.
    pub features: Vec<String>,
    /// Its devices.
    pub devices: Vec<DeviceListing<'a>>,
    /// Whether it is the one that `--backend auto` takes.
    pub chosen: bool,
}

/// A device as `host backends --json` lists it.
#[derive(Debug, Serialize)]
pub struct DeviceListing<'a> {
    /// Index among the backend's devices.
    pub id: u32,
    /// The maker's name of it.
    pub name: &'a str,
    /// `cpu`, `gpu` or `other`.
    pub kind: &'static str,
    /// Bytes of memory.
    pub total: u64,
    /// Bytes of it that are free.
    pub free: u64,
}

impl<'a> Listing<'a> {
    /// A plugin, and whether it is chosen.
    pub fn new(plugin: &'a Plugin, chosen: bool) -> Self {
        Listing {
            path: plugin.path.to_string_lossy(),
            name: plugin.name.as_deref(),
            version: plugin.version.as_deref(),
            score: plugin.score,
            reason: plugin.reason.as_deref(),
            error: plugin.error.as_ref().map(ToString::to_string),
            features: features::sets(plugin),
            devices: plugin.devices.iter().map(DeviceListing::new).collect(),
            chosen,
        }
    }
}

impl<'a> DeviceListing<'a> {
    fn new(device: &'a DeviceInfo) -> Self {
        DeviceListing {
            id: device.id,
            name: device.name.as_str(),
            kind: kind_name(DeviceKind::from_id(device.kind)),
            total: device.total,
            free: device.free,
        }
    }
}

/// A kind in one word.
pub fn kind_name(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "cpu",
        DeviceKind::Gpu => "gpu",
        DeviceKind::Other => "other",
    }
}
