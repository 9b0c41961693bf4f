//! The devices that a list names, as they are here or would be.

use backend_api::contract::{DeviceInfo, DeviceKind, flags};

use super::{
    Ground, Losses,
    list::{DeviceList, Item},
};
use crate::{execution::device::Target, plugins::Plugin};

/// Why a list names no devices.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroundError {
    /// The backend has no functions to ask.
    #[error("it is not loaded")]
    NotLoaded,
    /// A device that is not here.
    #[error("it has no device {wanted}, {}", had(.known))]
    NoDevice {
        /// Its number.
        wanted: u32,
        /// Those that are here.
        known: Vec<u32>,
    },
    /// No device at all is here.
    #[error("it has no device here\nhint: a plan needs none: --devices 1x11441MiB")]
    NoneHere,
    /// All that it has, or that were asked for, failed.
    #[error("none of its devices is left")]
    NoneLeft,
}

fn had(known: &[u32]) -> String {
    match known {
        [] => "for none is here".into(),
        known => format!(
            "only {}",
            known.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// What `list` names of a backend, without those that are lost, and the host beside it. A device that is logical need not be
/// here. `fallback` says whether anything may run on another backend.
pub fn ground(
    plugin: &Plugin,
    plugins: &[Plugin],
    list: &DeviceList,
    losses: &Losses,
    fallback: bool,
) -> Result<Ground, GroundError> {
    let devices = match list.items.as_slice() {
        [] => usual(plugin, losses)?,
        items => named(plugin, items, list.backend.is_some(), losses)?,
    };
    if devices.is_empty() {
        return Err(GroundError::NoneLeft);
    }
    let is_real = |host: &Target| devices.iter().any(|d| d.logical.is_none() && d.is_part_of(host));
    let others = plugins.iter().filter(|p| fallback || p.label() == plugin.label());
    let hosts = others.filter(|p| p.obstacle().is_none()).filter_map(processor);
    let mut hosts = hosts.filter(|host| !losses.has(&host.backend, host.info.id));
    let host = hosts.find(|host| !is_real(host));
    Ok(Ground { devices, host })
}

/// All cards, or else the first device, whatever it is.
fn usual(plugin: &Plugin, losses: &Losses) -> Result<Vec<Target>, GroundError> {
    if plugin.devices.is_empty() {
        return Err(GroundError::NoneHere);
    }
    let is_card = |info: &&DeviceInfo| DeviceKind::from_id(info.kind) == DeviceKind::Gpu;
    let left = || {
        plugin
            .devices
            .iter()
            .filter(|info| !losses.has(&plugin.label(), info.id))
    };
    let cards: Vec<&DeviceInfo> = left().filter(is_card).collect();
    let chosen = if cards.is_empty() {
        left().take(1).collect()
    } else {
        cards
    };
    chosen
        .into_iter()
        .map(|info| target(plugin, info.clone(), None))
        .collect()
}

fn named(plugin: &Plugin, items: &[Item], is_named: bool, losses: &Losses) -> Result<Vec<Target>, GroundError> {
    let mut targets = Vec::new();
    let mut number = 0;
    for item in items {
        match *item {
            Item::Real(wanted) => {
                let info = plugin.devices.iter().find(|info| info.id == wanted);
                let info = info.ok_or_else(|| GroundError::NoDevice {
                    wanted,
                    known: plugin.devices.iter().map(|info| info.id).collect(),
                })?;
                targets.push(target(plugin, info.clone(), None)?);
            }
            Item::Logical { count, bytes } => {
                for _ in 0..count {
                    targets.push(target(plugin, logical(plugin, bytes, is_named), Some(number))?);
                    number += 1;
                }
            }
        }
    }
    targets.retain(|target| !losses.has(&target.backend, target.info.id));
    Ok(targets)
}

/// A part of the backend's first device with so much memory. It stands for a card, unless the backend was named and its
/// device is something else.
fn logical(plugin: &Plugin, bytes: u64, is_named: bool) -> DeviceInfo {
    let real = plugin.devices.first().cloned();
    let kind = match &real {
        Some(info) if is_named => info.kind,
        _ => DeviceKind::Gpu as u32,
    };
    let info = real.unwrap_or_default();
    DeviceInfo {
        kind,
        name: indicatif::HumanBytes(bytes).to_string().into(),
        total: bytes,
        free: bytes,
        flags: info.flags & !flags::IMPORTS,
        ..info
    }
}

fn target(plugin: &Plugin, info: DeviceInfo, logical: Option<u32>) -> Result<Target, GroundError> {
    Ok(Target {
        backend: plugin.label(),
        module: plugin.module.ok_or(GroundError::NotLoaded)?,
        info,
        logical,
    })
}

/// The first device of a backend, if it is of kind cpu.
fn processor(plugin: &Plugin) -> Option<Target> {
    let info = plugin.devices.first()?;
    let target = target(plugin, info.clone(), None).ok()?;
    (target.kind() == DeviceKind::Cpu).then_some(target)
}
