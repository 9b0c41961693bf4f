//! Memory of the machine that the host runs on, for backends that use it, and for the host itself. Linux alone says it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes of memory that this process may have at most: the machine's, or its control groups' limit. 0 where nobody says.
pub fn total() -> u64 {
    let machine = meminfo("MemTotal:").unwrap_or(0);
    groups().iter().filter_map(Group::limit).fold(machine, u64::min)
}

/// Bytes that this process can have now without taking them from somebody else. 0 where nobody says.
pub fn free() -> u64 {
    let machine = meminfo("MemAvailable:").unwrap_or(0);
    groups().iter().filter_map(Group::free).fold(machine, u64::min)
}

fn meminfo(key: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The process's control group and all that it lies in: each may have a limit.
fn groups() -> Vec<Group> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let (root, own, names) = mount(&own);
    // Inside a container the group's path may be that of the machine, and the mount begins at the group itself.
    let groups = Path::new(own.trim_start_matches('/')).ancestors();
    groups
        .map(|group| Group {
            folder: Path::new(root).join(group),
            names,
        })
        .collect()
}

/// Where version 2 or 1 of control groups is mounted, which group of it this is, and what its files are called.
fn mount(groups: &str) -> (&'static str, &str, &'static Names) {
    let v1 = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)
    });
    let v2 = || groups.lines().find_map(|line| line.strip_prefix("0::"));
    match v1 {
        Some(path) => ("/sys/fs/cgroup/memory", path, &V1),
        None => ("/sys/fs/cgroup", v2().unwrap_or("/"), &V2),
    }
}

/// What the files of a control group are called: its limit, its use, and the part of that which it would give back.
struct Names {
    limit: &'static str,
    used: &'static str,
    inactive: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    inactive: "total_inactive_file ",
};

const V2: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    inactive: "inactive_file ",
};

struct Group {
    folder: PathBuf,
    names: &'static Names,
}

impl Group {
    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    /// None where it has no limit ("max").
    fn limit(&self) -> Option<u64> {
        self.number(self.names.limit)
    }

    /// What is left of its limit, the file pages counted that it would give back.
    fn free(&self) -> Option<u64> {
        let used = self.number(self.names.used)?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix(self.names.inactive));
        let inactive = inactive.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0);
        Some(self.limit()?.saturating_sub(used.saturating_sub(inactive)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_memory_is_free() {
        assert!(free() > 0 && free() <= total());
    }

    #[test]
    fn the_group_of_either_version_is_found() {
        let (root, own, names) = mount("0::/user.slice/a\n");
        assert_eq!(
            (root, own, names.limit),
            ("/sys/fs/cgroup", "/user.slice/a", "memory.max")
        );
        let (root, own, names) = mount("5:cpu,cpuacct:/x\n4:memory:/docker/b\n0::/\n");
        assert_eq!(
            (root, own, names.used),
            ("/sys/fs/cgroup/memory", "/docker/b", "memory.usage_in_bytes")
        );
        assert_eq!(mount("").1, "/");
    }

    #[test]
    fn a_group_has_left_what_its_limit_and_its_use_leave() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let group = Group {
            folder: folder.path().into(),
            names: &V2,
        };
        assert_eq!(group.free(), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!((group.limit(), group.free()), (None, None));
        write("memory.max", "1000\n");
        assert_eq!((group.limit(), group.free()), (Some(1000), Some(300)));
        write("memory.stat", "anon 500\nactive_file 100\ninactive_file 100\n");
        assert_eq!(group.free(), Some(400));
        write("memory.current", "1500\n");
        assert_eq!(group.free(), Some(0));
    }
}
