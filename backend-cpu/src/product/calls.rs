//! How often each kernel was called.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use backend_api::{contract::Counter, operations::Operation, types::Type};

use super::{
    job,
    select::{SETS, Way},
};

const OPERATIONS: usize = Operation::ALL.len();
const TYPES: usize = Type::ALL.len();

/// Nodes that each kernel served, by operation, type, way, first those for few columns, and instruction set.
pub struct Calls([[[[AtomicU64; SETS.len()]; 4]; TYPES]; OPERATIONS]);

impl Default for Calls {
    fn default() -> Calls {
        Calls([const { [const { [const { [const { AtomicU64::new(0) }; SETS.len()] }; 4] }; TYPES] }; OPERATIONS])
    }
}

impl Calls {
    /// A node of `operation` used the kernel for weights of type `ty`, or that for many columns.
    pub(super) fn count(&self, operation: Operation, ty: Type, way: Way, many: bool, set: &str) {
        let operation = Operation::ALL.iter().position(|&o| o == operation);
        let ty = Type::ALL.iter().position(|&t| t == ty);
        let set = SETS.iter().position(|&s| s == set);
        if let (Some(operation), Some(ty), Some(set)) = (operation, ty, set) {
            self.0[operation][ty][2 * usize::from(many) + way as usize][set].fetch_add(1, Relaxed);
        }
    }

    /// Those that were called: `kernel.product.q8_0.avx512vnni`, or `kernel.product.q8_0.exact.avx512` where the graph
    /// asked for precision, `kernel.product.q8_0.panel.avx512vnni` for many columns.
    pub fn list(&self) -> Vec<Counter> {
        let mut list = Vec::new();
        for (operation, types) in Operation::ALL.iter().zip(&self.0) {
            for (&ty, ways) in Type::ALL.iter().zip(types) {
                let kinds = [
                    (Way::Exact, ""),
                    (Way::Integer, ""),
                    (Way::Exact, "panel."),
                    (Way::Integer, "panel."),
                ];
                for ((way, many), sets) in kinds.into_iter().zip(ways) {
                    for (set, value) in SETS.iter().zip(sets).filter(|(_, value)| value.load(Relaxed) > 0) {
                        let exact = if way == job::way(ty, false) { "" } else { "exact." };
                        let ty = ty.name().to_lowercase();
                        list.push(Counter {
                            name: format!("kernel.{}.{ty}.{exact}{many}{set}", operation.name()).into(),
                            value: value.load(Relaxed),
                        });
                    }
                }
            }
        }
        list
    }
}
