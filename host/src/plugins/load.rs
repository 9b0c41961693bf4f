//! Loading a plugin into this process.

use std::path::Path;

use abi_stable::library::{LibraryError, lib_header_from_path};
use backend_api::contract::BackendModule;

use super::answer::words;

/// Why a library was refused when it was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The dynamic loader refused it: a library that it needs is missing, say.
    #[error("it cannot be loaded: {0}")]
    Library(String),
    /// The plugin's copy of the contract has another version.
    #[error("it was built for version {plugin} of the plugin contract, this host has {host}; hint: rebuild it")]
    Version {
        /// Version of `backend-api` that the plugin was built with.
        plugin: String,
        /// Version that this host was built with.
        host: String,
    },
    /// The plugin's copy of the contract's types differs.
    #[error("it was built for another plugin contract: {0}; hint: rebuild it with this host's backend-api")]
    Layout(String),
    /// Its root module could not be made.
    #[error("its root module cannot be made: {0}")]
    Root(String),
}

/// Loads the library at an absolute path, which [`super::elf::check`] found good, and gives its root module. The library
/// stays loaded for good: its threads may still run.
pub fn load(path: &Path) -> Result<BackendModule, LoadError> {
    // `RootModule::load_from_file` would keep the first library and return it for every other one.
    let header = lib_header_from_path(path)?;
    Ok(header.init_root_module::<BackendModule>()?)
}

impl From<LibraryError> for LoadError {
    fn from(error: LibraryError) -> Self {
        match error {
            LibraryError::OpenError { err, .. } | LibraryError::GetSymbolError { err, .. } => {
                LoadError::Library(innermost(&err))
            }
            LibraryError::IncompatibleVersionNumber {
                expected_version,
                actual_version,
                ..
            } => LoadError::Version {
                plugin: actual_version.to_string(),
                host: expected_version.to_string(),
            },
            LibraryError::AbiInstability(error) => LoadError::Layout(first_mismatch(&error.to_string())),
            LibraryError::InvalidAbiHeader(_) | LibraryError::InvalidCAbi { .. } => {
                LoadError::Layout("its abi_stable is another".into())
            }
            other => LoadError::Root(one_line(&other.to_string())),
        }
    }
}

/// What the loader itself said, at the end of the chain of causes.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| one_line(&error.to_string()), innermost)
}

/// The first mismatch out of abi_stable's pages: where it is, what was expected and what was found. Anything that does
/// not read as expected is given as it is.
fn first_mismatch(report: &str) -> String {
    let Some((before, mismatch)) = report.split_once("Error:") else {
        return one_line(report);
    };
    // Another error may follow, with the layouts around it.
    let mismatch = mismatch.split("error(s)").next().unwrap_or(mismatch);
    let mismatch = one_line(mismatch)
        .replace(" Expected:", ", expected")
        .replace(" Found:", ", found");
    match place(before) {
        Some(place) => format!("{place}: {mismatch}"),
        None => mismatch,
    }
}

/// The field that the last `inside:` of the report leads to, with the type that it is of: `DeviceInfo.capability`.
fn place(report: &str) -> Option<String> {
    let (_, inside) = report.rsplit_once("inside:")?;
    let (path, _) = inside.split_once("Layout of")?;
    let values = |key: &'static str| path.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let types: Vec<_> = values("type:").collect();
    match types[..] {
        [] => None,
        [only] => Some(only.into()),
        [.., parent, _] => Some(format!("{parent}.{}", values("field_name:").next_back()?)),
    }
}

fn one_line(text: &str) -> String {
    words(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_is_told_in_a_line() {
        let report = "
Compared <this>:
    --- Type Layout ---

0 error(s)inside:
    <other>

    field_name:0
    type:BackendFunctions

Layout of expected type:

1 error(s)inside:
    <other>

    field_name:0
    type:BackendFunctions
    size:96 align:8

    field_name:0
    type:DeviceInfo
    package:'backend-api' version:'0.1.0'

    field_name:capability
    type:u32

Layout of expected type:
    --- Type Layout ---
    type:u64

Error:mismatched type
Expected:
    u64
Found:
    u32
";
        assert_eq!(
            first_mismatch(report),
            "DeviceInfo.capability: mismatched type, expected u64, found u32"
        );
    }

    #[test]
    fn a_report_of_another_form_is_given_as_it_is() {
        assert_eq!(first_mismatch("all is\n  different"), "all is different");
        assert_eq!(first_mismatch("x\nError:too many\nfields"), "too many fields");
    }
}
