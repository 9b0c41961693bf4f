//! What the device counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend_api::{contract::Counter, operations::Operation, types::Type};

use crate::{kernel_set::KernelSet, product};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// Counters since the device was opened. Counting allocates nothing.
pub struct Counters {
    allocated: AtomicU64,
    peak: AtomicU64,
    runs: AtomicU64,
    /// Calls of the products' kernels, which name their instruction set themselves.
    pub products: product::Calls,
    /// Calls by operation and type; those of operations without a type that matters stand last.
    calls: [[AtomicU64; TYPES + 1]; OPERATIONS],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            allocated: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            runs: AtomicU64::new(0),
            products: product::Calls::default(),
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
        let row = Operation::ALL.iter().position(|&o| o == operation);
        let column = ty.and_then(|ty| Type::ALL.iter().position(|&t| t == ty));
        if let Some(row) = row {
            self.calls[row][column.unwrap_or(TYPES)].fetch_add(1, Relaxed);
        }
    }

    /// All of them by name: `kernel.OPERATION[.TYPE].SET` for those that were called.
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
        for (operation, calls) in Operation::ALL.iter().zip(&self.calls) {
            for (column, value) in calls.iter().enumerate().filter(|(_, v)| v.load(Relaxed) > 0) {
                let ty = Type::ALL.get(column).map(|t| format!(".{}", t.name().to_lowercase()));
                let name = format!("kernel.{}{}.{}", operation.name(), ty.unwrap_or_default(), set.name());
                list.push(counter(name, value));
            }
        }
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
