//! What was allocated of a device's memory.

use std::sync::{Mutex, PoisonError};

use backend_api::{BackendError, Result, error::Code};
use indicatif::HumanBytes;

/// Counts allocations, and refuses those that exceed a limit.
#[derive(Debug, Default)]
pub struct Ledger {
    limit: Option<u64>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    now: u64,
    peak: u64,
}

impl Ledger {
    /// A ledger of memory of `limit` bytes; of any size where there is none.
    pub fn new(limit: Option<u64>) -> Ledger {
        Ledger {
            limit,
            ..Ledger::default()
        }
    }

    /// Counts `bytes` that `allocate` gives; what was refused or failed is not counted.
    pub fn allocate<T>(&self, bytes: u64, allocate: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let after = counts.now.saturating_add(bytes);
        if let Some(limit) = self.limit.filter(|&limit| after > limit) {
            let message = format!(
                "out of memory: {} of {} are taken, and {} were asked for",
                HumanBytes(counts.now),
                HumanBytes(limit),
                HumanBytes(bytes)
            );
            return Err(BackendError::new(Code::OutOfMemory, message));
        }
        let allocated = allocate()?;
        counts.now = after;
        counts.peak = counts.peak.max(after);
        Ok(allocated)
    }

    /// Bytes that are allocated, and the most that ever were.
    pub fn counted(&self) -> (u64, u64) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.now, counts.peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_the_limit_is_refused_before_anything_is_allocated() {
        let ledger = Ledger::new(Some(100));
        ledger.allocate(60, || Ok(())).unwrap();
        let refused = ledger.allocate(41, || -> Result<()> { panic!("it must not be asked") });
        assert_eq!(refused.unwrap_err().code(), Code::OutOfMemory);
        ledger.allocate(40, || Ok(())).unwrap();
        assert_eq!(ledger.counted(), (100, 100));
    }

    #[test]
    fn what_failed_is_not_counted() {
        let ledger = Ledger::new(None);
        ledger
            .allocate(60, || Err::<(), _>(BackendError::failed("no")))
            .unwrap_err();
        assert_eq!(ledger.counted(), (0, 0));
    }
}
