//! What the device counts.

use backend_api::{contract::Counter, tally::Tally};

use crate::{kernel_set::KernelSet, product};

/// Counters since the device was opened. Counting allocates nothing.
#[derive(Default)]
pub struct Counters {
    /// What every backend counts.
    pub tally: Tally,
    /// Calls of the products' kernels, which name their instruction set themselves.
    pub products: product::Calls,
}

impl Counters {
    /// All of them by name: those of [`Tally::list`], and `kernel.PRODUCT.TYPE.SET` of the products.
    pub fn list(&self, set: KernelSet) -> Vec<Counter> {
        let mut list = self.tally.list(set.name());
        list.extend(self.products.list());
        list
    }
}
