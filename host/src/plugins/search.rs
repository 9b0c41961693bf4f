//! Where plugins are looked for.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::{error::SearchError, trust};
use crate::environment;

/// Where plugins are looked for, in this order; of files with one name the first counts. The current directory is never
/// searched of itself, nor a folder that others can write to.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// `--plugins DIR`.
    pub explicit: Option<PathBuf>,
    /// The folders of `$GRAFT_PLUGINS`. Relative ones are passed over: they would depend on the current directory.
    pub environment: Vec<PathBuf>,
    /// The folder with the executable: `plugins/` in it, then itself.
    pub executable_dir: Option<PathBuf>,
}

impl Search {
    /// The search path of this process.
    pub fn new(explicit: Option<PathBuf>) -> Self {
        let executable = std::env::current_exe().ok();
        Search {
            explicit,
            environment: environment::plugins(),
            executable_dir: executable.and_then(|path| Some(path.parent()?.to_owned())),
        }
    }

    /// The shared libraries found, sorted by name within a folder.
    ///
    /// Fails where the explicit folder cannot be read; other folders that are missing or refused leave a warning.
    pub fn files(&self) -> Result<Vec<PathBuf>, SearchError> {
        let mut names = HashSet::new();
        let mut files = Vec::new();
        for folder in self.folders()? {
            for file in libraries(&folder) {
                match names.insert(file.file_name().map(OsStr::to_owned)) {
                    true => files.push(file),
                    false => tracing::debug!("{} is hidden by a file of the same name", file.display()),
                }
            }
        }
        Ok(files)
    }

    /// The folders that exist and that only root and the user can write to, without links in their paths.
    fn folders(&self) -> Result<Vec<PathBuf>, SearchError> {
        let explicit = self.explicit.as_deref().map(canonical_explicit).transpose()?;
        let environment = self
            .environment
            .iter()
            .filter_map(|folder| canonical_environment(folder));
        let executable = self
            .executable_dir
            .iter()
            .flat_map(|dir| [dir.join("plugins"), dir.clone()]);
        let executable = executable.filter_map(|folder| folder.canonicalize().ok());
        let folders = explicit.into_iter().chain(environment).chain(executable);
        Ok(folders.filter(|folder| is_trusted(folder)).collect())
    }
}

fn canonical_explicit(folder: &Path) -> Result<PathBuf, SearchError> {
    let readable = folder.canonicalize().and_then(|path| {
        fs::read_dir(&path)?;
        Ok(path)
    });
    readable.map_err(|error| SearchError::Folder {
        folder: folder.into(),
        error,
    })
}

fn canonical_environment(folder: &Path) -> Option<PathBuf> {
    let found = match folder.is_absolute() {
        true => folder.canonicalize(),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected an absolute path")),
    };
    let passed_over = |error: &io::Error| tracing::warn!("GRAFT_PLUGINS: {}: {error}", folder.display());
    found.inspect_err(passed_over).ok()
}

fn is_trusted(folder: &Path) -> bool {
    let refused = |error: &trust::Untrusted| tracing::warn!("no plugins are loaded from {}: {error}", folder.display());
    trust::check(folder).inspect_err(refused).is_ok()
}

/// The `.so` files in a folder, and links to such; a link that leads nowhere is among them, to be reported.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let is_library = |path: &PathBuf| {
        path.extension() == Some(OsStr::new("so")) && fs::metadata(path).map_or(true, |metadata| metadata.is_file())
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_library).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        files
            .iter()
            .for_each(|file| fs::write(folder.path().join(file), "").unwrap());
        folder
    }

    fn found(search: &Search) -> Vec<PathBuf> {
        search.files().unwrap()
    }

    #[test]
    fn the_first_file_of_a_name_counts() {
        let (first, second, executable) = (folder(&["a.so"]), folder(&["a.so", "b.so"]), folder(&["b.so", "d.so"]));
        fs::create_dir(executable.path().join("plugins")).unwrap();
        fs::write(executable.path().join("plugins/d.so"), "").unwrap();
        let search = Search {
            explicit: Some(first.path().into()),
            environment: vec![second.path().into()],
            executable_dir: Some(executable.path().into()),
        };
        let expected = [
            first.path().join("a.so"),
            second.path().join("b.so"),
            executable.path().join("plugins/d.so"),
        ];
        assert_eq!(found(&search), expected);
    }

    #[test]
    fn only_shared_libraries_and_links_to_them_are_plugins() {
        let folder = folder(&["b.so", "notes.txt", "libx.so.1", "so"]);
        fs::create_dir(folder.path().join("folder.so")).unwrap();
        symlink("b.so", folder.path().join("a.so")).unwrap();
        let search = Search {
            explicit: Some(folder.path().into()),
            ..Search::default()
        };
        assert_eq!(found(&search), [folder.path().join("a.so"), folder.path().join("b.so")]);
    }

    #[test]
    fn an_explicit_folder_has_to_exist() {
        let search = Search {
            explicit: Some("/nowhere/plugins".into()),
            ..Search::default()
        };
        let error = search.files().unwrap_err().to_string();
        assert!(error.starts_with("--plugins /nowhere/plugins: No such file"), "{error}");
    }

    #[test]
    fn relative_and_missing_folders_of_the_environment_are_passed_over() {
        let search = Search {
            environment: vec![".".into(), "src".into(), "/nowhere".into()],
            ..Search::default()
        };
        assert_eq!(found(&search), [] as [PathBuf; 0]);
    }

    #[test]
    fn nothing_is_taken_from_a_folder_that_all_can_write_to() {
        let folder = folder(&["a.so"]);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
        let search = Search {
            explicit: Some(folder.path().into()),
            ..Search::default()
        };
        assert_eq!(found(&search), [] as [PathBuf; 0]);
    }
}
