//! Every environment variable that Graft reads.

use std::{ffi::OsString, path::PathBuf};

/// An environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub help: &'static str,
}

/// All of them, for `--help` and the documentation.
pub const VARIABLES: [Variable; 9] = [
    Variable {
        name: "GRAFT_PLUGINS",
        help: "Folders where backends are looked for, separated by colons; absolute paths",
    },
    Variable {
        name: "GRAFT_LOG",
        help: "What is logged: error, warn (default), info, debug, trace, or as host=debug",
    },
    Variable {
        name: "GRAFT_CPU_KERNELS",
        help: "Kernels of the CPU backend: scalar, avx2, avxvnni, avx512 or amx; the best if not set",
    },
    Variable {
        name: "NO_COLOR",
        help: "No colours, whatever its value",
    },
    Variable {
        name: "CLICOLOR",
        help: "0: no colours",
    },
    Variable {
        name: "CLICOLOR_FORCE",
        help: "Colours even where the output is no terminal, unless it is 0",
    },
    Variable {
        name: "XDG_CACHE_HOME",
        help: "Where caches are; graft/ there remembers the plugins that were probed",
    },
    Variable {
        name: "XDG_STATE_HOME",
        help: "Where state is; graft/history there has what was typed in conversations",
    },
    Variable {
        name: "HOME",
        help: "Where .cache and .local/state are, if those are not set; what ~/ stands for",
    },
];

/// The variables as a section of the help.
pub fn help() -> String {
    let width = VARIABLES.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let line = |v: &Variable| format!("\n  {:width$}  {}", v.name, v.help);
    format!("Environment:{}", VARIABLES.iter().map(line).collect::<String>())
}

fn value(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The folders of `GRAFT_PLUGINS`, in order.
pub fn plugins() -> Vec<PathBuf> {
    let folders = value("GRAFT_PLUGINS").unwrap_or_default();
    std::env::split_paths(&folders)
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect()
}

/// The directives of `GRAFT_LOG`.
pub fn log() -> Option<String> {
    value("GRAFT_LOG").map(|value| value.to_string_lossy().into_owned())
}

/// Graft's folder in the user's cache; nothing where the user has none.
pub fn cache_dir() -> Option<PathBuf> {
    user_dir("XDG_CACHE_HOME", ".cache")
}

/// Graft's folder for what it remembers of the user; nothing where the user has none.
pub fn state_dir() -> Option<PathBuf> {
    user_dir("XDG_STATE_HOME", ".local/state")
}

/// Graft's folder in the one that `variable` names, or in `below_home`.
fn user_dir(variable: &'static str, below_home: &str) -> Option<PathBuf> {
    let default = || Some(home()?.join(below_home));
    let folder = value(variable).map(PathBuf::from).or_else(default)?;
    folder.is_absolute().then(|| folder.join("graft"))
}

fn home() -> Option<PathBuf> {
    value("HOME").map(PathBuf::from)
}

/// The file that a user calls `name`: `~/` at its beginning is the user's own folder.
pub fn of_user(name: &str) -> PathBuf {
    match (name.strip_prefix("~/"), home()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => name.into(),
    }
}

/// Whether output to a stream, which is a `terminal` or not, has colours.
pub fn colors(terminal: bool) -> bool {
    colors_of(terminal, |name| value(name).map(|value| value != "0"))
}

/// `variable` tells of a variable that is set whether it is other than 0. See no-color.org and bixense.com/clicolors.
fn colors_of(terminal: bool, variable: impl Fn(&str) -> Option<bool>) -> bool {
    if variable("NO_COLOR").is_some() {
        return false;
    }
    variable("CLICOLOR_FORCE") == Some(true) || terminal && variable("CLICOLOR") != Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals() {
        assert!(colors_of(true, |_| None));
        assert!(!colors_of(false, |_| None));
    }

    #[test]
    fn the_user_decides_about_colours() {
        let set = |name: &'static str, on| move |asked: &str| (asked == name).then_some(on);
        assert!(!colors_of(true, set("NO_COLOR", true)));
        assert!(!colors_of(true, set("NO_COLOR", false)));
        assert!(!colors_of(true, set("CLICOLOR", false)));
        assert!(colors_of(false, set("CLICOLOR_FORCE", true)));
        assert!(!colors_of(false, set("CLICOLOR_FORCE", false)));
    }
}
