//! What the device counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use backend_api::{contract::Counter, operations::Operation, types::Type};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// Counters since the device was opened. Counting allocates nothing.
#[derive(Default)]
pub struct Counters {
    allocated: AtomicU64,
    peak: AtomicU64,
    runs: AtomicU64,
    launches: AtomicU64,
    captures: AtomicU64,
    replays: AtomicU64,
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
    /// The slot of an operation for data of a type.
    pub fn of(operation: Operation, ty: Option<Type>) -> Slot {
        let column = ty.and_then(|ty| Type::ALL.iter().position(|&t| t == ty));
        Slot {
            row: Operation::ALL.iter().position(|&o| o == operation).unwrap_or(0),
            column: column.unwrap_or(TYPES),
        }
    }
}

impl Counters {
    /// A buffer of `bytes` bytes was allocated.
    pub fn allocated(&self, bytes: u64) {
        let now = self.allocated.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }

    /// Bytes that are allocated now.
    pub fn in_use(&self) -> u64 {
        self.allocated.load(Relaxed)
    }

    /// A buffer of `bytes` bytes was freed.
    pub fn freed(&self, bytes: u64) {
        self.allocated.fetch_sub(bytes, Relaxed);
    }

    /// A program ran.
    pub fn ran(&self) {
        self.runs.fetch_add(1, Relaxed);
    }

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

    /// The kernels of a node were launched, for what it does with `bytes` bytes.
    pub fn called(&self, slot: Slot, bytes: u64) {
        self.calls.add(slot, 1);
        self.bytes.add(slot, bytes);
    }

    /// A node took `time`.
    pub fn spent(&self, slot: Slot, time: Duration) {
        self.time.add(slot, time.as_nanos() as u64);
    }

    /// All of them by name: `kernel.OPERATION[.TYPE].cuda37` and `bytes.OPERATION[.TYPE]` for those that were called,
    /// `time_ns.OPERATION[.TYPE]` where time was taken.
    pub fn list(&self) -> Vec<Counter> {
        let fixed = [
            ("allocated_bytes", &self.allocated),
            ("allocated_peak", &self.peak),
            ("runs", &self.runs),
            ("launches", &self.launches),
            ("captures", &self.captures),
            ("replays", &self.replays),
        ];
        let calls = self.calls.named().map(|(name, n)| (format!("kernel.{name}.cuda37"), n));
        let bytes = self.bytes.named().map(|(name, n)| (format!("bytes.{name}"), n));
        let time = self.time.named().map(|(name, n)| (format!("time_ns.{name}"), n));
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.load(Relaxed)));
        let all = fixed.into_iter().chain(calls).chain(bytes).chain(time);
        all.map(|(name, value)| Counter {
            name: name.into(),
            value,
        })
        .collect()
    }
}
