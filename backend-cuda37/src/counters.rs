//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend_api::{
    contract::Counter,
    tally::{Tally, counter},
};

/// Counters since the device was opened. Counting allocates nothing.
#[derive(Default)]
pub struct Counters {
    /// What every backend counts.
    pub tally: Tally,
    launches: AtomicU64,
    captures: AtomicU64,
    replays: AtomicU64,
}

impl Counters {
    /// A kernel was launched, or captured.
    pub fn launched(&self) {
        self.launches.fetch_add(1, Relaxed);
    }

    /// A run was captured.
    pub fn captured(&self) {
        self.captures.fetch_add(1, Relaxed);
    }

    /// A captured run was launched again.
    pub fn replayed(&self) {
        self.replays.fetch_add(1, Relaxed);
    }

    /// All of them by name: those of [`Tally::list`], times where they were taken; `launches`, `captures` and `replays`.
    pub fn list(&self) -> Vec<Counter> {
        let own = [
            ("launches", &self.launches),
            ("captures", &self.captures),
            ("replays", &self.replays),
        ];
        let own = own.map(|(name, value)| counter(name, value.load(Relaxed)));
        self.tally.list("cuda37").into_iter().chain(own).collect()
    }
}
