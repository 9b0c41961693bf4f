//! Counters that every backend keeps: of memory, and of operations by type.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{contract::Counter, operations::Operation, types::Type};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// What a device counts since it was opened. Counting allocates nothing.
#[derive(Default)]
pub struct Tally {
    allocated: AtomicU64,
    peak: AtomicU64,
    runs: AtomicU64,
    calls: ByOperation,
    bytes: ByOperation,
    time: ByOperation,
}

/// A number for each operation and type; those of operations without a type that matters stand last.
struct ByOperation([[AtomicU64; TYPES + 1]; OPERATIONS]);

impl Default for ByOperation {
    fn default() -> ByOperation {
        ByOperation(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl ByOperation {
    fn add(&self, Slot { row, column }: Slot, amount: u64) {
        self.0[row][column].fetch_add(amount, Relaxed);
    }

    /// What is not 0, with the name `OPERATION[.TYPE]`.
    fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let rows = Operation::ALL.iter().zip(&self.0);
        rows.flat_map(|(operation, row)| {
            let values = row.iter().map(|v| v.load(Relaxed)).enumerate().filter(|(_, v)| *v > 0);
            values.map(|(column, value)| {
                let ty = Type::ALL.get(column).map(|ty| format!(".{}", ty.name().to_lowercase()));
                (format!("{}{}", operation.name(), ty.unwrap_or_default()), value)
            })
        })
    }
}

/// Where an operation and type are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    row: usize,
    column: usize,
}

impl Slot {
    /// The slot of an operation for data of a type, if that matters.
    pub fn of(operation: Operation, ty: Option<Type>) -> Slot {
        let column = ty.and_then(|ty| Type::ALL.iter().position(|&t| t == ty));
        Slot {
            row: Operation::ALL.iter().position(|&o| o == operation).unwrap_or(0),
            column: column.unwrap_or(TYPES),
        }
    }
}

/// A counter by name, for a backend's own.
pub fn counter(name: impl Into<String>, value: u64) -> Counter {
    Counter {
        name: name.into().into(),
        value,
    }
}

impl Tally {
    /// A buffer was allocated that takes `bytes` bytes.
    pub fn allocated(&self, bytes: u64) {
        let now = self.allocated.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }

    /// Such a buffer was freed.
    pub fn freed(&self, bytes: u64) {
        self.allocated.fetch_sub(bytes, Relaxed);
    }

    /// Bytes that are allocated now.
    pub fn in_use(&self) -> u64 {
        self.allocated.load(Relaxed)
    }

    /// A program ran.
    pub fn ran(&self) {
        self.runs.fetch_add(1, Relaxed);
    }

    /// A kernel of an operation was called.
    pub fn called(&self, slot: Slot) {
        self.calls.add(slot, 1);
    }

    /// An operation had to read and write `bytes` bytes.
    pub fn moved(&self, slot: Slot, bytes: u64) {
        self.bytes.add(slot, bytes);
    }

    /// An operation took `time`.
    pub fn took(&self, slot: Slot, time: Duration) {
        self.time.add(slot, time.as_nanos() as u64);
    }

    /// All of them by name: `allocated_bytes`, `allocated_peak` and `runs`; then what is not 0 of `kernel.OPERATION[.TYPE].SET`,
    /// `bytes.OPERATION[.TYPE]` and `time_ns.OPERATION[.TYPE]`. `set` names the kernels.
    pub fn list(&self, set: &str) -> Vec<Counter> {
        let memory = [
            ("allocated_bytes", &self.allocated),
            ("allocated_peak", &self.peak),
            ("runs", &self.runs),
        ];
        let memory = memory.map(|(name, value)| counter(name, value.load(Relaxed)));
        let calls = self
            .calls
            .named()
            .map(|(name, n)| counter(format!("kernel.{name}.{set}"), n));
        let bytes = self.bytes.named().map(|(name, n)| counter(format!("bytes.{name}"), n));
        let time = self.time.named().map(|(name, n)| counter(format!("time_ns.{name}"), n));
        memory.into_iter().chain(calls).chain(bytes).chain(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tally: &Tally) -> Vec<(String, u64)> {
        let list = tally.list("set").into_iter();
        list.map(|counter| (counter.name.into(), counter.value)).collect()
    }

    #[test]
    fn the_peak_outlives_what_was_freed() {
        let tally = Tally::default();
        tally.allocated(100);
        tally.freed(100);
        tally.allocated(40);
        tally.ran();
        let expected = [("allocated_bytes", 40), ("allocated_peak", 100), ("runs", 1)];
        assert_eq!(values(&tally), expected.map(|(name, value)| (name.into(), value)));
        assert_eq!(tally.in_use(), 40);
    }

    #[test]
    fn operations_are_told_apart_by_their_types() {
        let tally = Tally::default();
        let (rows, add) = (
            Slot::of(Operation::Rows, Some(Type::Q8_0)),
            Slot::of(Operation::Add, None),
        );
        tally.called(rows);
        tally.called(add);
        tally.called(add);
        tally.moved(rows, 34);
        tally.took(add, Duration::from_micros(3));
        let expected = [
            ("kernel.rows.q8_0.set", 1),
            ("kernel.add.set", 2),
            ("bytes.rows.q8_0", 34),
            ("time_ns.add", 3000),
        ];
        let mut found = values(&tally).split_off(3);
        found.sort();
        let mut expected = expected.map(|(name, value)| (name.to_owned(), value));
        expected.sort();
        assert_eq!(found, expected);
    }
}
