//! Whether others can put code where it would be loaded.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why code at a place is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Other users could put something else there.
    #[error("{} can be written to by others (mode {:03o}); hint: chmod go-w {}", .path.display(), .mode & 0o7777, .path.display())]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// Another user put it there.
    #[error("{} belongs to user {owner}, who is neither root nor you; hint: chown it, or copy it to a folder of yours", .path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// It could not be looked at.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Who runs this process.
#[derive(Clone, Copy)]
struct Identity {
    user: u32,
    group: u32,
}

impl Identity {
    fn current() -> Self {
        // SAFETY: both functions only return a number, and cannot fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        Identity { user, group }
    }

    fn owns(self, owner: u32) -> bool {
        owner == 0 || owner == self.user
    }

    /// Whether users other than root and this one may write. A group that has the user's number is the user's own, as
    /// distributions set it up that make one a user (and a umask of 002); root's group is root's.
    fn is_shared(self, mode: u32, group: u32) -> bool {
        let own_group = group == 0 || (group == self.group && group == self.user);
        mode & WRITABLE_BY_ALL != 0 || (mode & WRITABLE_BY_GROUP != 0 && !own_group)
    }
}

/// Makes sure that only root and this user could have put the file or folder at `path`, which has no links in it, there
/// and can change it: its owner and mode, and that no folder above lets others replace it.
pub fn check(path: &Path) -> Result<(), Untrusted> {
    let me = Identity::current();
    for (level, place) in path.ancestors().enumerate() {
        let unreadable = |error| Untrusted::Unreadable {
            path: place.into(),
            error,
        };
        let metadata = std::fs::symlink_metadata(place).map_err(unreadable)?;
        let (mode, owner) = (metadata.mode(), metadata.uid());
        if level == 0 && !me.owns(owner) {
            return Err(Untrusted::Owner {
                path: place.into(),
                owner,
            });
        }
        // Above, the sticky bit keeps others from moving what is not theirs; in the folder itself they may still add.
        let harmless = level > 0 && mode & STICKY != 0;
        if me.is_shared(mode, metadata.gid()) && !harmless {
            return Err(Untrusted::Writable {
                path: place.into(),
                mode,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const ME: Identity = Identity {
        user: 1000,
        group: 1000,
    };

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn only_root_and_the_user_are_trusted() {
        assert!(ME.owns(0) && ME.owns(1000));
        assert!(!ME.owns(1001));
    }

    #[test]
    fn a_private_group_may_write_and_a_common_one_may_not() {
        assert!(!ME.is_shared(0o775, 1000));
        assert!(!ME.is_shared(0o775, 0));
        assert!(ME.is_shared(0o775, 100));
        let users = Identity { user: 1000, group: 100 };
        assert!(users.is_shared(0o775, 100));
        assert!(!users.is_shared(0o755, 100));
    }

    #[test]
    fn a_folder_that_all_can_write_to_is_refused_sticky_or_not() {
        for mode in [0o777, 0o1777, 0o702] {
            let folder = folder(mode);
            let error = check(folder.path()).unwrap_err().to_string();
            let path = folder.path().display();
            assert!(
                error.starts_with(&format!("{path} can be written to by others")),
                "{error}"
            );
            assert!(error.ends_with(&format!("hint: chmod go-w {path}")), "{error}");
        }
        check(folder(0o755).path()).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_replace_is_refused() {
        let above = folder(0o777);
        let below = above.path().join("plugins");
        fs::create_dir(&below).unwrap();
        assert!(matches!(check(&below), Err(Untrusted::Writable { path, .. }) if path == above.path()));
        fs::set_permissions(&above, fs::Permissions::from_mode(0o1777)).unwrap();
        check(&below).unwrap();
    }
}
