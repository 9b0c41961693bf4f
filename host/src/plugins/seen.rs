//! Which plugins were asked in a child process before and answered. Only those are remembered: what failed is asked
//! again in a child each time, since a driver that is repaired may be all that it lacked.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use crate::environment;

/// Files that are remembered; the oldest are forgotten.
const REMEMBERED: usize = 64;

/// A file as it was: any change of its contents changes one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// The identity of the file at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The file in the user's cache; nothing where the user has none.
pub fn default_file() -> Option<PathBuf> {
    environment::cache_dir().map(|folder| folder.join("probes.json"))
}

/// The plugins that were asked before.
pub struct Seen {
    file: Option<PathBuf>,
    identities: Mutex<Vec<Identity>>,
}

impl Seen {
    /// What `file` remembers: nothing where it is missing or not understood.
    pub fn read(file: Option<&Path>) -> Self {
        let contents = file.and_then(|file| fs::read(file).ok()).unwrap_or_default();
        Seen {
            file: file.map(Path::to_owned),
            identities: Mutex::new(serde_json::from_slice(&contents).unwrap_or_default()),
        }
    }

    /// Whether this very file was asked before.
    pub fn contains(&self, identity: &Identity) -> bool {
        self.identities().contains(identity)
    }

    /// Remembers a file. A cache that cannot be written only costs time, so that is no error.
    pub fn remember(&self, identity: Identity) {
        let mut identities = self.identities();
        identities.push(identity);
        let surplus = identities.len().saturating_sub(REMEMBERED);
        identities.drain(..surplus);
        if let Some(file) = &self.file
            && let Err(error) = write(file, &identities)
        {
            tracing::debug!("{} cannot be written: {error}", file.display());
        }
    }

    fn identities(&self) -> std::sync::MutexGuard<'_, Vec<Identity>> {
        self.identities
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Replaces the file at once, so that another process never reads a part of it.
fn write(file: &Path, identities: &[Identity]) -> io::Result<()> {
    let new = file.with_extension(format!("{}.new", std::process::id()));
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(&new, serde_json::to_vec(identities)?)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (cache, plugin) = (folder.path().join("graft/probes.json"), folder.path().join("x.so"));
        fs::write(&plugin, "one").unwrap();
        (folder, cache, plugin)
    }

    #[test]
    fn a_file_is_remembered_until_it_changes() {
        let (_folder, cache, plugin) = files();
        let identity = Identity::of(&plugin).unwrap();
        let seen = Seen::read(Some(&cache));
        assert!(!seen.contains(&identity));
        seen.remember(identity.clone());
        assert!(Seen::read(Some(&cache)).contains(&identity));

        fs::write(&plugin, "two").unwrap();
        assert!(!Seen::read(Some(&cache)).contains(&Identity::of(&plugin).unwrap()));
    }

    #[test]
    fn a_damaged_cache_is_an_empty_one_and_is_written_anew() {
        let (_folder, cache, plugin) = files();
        fs::create_dir(cache.parent().unwrap()).unwrap();
        fs::write(&cache, "[{\"device\":1").unwrap();
        let identity = Identity::of(&plugin).unwrap();
        let seen = Seen::read(Some(&cache));
        assert!(!seen.contains(&identity));
        seen.remember(identity.clone());
        assert!(Seen::read(Some(&cache)).contains(&identity));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (_folder, _, plugin) = files();
        let seen = Seen::read(None);
        let first = Identity::of(&plugin).unwrap();
        seen.remember(first.clone());
        (0..REMEMBERED as u64).for_each(|inode| {
            seen.remember(Identity {
                inode,
                bytes: 0,
                ..first.clone()
            })
        });
        assert!(!seen.contains(&first));
        assert_eq!(seen.identities().len(), REMEMBERED);
    }
}
