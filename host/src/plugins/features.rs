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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use backend_api::{
        BackendError, Result,
        contract::{DeviceInfo, HostServices, Interface, OpenOptions, Score},
        features::{self, HasFeatures},
        graph::{Graph, Node},
        plugin::{Backend, Device, module},
    };

    use super::*;

    static SELECTED: Mutex<Option<String>> = Mutex::new(None);

    /// Has two sets, where it has any.
    struct Choosy<const SETS: bool>;

    impl HasFeatures for Choosy<true> {
        fn available() -> Result<Vec<String>> {
            Ok(vec!["old".into(), "new\x07".into()])
        }

        fn select(name: &str) -> Result<()> {
            *SELECTED.lock().unwrap() = Some(name.to_owned());
            Ok(())
        }
    }

    impl<const SETS: bool> Backend for Choosy<SETS> {
        const NAME: &'static str = "choosy";
        const VERSION: &'static str = "0";

        fn query(name: &str) -> Option<Interface> {
            (SETS && name == features::NAME).then(Features::of::<Choosy<true>>)
        }

        fn score(_: HostServices) -> Result<Score> {
            Ok(Score::new(1.0, "a test"))
        }

        fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
            Ok(Vec::new())
        }

        fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
            Err(BackendError::failed("it opens nothing"))
        }

        fn supports(_: &DeviceInfo, _: &Graph<'_>, _: &Node) -> Result<()> {
            Ok(())
        }
    }

    fn plugin<const SETS: bool>() -> Plugin {
        Plugin {
            name: Some("choosy".into()),
            score: Some(1.0),
            module: Some(module::<Choosy<SETS>>()),
            ..Plugin::at("/plugins/choosy.so".into())
        }
    }

    #[test]
    fn a_set_is_selected_where_it_is_and_refused_where_it_is_not() {
        let (choosy, plain) = (plugin::<true>(), plugin::<false>());
        assert_eq!(sets(&choosy), ["old", "new "]);
        assert!(sets(&plain).is_empty());
        select(&[&plain, &choosy], "old").unwrap();
        assert_eq!(SELECTED.lock().unwrap().take().as_deref(), Some("old"));

        let unknown = select(&[&plain, &choosy], "older").unwrap_err().to_string();
        assert_eq!(unknown, "--cpu-features older: backend choosy has old, new  here");
        assert_eq!(*SELECTED.lock().unwrap(), None);
        let none = select(&[&plain], "old").unwrap_err();
        assert_eq!(none, FeatureError::NoSets("old".into()));
    }
}
