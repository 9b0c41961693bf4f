//! The device's buffers, and what the machine has left.

use std::{fs, ptr::NonNull};

use backend_api::{BackendError, Result};

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
        if bytes >= SMALL && bytes > free() {
            return Err(failed(&format!("{} bytes are free", free())));
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

/// Bytes of memory that this process may have at most: the machine's, or its control group's limit.
pub fn total() -> u64 {
    let machine = meminfo("MemTotal:").unwrap_or(0);
    group_limit().map_or(machine, |limit| limit.min(machine))
}

/// Bytes that are free for this process now.
pub fn free() -> u64 {
    let machine = meminfo("MemAvailable:").unwrap_or(0);
    let group = group_limit()
        .zip(group_use())
        .map(|(limit, used)| limit.saturating_sub(used));
    group.map_or(machine, |group| group.min(machine))
}

fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A file of the process's control group, version 2 or 1; inside a container the group is the root of the mount.
fn group_file(v2: &str, v1: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    [
        format!("/sys/fs/cgroup{own}/{v2}"),
        format!("/sys/fs/cgroup/{v2}"),
        format!("/sys/fs/cgroup/memory/{v1}"),
    ]
    .iter()
    .find_map(|path| fs::read_to_string(path).ok())
}

fn group_limit() -> Option<u64> {
    group_file("memory.max", "memory.limit_in_bytes")?.trim().parse().ok()
}

/// Bytes that the group uses, without the file pages that it would give back.
fn group_use() -> Option<u64> {
    let used: u64 = group_file("memory.current", "memory.usage_in_bytes")?
        .trim()
        .parse()
        .ok()?;
    let stat = group_file("memory.stat", "memory.stat").unwrap_or_default();
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    Some(used.saturating_sub(inactive.unwrap_or(0)))
}

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

    #[test]
    fn some_memory_is_free() {
        assert!(free() > 0 && free() <= total());
    }
}
