//! Instruction sets that a backend lets be chosen.

use backend_api::features::Features;

use super::{Plugin, answer::words};

/// Why no backend took a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// Nobody has sets.
    #[error("--cpu-features {0}: no backend here lets its instruction set be chosen")]
    NoSets(String),
    /// Nobody has this one.
    #[error("--cpu-features {wanted}: {}", have.join("; "))]
    Unknown {
        /// The name.
        wanted: String,
        /// Whose sets are which.
        have: Vec<String>,
    },
}

/// The names of the sets that a backend has here, the best one last; none where it lets nothing be chosen.
pub fn sets(plugin: &Plugin) -> Vec<String> {
    let features = plugin
        .module
        .filter(|_| plugin.obstacle().is_none())
        .and_then(Features::find);
    let names = features.and_then(|features| features.available().ok());
    names.unwrap_or_default().iter().map(|name| words(name)).collect()
}

/// Holds all backends that have the set `wanted` to it.
pub fn select(plugins: &[&Plugin], wanted: &str) -> Result<(), FeatureError> {
    let (mut have, mut taken) = (Vec::new(), false);
    for plugin in plugins {
        let sets = sets(plugin);
        let features = plugin.module.and_then(Features::find);
        if sets.iter().any(|name| name == wanted) {
            taken |= features.is_some_and(|features| features.select(wanted).is_ok());
        } else if !sets.is_empty() {
            have.push(format!("backend {} has {} here", plugin.label(), sets.join(", ")));
        }
    }
    match (taken, have.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(FeatureError::NoSets(wanted.to_owned())),
        (false, false) => Err(FeatureError::Unknown {
            wanted: wanted.to_owned(),
            have,
        }),
    }
}
