//! The instruction sets that kernels are made for, and the choice of one of them.

use std::sync::{Mutex, PoisonError};

use backend_api::{Result, features::HasFeatures};

use crate::kernel_set::{KernelSet, Kernels};

/// A name beside those of [`KernelSet`], where this machine has it.
const AMX: &str = "amx";

static SELECTED: Mutex<Option<Kernels>> = Mutex::new(None);

/// The kernels that were selected, if any.
pub fn selected() -> Option<Kernels> {
    *SELECTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sets of this machine.
pub struct Sets;

impl HasFeatures for Sets {
    fn available() -> Result<Vec<String>> {
        let names = KernelSet::ALL.map(KernelSet::name).into_iter().chain([AMX]);
        Ok(names
            .filter(|name| Kernels::named(name).is_ok())
            .map(str::to_owned)
            .collect())
    }

    fn select(name: &str) -> Result<()> {
        let kernels = Kernels::named(name)?;
        *SELECTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(kernels);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_that_is_here_can_be_selected_and_no_other() {
        let sets = Sets::available().unwrap();
        assert_eq!(sets[0], KernelSet::Scalar.name());
        assert!(sets.iter().any(|name| name == Kernels::best().set().name()));
        for name in &sets {
            Sets::select(name).unwrap();
            let selected = selected().unwrap();
            assert_eq!(Kernels::detect().unwrap(), selected);
            assert!(name == AMX || selected.set().name() == name);
        }
        let before = selected();
        assert!(Sets::select("sse9").is_err());
        assert_eq!(selected(), before);
        *SELECTED.lock().unwrap() = None;
    }
}
