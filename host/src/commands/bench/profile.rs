//! Where the time goes: what a device counted by operation, before and after.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::execution::{Engine, engine::EngineError};

/// Counters by name.
#[derive(Default)]
pub struct Counted(BTreeMap<String, u64>);

/// An operation's share of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Spent {
    /// The operation, with the type of its weights or cache.
    pub operation: String,
    /// Nanoseconds.
    pub ns: u64,
    /// Share of all operations' time.
    pub share: f64,
    /// Bytes that it had to read and write.
    pub bytes: u64,
    /// Bytes a second.
    pub bytes_per_s: f64,
}

impl Counted {
    /// What all devices have counted so far.
    pub fn now(engine: &Engine) -> Result<Counted, EngineError> {
        let mut all = BTreeMap::new();
        for (_, counters) in engine.counters()? {
            for counter in counters {
                *all.entry(counter.name.into_string()).or_default() += counter.value;
            }
        }
        Ok(Counted(all))
    }

    /// Adds what was counted between `before` and `after`.
    pub fn add(&mut self, before: &Counted, after: &Counted) {
        for (name, value) in &after.0 {
            *self.0.entry(name.clone()).or_default() += value - before.0.get(name).copied().unwrap_or(0);
        }
    }

    /// What was counted under `PREFIX.`.
    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.0.iter().filter_map(move |(name, &value)| {
            let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
            (value > 0).then_some((rest, value))
        })
    }

    /// Bytes that were read and written; 0 where devices do not count them.
    pub fn bytes(&self) -> u64 {
        self.under("bytes").map(|(_, bytes)| bytes).sum()
    }

    /// Each operation's part, the longest first.
    pub fn profile(&self) -> Vec<Spent> {
        let bytes: BTreeMap<&str, u64> = self.under("bytes").collect();
        let total: u64 = self.under("time_ns").map(|(_, ns)| ns).sum();
        let spent = |(operation, ns): (&str, u64)| {
            let bytes = bytes.get(operation).copied().unwrap_or(0);
            Spent {
                operation: operation.to_owned(),
                ns,
                share: ns as f64 / total as f64,
                bytes,
                bytes_per_s: bytes as f64 / (ns as f64 * 1e-9),
            }
        };
        let mut all: Vec<_> = self.under("time_ns").map(spent).collect();
        all.sort_by_key(|spent| std::cmp::Reverse(spent.ns));
        all
    }
}
