//! Copies between host and device through pinned memory: the device copies one part while the host fills the next.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use backend_api::Result;

use crate::{
    driver::{Address, Driver},
    resources::{Mark, Queue},
};

/// Bytes of pinned memory, and of the largest part that is copied at once.
const RING: usize = 16 << 20;
const PART: usize = RING / 4;

/// Parts begin at multiples of this.
const ALIGNMENT: usize = 64;

/// Pinned memory that is used as a ring.
pub struct Staging {
    driver: Arc<dyn Driver>,
    memory: *mut u8,
    ring: Mutex<Ring>,
}

// SAFETY: who holds the lock of `ring` alone touches the memory.
unsafe impl Send for Staging {}
// SAFETY: as above.
unsafe impl Sync for Staging {}

#[derive(Default)]
struct Ring {
    /// Where the next part begins, if it fits before the end.
    head: usize,
    /// Parts that the device may still use, oldest first, and the events that say when it no longer does.
    parts: VecDeque<(Range<usize>, Mark)>,
    /// Events that are not in use.
    marks: Vec<Mark>,
}

impl Staging {
    /// A ring of pinned memory.
    pub fn new(driver: &Arc<dyn Driver>) -> Result<Staging> {
        Ok(Staging {
            memory: driver.pin(RING)?,
            driver: driver.clone(),
            ring: Mutex::default(),
        })
    }

    /// Copies host memory to the device, after the queue's earlier work; `data` is free when this returns.
    ///
    /// # Safety
    /// As many bytes as `data` has lie at `to`, in an allocation that lives until the queue has passed the copy.
    pub unsafe fn write(&self, queue: &Queue, to: Address, data: &[u8]) -> Result<()> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, part) in data.chunks(PART).enumerate() {
            let range = ring.take(part.len())?;
            let to = to + (i * PART) as u64;
            // SAFETY: the range lies in the pinned memory, and no copy uses it any more; the caller vouches for `to`.
            unsafe {
                let staged = self.memory.add(range.start);
                staged.copy_from_nonoverlapping(part.as_ptr(), part.len());
                self.driver.write(queue.handle(), to, staged, part.len())?;
            }
            ring.give(&self.driver, queue, range)?;
        }
        Ok(())
    }

    /// Copies device memory to the host, after the queue's earlier work, and returns when it is there.
    ///
    /// # Safety
    /// As many bytes as `data` has lie at `from`, in a live allocation.
    pub unsafe fn read(&self, queue: &Queue, from: Address, data: &mut [u8]) -> Result<()> {
        // before the lock: others need not wait for this queue
        queue.synchronize()?;
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, part) in data.chunks_mut(PART).enumerate() {
            let range = ring.take(part.len())?;
            let from = from + (i * PART) as u64;
            // SAFETY: as in `write`; the copy has ended when `synchronize` returns.
            unsafe {
                let staged = self.memory.add(range.start);
                self.driver.read(queue.handle(), staged, from, part.len())?;
                queue.synchronize()?;
                part.as_mut_ptr().copy_from_nonoverlapping(staged, part.len());
            }
        }
        Ok(())
    }
}

impl Ring {
    /// A range of `bytes` bytes that the device does not use.
    fn take(&mut self, bytes: usize) -> Result<Range<usize>> {
        if self.head + bytes > RING {
            self.head = 0;
        }
        let range = self.head..self.head + bytes;
        let used = |(part, _): &(Range<usize>, Mark)| part.start < range.end && range.start < part.end;
        while self.parts.iter().any(used) {
            if let Some((_, mark)) = self.parts.pop_front() {
                mark.reach()?;
                self.marks.push(mark);
            }
        }
        self.head = range.end.next_multiple_of(ALIGNMENT);
        Ok(range)
    }

    /// Leaves a range to the queue's work so far.
    fn give(&mut self, driver: &Arc<dyn Driver>, queue: &Queue, range: Range<usize>) -> Result<()> {
        let mark = match self.marks.pop() {
            Some(mark) => mark,
            None => Mark::new(driver)?,
        };
        mark.record(queue)?;
        self.parts.push_back((range, mark));
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let ring = self.ring.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, mark) in ring.parts.drain(..) {
            // a copy that failed no longer uses the memory either
            let _ = mark.reach();
        }
        // SAFETY: the memory is this value's own, and no copy uses it any more.
        unsafe { self.driver.unpin(self.memory) };
    }
}
