//! Buffers: vectors of bytes behind handles.

use std::{
    ops::Range,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use backend_api::{BackendError, Result, contract::BufferId, plugin::Handles};

/// Bytes that the device has. The host plans with this number, so it must be one that can be kept: a plan that fits
/// never fails later.
pub const CAPACITY: u64 = 4 << 30;

/// All buffers of the device.
pub struct Memory {
    // `Handles` gives out numbers that are never used twice, so a stale handle is an error and not somebody else's data.
    buffers: Handles<RwLock<Vec<u8>>>,
    used: AtomicU64,
}

impl Memory {
    pub fn new() -> Self {
        Memory {
            buffers: Handles::new("buffer"),
            used: AtomicU64::new(0),
        }
    }

    /// A buffer of `bytes` bytes, 0 too.
    pub fn allocate(&self, bytes: u64) -> Result<BufferId> {
        let with = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= CAPACITY);
        let no_room = |used| BackendError::out_of_memory(format!("{bytes} bytes beside {used} of {CAPACITY}"));
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, with)
            .map_err(no_room)?;
        match zeros(bytes) {
            Some(buffer) => Ok(BufferId(self.buffers.insert(RwLock::new(buffer)))),
            None => Err(no_room(self.used.fetch_sub(bytes, Ordering::Relaxed) - bytes)),
        }
    }

    pub fn free(&self, buffer: BufferId) -> Result<()> {
        let buffer = self.buffers.remove(buffer.0)?;
        let bytes = buffer.read().unwrap_or_else(PoisonError::into_inner).len();
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    pub fn available(&self) -> u64 {
        CAPACITY - self.used.load(Ordering::Relaxed)
    }

    /// Fills `data` from the bytes at `offset`.
    pub fn read(&self, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let bytes = buffer.read().unwrap_or_else(PoisonError::into_inner);
        data.copy_from_slice(&bytes[range(bytes.len(), offset, data.len())?]);
        Ok(())
    }

    /// Puts `data` at `offset`.
    pub fn write(&self, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let mut bytes = buffer.write().unwrap_or_else(PoisonError::into_inner);
        let range = range(bytes.len(), offset, data.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }
}

/// Zeros, or nothing where the system has no memory for them: `vec!` would end the whole process.
fn zeros(bytes: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok()?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(bytes).ok()?;
    buffer.resize(bytes, 0);
    Some(buffer)
}

/// `count` bytes from `offset` of a buffer of `length`. The host vouches for what it binds, but a mistake must end in an
/// error.
fn range(length: usize, offset: u64, count: usize) -> Result<Range<usize>> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(count)?));
    range
        .filter(|range| range.end <= length)
        .ok_or_else(|| BackendError::invalid(format!("{count} bytes from {offset} of a buffer of {length}")))
}
