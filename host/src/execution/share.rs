//! A device with the memory that a plan gives it.

use std::{collections::BTreeMap, thread};

use backend_api::contract::{Binding, BufferId, EventId, HostServices, OpenOptions};
use models::gguf::Gguf;

use super::{
    contents,
    device::Device,
    engine::EngineError,
    plan::{Bound, DevicePlan, Plan, Region, Spot},
};
use crate::progress::Meter;

/// A device, its regions and its scratch memory.
pub(super) struct Share {
    pub device: Device,
    pub regions: BTreeMap<Region, Binding>,
    pub workspace: Binding,
    /// Signalled after what others wait for.
    pub event: EventId,
}

impl Share {
    pub fn at<T>(&self, result: backend_api::Result<T>) -> Result<T, EngineError> {
        result.map_err(|error| EngineError::device(self.device.target(), error))
    }

    pub fn place(&self, spot: Spot) -> (BufferId, u64) {
        let binding = &self.regions[&spot.region];
        (binding.buffer, binding.offset + spot.offset)
    }

    pub fn binding(&self, Bound { spot, bytes }: Bound) -> Binding {
        let (buffer, offset) = self.place(spot);
        Binding { buffer, offset, bytes }
    }

    /// Holds the later work of `other` until all work here so far is done. Both are devices that reach each other.
    pub fn holds(&self, other: &Share) -> Result<(), EngineError> {
        self.at(self.device.holds(self.event, &other.device))
    }
}

/// Opens all devices of a plan, allocates what it says, and then fills them, side by side. `meter` counts the bytes that are
/// uploaded.
pub(super) fn open(
    plan: &Plan,
    file: &Gguf,
    services: HostServices,
    options: &OpenOptions,
    meter: &Meter,
) -> Result<Vec<Share>, EngineError> {
    let mut shares: Vec<Share> = Vec::new();
    for device in &plan.devices {
        let opened = device
            .target
            .open(services, options, shares.iter().map(|share| &share.device));
        let opened = opened.map_err(|error| EngineError::device(&device.target, error))?;
        shares.push(allocate(device, opened, file)?);
    }
    for upload in plan.devices.iter().flat_map(|device| &device.uploads) {
        meter.expect(contents::bytes(upload.source, plan, file));
    }
    thread::scope(|scope| {
        let fill = |(share, device)| scope.spawn(move || upload(share, device, plan, file, meter));
        let at_work: Vec<_> = shares.iter().zip(&plan.devices).map(fill).collect();
        let mut done = at_work.into_iter().map(|thread| thread.join());
        done.try_for_each(|outcome| outcome.unwrap_or(Err(EngineError::Malformed("uploading panicked"))))
    })?;
    Ok(shares)
}

fn allocate(plan: &DevicePlan, device: Device, file: &Gguf) -> Result<Share, EngineError> {
    let failed = |error| EngineError::device(&plan.target, error);
    let bound = |buffer, bytes| Binding {
        buffer,
        offset: 0,
        bytes,
    };
    let allocate = |bytes: u64| device.allocate(plan.rounded(bytes)).map(|buffer| bound(buffer, bytes));
    let workspace = allocate(plan.workspace).map_err(failed)?;
    let mut regions = BTreeMap::new();
    for (&region, &bytes) in &plan.regions {
        regions.insert(region, allocate(bytes).map_err(failed)?);
    }
    for &index in &plan.files {
        let memory = file.files()[index].bytes();
        // SAFETY: a file's map stays as it is while the file does, which `Engine::open`, whose `file` this is, keeps until
        // the share is gone: in the engine's last field, or on the way out of an error.
        let buffer = unsafe { device.import(memory) }.map_err(failed)?;
        regions.insert(Region::File(index), bound(buffer, memory.len() as u64));
    }
    Ok(Share {
        event: device.create_event().map_err(failed)?,
        device,
        regions,
        workspace,
    })
}

/// Writes all that is fixed. A device that uses nothing where it is mapped leaves no page of the map behind.
fn upload(share: &Share, plan: &DevicePlan, all: &Plan, file: &Gguf, meter: &Meter) -> Result<(), EngineError> {
    for upload in &plan.uploads {
        let (buffer, offset) = share.place(upload.spot);
        share.at(contents::write(&share.device, buffer, offset, upload.source, all, file))?;
        if plan.files.is_empty() {
            contents::release(upload.source, file);
        }
        meter.advance(contents::bytes(upload.source, all, file));
    }
    share.at(share.device.synchronize())
}
