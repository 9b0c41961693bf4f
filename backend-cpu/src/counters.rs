//! What the device counts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use backend_api::{contract::Counter, operations::Operation, types::Type};

use crate::{kernel_set::KernelSet, product};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// Counters since the device was opened. Counting allocates nothing.
#[derive(Default)]
pub struct Counters {
    allocated: AtomicU64,
    peak: AtomicU64,
    runs: AtomicU64,
    /// Calls of the products' kernels, which name their instruction set themselves.
    pub products: product::Calls,
    /// Calls by operation and type; those of operations without a type that matters stand last.
    calls: ByOperation,
    /// Nanoseconds that went by in them, and bytes that they had to read and write.
    time: ByOperation,
    bytes: ByOperation,
}

/// A number for each operation and type.
struct ByOperation([[AtomicU64; TYPES + 1]; OPERATIONS]);

impl Default for ByOperation {
    fn default() -> ByOperation {
        ByOperation(std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl ByOperation {
    fn add(&self, operation: Operation, ty: Option<Type>, amount: u64) {
        let row = Operation::ALL.iter().position(|&o| o == operation);
        let column = ty.and_then(|ty| Type::ALL.iter().position(|&t| t == ty));
        if let Some(row) = row {
            self.0[row][column.unwrap_or(TYPES)].fetch_add(amount, Relaxed);
        }
    }

    /// What is not 0, with the name `OPERATION[.TYPE]`.
    fn named(&self) -> impl Iterator<Item = (String, u64)> {
        let rows = Operation::ALL.iter().zip(&self.0);
        rows.flat_map(|(operation, row)| {
            let values = row.iter().map(|v| v.load(Relaxed)).enumerate().filter(|(_, v)| *v > 0);
            values.map(|(column, value)| {
                let ty = Type::ALL.get(column).map(|t| format!(".{}", t.name().to_lowercase()));
                (format!("{}{}", operation.name(), ty.unwrap_or_default()), value)
            })
        })
    }
}

impl Counters {
    /// A buffer of `bytes` bytes was allocated.
    pub fn allocated(&self, bytes: u64) {
        let now = self.allocated.fetch_add(bytes, Relaxed) + bytes;
        self.peak.fetch_max(now, Relaxed);
    }

    /// A buffer of `bytes` bytes was freed.
    pub fn freed(&self, bytes: u64) {
        self.allocated.fetch_sub(bytes, Relaxed);
    }

    /// A program ran.
    pub fn ran(&self) {
        self.runs.fetch_add(1, Relaxed);
    }

    /// A kernel of `operation` for data of type `ty` was called.
    pub fn called(&self, operation: Operation, ty: Option<Type>) {
        self.calls.add(operation, ty, 1);
    }

    /// An operation took `time` for what it did with `bytes` bytes.
    pub fn spent(&self, operation: Operation, ty: Option<Type>, time: Duration, bytes: u64) {
        self.time.add(operation, ty, time.as_nanos() as u64);
        self.bytes.add(operation, ty, bytes);
    }

    /// All of them by name: `kernel.OPERATION[.TYPE].SET` for those that were called, `time_ns.OPERATION[.TYPE]` and
    /// `bytes.OPERATION[.TYPE]` for those that ran.
    pub fn list(&self, set: KernelSet) -> Vec<Counter> {
        let counter = |name: String, value: &AtomicU64| Counter {
            name: name.into(),
            value: value.load(Relaxed),
        };
        let mut list = vec![
            counter("allocated_bytes".into(), &self.allocated),
            counter("allocated_peak".into(), &self.peak),
            counter("runs".into(), &self.runs),
        ];
        let kernels = self
            .calls
            .named()
            .map(|(name, value)| (format!("kernel.{name}.{}", set.name()), value));
        let times = self
            .time
            .named()
            .map(|(name, value)| (format!("time_ns.{name}"), value));
        let bytes = self.bytes.named().map(|(name, value)| (format!("bytes.{name}"), value));
        let by_operation = kernels.chain(times).chain(bytes);
        list.extend(by_operation.map(|(name, value)| Counter {
            name: name.into(),
            value,
        }));
        list.extend(self.products.list());
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_outlives_what_was_freed() {
        let counters = Counters::default();
        counters.allocated(100);
        counters.freed(100);
        counters.allocated(40);
        counters.called(Operation::Rows, Some(Type::Q8_0));
        counters.called(Operation::Add, None);
        let list = counters.list(KernelSet::Scalar);
        let value = |name: &str| list.iter().find(|c| c.name == name).map(|c| c.value);
        assert_eq!(
            (value("allocated_bytes"), value("allocated_peak")),
            (Some(40), Some(100))
        );
        assert_eq!(value("kernel.rows.q8_0.scalar"), Some(1));
        assert_eq!(value("kernel.add.scalar"), Some(1));
        assert_eq!(list.len(), 5);
    }
}
