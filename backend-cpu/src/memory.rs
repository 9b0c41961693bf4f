//! The device's buffers.

use std::ptr::NonNull;

use backend_api::{BackendError, Result, machine};

/// Allocations take whole pages.
pub const GRANULARITY: u64 = 4096;

/// Bytes that the starts of activations, and the workspace, are multiples of.
pub const ALIGNMENT: usize = 64;

/// Allocations under this are not compared with the free memory first.
const SMALL: u64 = 1 << 20;

/// Memory that a buffer's handle stands for: the device's own, or the host's.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    owned: bool,
}

// SAFETY: plain memory. Who may read or write which part when is the contract's matter: the host orders the work.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` bytes of zeros, at the start of a page.
    pub fn allocate(bytes: u64) -> Result<Memory> {
        let failed = |why: &str| BackendError::out_of_memory(format!("cannot allocate {bytes} bytes of memory: {why}"));
        let length = usize::try_from(bytes).map_err(|_| failed("more than an address space"))?;
        if bytes >= SMALL {
            let free = machine::free();
            // 0 where nobody says what is free
            if (1..bytes).contains(&free) {
                return Err(failed(&format!("{free} bytes are free")));
            }
        }
        if length == 0 {
            return Ok(Memory::of(NonNull::<Line>::dangling().cast(), 0, true));
        }
        // SAFETY: a new anonymous mapping touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(start) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Memory::of(mapped.cast(), length, true)),
            _ => Err(failed(&std::io::Error::last_os_error().to_string())),
        }
    }

    /// The host's memory, only read.
    ///
    /// # Safety
    /// `memory` stays in place, valid and unchanged until the value is dropped.
    pub unsafe fn import(memory: &[u8]) -> Memory {
        Memory::of(NonNull::from(memory).cast(), memory.len(), false)
    }

    fn of(start: NonNull<u8>, bytes: usize, owned: bool) -> Memory {
        Memory { start, bytes, owned }
    }

    /// Bytes in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is the device's own: the host's is never written.
    pub fn is_owned(&self) -> bool {
        self.owned
    }

    /// The address of `offset`, from which `bytes` bytes lie within the buffer.
    pub fn range(&self, offset: u64, bytes: u64) -> Result<NonNull<u8>> {
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > self.bytes as u64) {
            return Err(BackendError::invalid(format!(
                "bytes {offset} to {offset} + {bytes} lie outside a buffer of {} bytes",
                self.bytes
            )));
        }
        // SAFETY: `offset` is at most the buffer's length, so the address stays within it, or just after.
        Ok(unsafe { self.start.add(offset as usize) })
    }

    /// As [`Memory::range`], to write: refused for the host's memory.
    pub fn range_mut(&self, offset: u64, bytes: u64) -> Result<NonNull<u8>> {
        if !self.owned && bytes > 0 {
            return Err(BackendError::invalid("imported memory is only read"));
        }
        self.range(offset, bytes)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.owned && self.bytes > 0 {
            // SAFETY: the mapping is this value's own, made with this length.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

/// What an empty buffer's address is aligned for.
#[repr(align(64))]
struct Line;

#[cfg(test)]
mod tests {
    use super::*;
    use backend_api::error::Code;

    #[test]
    fn ranges_stay_inside() {
        let memory = Memory::allocate(100).unwrap();
        assert!(memory.range(0, 100).is_ok() && memory.range(100, 0).is_ok());
        assert_eq!(memory.range(1, 100).unwrap_err().code(), Code::Invalid);
        assert_eq!(memory.range(u64::MAX, 2).unwrap_err().code(), Code::Invalid);
    }

    #[test]
    fn too_much_is_an_error() {
        for bytes in [1 << 45, u64::MAX] {
            assert_eq!(Memory::allocate(bytes).unwrap_err().code(), Code::OutOfMemory);
        }
    }

    #[test]
    fn empty_buffers_are_aligned() {
        let memory = Memory::allocate(0).unwrap();
        assert_eq!(memory.range(0, 0).unwrap().as_ptr() as usize % ALIGNMENT, 0);
    }

    #[test]
    fn imported_memory_is_not_written() {
        let bytes = [1u8, 2, 3];
        // SAFETY: `bytes` outlives `memory`.
        let memory = unsafe { Memory::import(&bytes) };
        assert!(memory.range(1, 2).is_ok());
        assert_eq!(memory.range_mut(0, 1).unwrap_err().code(), Code::Invalid);
    }
}
