//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend_api::{contract::Counter, operations::Operation, types::Type};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// Counters since the device was opened. Counting allocates nothing.
pub struct Counters {
    allocated: AtomicU64,
    peak: AtomicU64,
    runs: AtomicU64,
    launches: AtomicU64,
    captures: AtomicU64,
    replays: AtomicU64,
    /// Nodes launched by operation and type; those of operations without a type that matters stand last.
    calls: [[AtomicU64; TYPES + 1]; OPERATIONS],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            allocated: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            launches: AtomicU64::new(0),
            captures: AtomicU64::new(0),
            replays: AtomicU64::new(0),
            calls: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
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

    /// The kernels of a node of `operation` for data of type `ty` were launched, or captured.
    pub fn called(&self, operation: Operation, ty: Option<Type>) {
        let row = Operation::ALL.iter().position(|&o| o == operation);
        let column = ty.and_then(|ty| Type::ALL.iter().position(|&t| t == ty));
        if let Some(row) = row {
            self.calls[row][column.unwrap_or(TYPES)].fetch_add(1, Relaxed);
        }
    }

    /// All of them by name: `kernel.OPERATION[.TYPE].cuda37` for those that were called.
    pub fn list(&self) -> Vec<Counter> {
        let counter = |name: String, value: &AtomicU64| Counter {
            name: name.into(),
            value: value.load(Relaxed),
        };
        let fixed = [
            ("allocated_bytes", &self.allocated),
            ("allocated_peak", &self.peak),
            ("runs", &self.runs),
            ("launches", &self.launches),
            ("captures", &self.captures),
            ("replays", &self.replays),
        ];
        let calls = Operation::ALL.iter().zip(&self.calls).flat_map(|(operation, row)| {
            let called = row.iter().enumerate().filter(|(_, calls)| calls.load(Relaxed) > 0);
            called.map(|(column, calls)| {
                let ty = Type::ALL.get(column).map(|ty| format!(".{}", ty.name().to_lowercase()));
                let name = format!("kernel.{}{}.cuda37", operation.name(), ty.unwrap_or_default());
                counter(name, calls)
            })
        });
        let fixed = fixed.into_iter().map(|(name, value)| counter(name.to_owned(), value));
        fixed.chain(calls).collect()
    }
}
