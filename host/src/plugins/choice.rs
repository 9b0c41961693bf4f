//! Which backend runs, and which one if that fails.

use std::{collections::HashSet, fmt::Display};

use super::Plugin;

/// `--backend auto`: the best that can serve.
pub const AUTO: &str = "auto";

/// Why no backend runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No plugin was found.
    #[error("no backend was found; hint: name a folder with backends with --plugins, `host backends` lists them")]
    NoPlugins,
    /// No plugin has the name that the user gave.
    #[error("there is no backend {wanted:?}; known are: {}", .known.join(", "))]
    Unknown {
        /// What the user asked for.
        wanted: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Every one that was tried failed.
    #[error("no backend can serve:{}", .0.iter().map(|failure| format!("\n  {failure}")).collect::<String>())]
    NoneServes(Vec<Failure>),
}

/// A backend that cannot serve, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backend {name} cannot serve: {reason}")]
pub struct Failure {
    /// The backend's name, or its file's where it has none.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// The plugins to try, in order. `plugins` are sorted, as [`super::discover`] gives them; of those with one name only the first
/// is ever tried.
///
/// `wanted` is the name of a backend, which comes first even where it cannot serve (so that the user is told why), or
/// nothing or [`AUTO`] for the best score. The others that can serve follow, unless `fallback` is off.
pub fn choose<'a>(plugins: &'a [Plugin], wanted: Option<&str>, fallback: bool) -> Result<Vec<&'a Plugin>, ChoiceError> {
    let named = wanted
        .filter(|name| *name != AUTO)
        .map(|name| find(plugins, name))
        .transpose()?;
    let mut names: HashSet<_> = named.iter().map(|plugin| plugin.name.as_deref()).collect();
    let others = plugins
        .iter()
        .filter(|plugin| plugin.obstacle().is_none() && names.insert(plugin.name.as_deref()));
    let mut attempts: Vec<_> = named.into_iter().chain(others).collect();
    if !fallback {
        attempts.truncate(1);
    }
    match attempts.is_empty() {
        true => Err(none_of(plugins)),
        false => Ok(attempts),
    }
}

fn find<'a>(plugins: &'a [Plugin], name: &str) -> Result<&'a Plugin, ChoiceError> {
    let unknown = || {
        let mut known: Vec<_> = plugins.iter().filter_map(|plugin| plugin.name.clone()).collect();
        known.dedup();
        match known.is_empty() {
            true => none_of(plugins),
            false => ChoiceError::Unknown {
                wanted: name.into(),
                known,
            },
        }
    };
    let has_name = |plugin: &&Plugin| plugin.name.as_deref() == Some(name);
    plugins.iter().find(has_name).ok_or_else(unknown)
}

fn none_of(plugins: &[Plugin]) -> ChoiceError {
    let failures: Vec<_> = plugins.iter().filter_map(failure_of).collect();
    match failures.is_empty() {
        true => ChoiceError::NoPlugins,
        false => ChoiceError::NoneServes(failures),
    }
}

fn failure_of(plugin: &Plugin) -> Option<Failure> {
    let reason = plugin.obstacle()?;
    Some(Failure {
        name: plugin.label(),
        reason,
    })
}

/// Opens the first of `attempts` that can be opened: `open` opens devices of the plugin and whatever else has to
/// succeed. Each that fails before it leaves a warning with the reason and what is used in its place.
pub fn open_first<'a, T, E: Display>(
    attempts: &[&'a Plugin],
    mut open: impl FnMut(&'a Plugin) -> Result<T, E>,
) -> Result<(&'a Plugin, T), ChoiceError> {
    let mut failures = Vec::new();
    for plugin in attempts {
        let opened = match failure_of(plugin) {
            Some(failure) => Err(failure.reason),
            None => open(plugin).map_err(|error| error.to_string()),
        };
        let name = plugin.label();
        match opened {
            Ok(value) => {
                failures
                    .iter()
                    .for_each(|failure| tracing::warn!("{failure}; using {name}"));
                return Ok((plugin, value));
            }
            Err(reason) => failures.push(Failure { name, reason }),
        }
    }
    Err(ChoiceError::NoneServes(failures))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::tests::logged, plugins::error::PluginError};

    fn plugin(name: &str, score: f32) -> Plugin {
        Plugin {
            name: Some(name.into()),
            score: Some(score),
            reason: Some("libx.so not found".into()),
            ..Plugin::at(format!("/plugins/{name}.so").into())
        }
    }

    fn broken(file: &str) -> Plugin {
        Plugin {
            error: Some(PluginError::NoAnswer),
            ..Plugin::at(format!("/plugins/{file}.so").into())
        }
    }

    fn machine() -> Vec<Plugin> {
        vec![
            plugin("fast", 100.0),
            plugin("cpu", 10.0),
            plugin("cpu", 5.0),
            plugin("card", 0.0),
            broken("bad"),
        ]
    }

    fn names(attempts: Result<Vec<&Plugin>, ChoiceError>) -> Vec<&str> {
        attempts
            .unwrap()
            .iter()
            .filter_map(|plugin| plugin.name.as_deref())
            .collect()
    }

    #[test]
    fn the_best_score_comes_first_and_each_name_once() {
        let plugins = machine();
        assert_eq!(names(choose(&plugins, None, true)), ["fast", "cpu"]);
        assert_eq!(names(choose(&plugins, Some("auto"), true)), ["fast", "cpu"]);
        assert_eq!(choose(&plugins, None, true).unwrap()[1].score, Some(10.0));
    }

    #[test]
    fn a_named_backend_comes_first_even_if_it_cannot_serve() {
        let plugins = machine();
        assert_eq!(names(choose(&plugins, Some("cpu"), true)), ["cpu", "fast"]);
        assert_eq!(names(choose(&plugins, Some("card"), true)), ["card", "fast", "cpu"]);
    }

    #[test]
    fn without_fallback_there_is_one_attempt() {
        let plugins = machine();
        assert_eq!(names(choose(&plugins, None, false)), ["fast"]);
        assert_eq!(names(choose(&plugins, Some("card"), false)), ["card"]);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let plugins = machine();
        let error = choose(&plugins, Some("tpu"), true).unwrap_err().to_string();
        assert_eq!(error, "there is no backend \"tpu\"; known are: fast, cpu, card");
    }

    #[test]
    fn where_none_can_serve_each_reason_is_given() {
        let plugins = [plugin("card", 0.0), broken("bad")];
        let error = choose(&plugins, None, true).unwrap_err().to_string();
        let expected = "no backend can serve:
  backend card cannot serve: libx.so not found
  backend bad.so cannot serve: the process that asked for its score gave no answer";
        assert_eq!(error, expected);
        assert_eq!(choose(&[], None, true).unwrap_err(), ChoiceError::NoPlugins);
    }

    #[test]
    fn what_cannot_be_opened_hands_over_to_the_next_with_a_warning() {
        let plugins = machine();
        let attempts = choose(&plugins, Some("card"), true).unwrap();
        let mut tried = Vec::new();
        let log = logged(|_| {
            let open = |plugin: &Plugin| {
                tried.push(plugin.label());
                if plugin.label() == "cpu" {
                    Ok(7)
                } else {
                    Err("no memory")
                }
            };
            let (chosen, value) = open_first(&attempts, open).unwrap();
            assert_eq!((chosen.label().as_str(), value), ("cpu", 7));
        });
        assert_eq!(tried, ["fast", "cpu"]);
        let expected = "warning: backend card cannot serve: libx.so not found; using cpu
warning: backend fast cannot serve: no memory; using cpu
";
        assert_eq!(log, expected);
    }

    #[test]
    fn where_all_fail_to_open_each_failure_is_told() {
        let plugins = machine();
        let attempts = choose(&plugins, Some("card"), false).unwrap();
        let error = open_first(&attempts, |_| Err::<(), _>("not asked"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "no backend can serve:\n  backend card cannot serve: libx.so not found"
        );
    }
}
