//! The memory of the machine and of the cgroups of this process.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory in bytes that this process can use: that of the machine, or less if a cgroup of the process limits it. `None` if
/// the system does not report it.
pub fn available_memory() -> Option<u64> {
    read(meminfo_total, |group| group.limit())
}

/// Memory in bytes that is not in use: that of the machine, or less if a cgroup of the process has less left. Caches that the
/// kernel can drop count as free. `None` if the system does not report it.
pub fn free_memory() -> Option<u64> {
    read(meminfo_free, |group| group.free())
}

fn read(machine: impl Fn(&str) -> Option<u64>, of_group: impl Fn(&Group) -> Option<u64>) -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups_of(&groups, Path::new("/sys/fs/cgroup"));
    machine(&meminfo)
        .into_iter()
        .chain(groups.iter().filter_map(of_group))
        .min()
}

fn meminfo_total(meminfo: &str) -> Option<u64> {
    meminfo_field(meminfo, "MemTotal:")
}

fn meminfo_free(meminfo: &str) -> Option<u64> {
    meminfo_field(meminfo, "MemAvailable:")
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo_field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The names of the files of a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A cgroup that limits memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    version: Version,
}

impl Group {
    fn number(&self, file: &str) -> Option<u64> {
        let text = fs::read_to_string(self.directory.join(file)).ok()?;
        // "max" is no limit.
        text.trim().parse().ok()
    }

    fn limit(&self) -> Option<u64> {
        self.number(match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        })
    }

    fn free(&self) -> Option<u64> {
        let (usage, cache) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::Two => ("memory.current", "inactive_file"),
        };
        let statistics = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        let cache = statistics.lines().find_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            (name == cache).then(|| bytes.trim().parse::<u64>().ok())?
        });
        let used = self.number(usage)?.saturating_sub(cache.unwrap_or(0));
        Some(self.limit()?.saturating_sub(used))
    }
}

/// The cgroup of a process and the groups above it. `groups` is `/proc/self/cgroup`. In a container, the path in it can be
/// relative to a root that is not mounted, so that the groups from the mounted root down are read as far as they exist.
fn groups_of(groups: &str, root: &Path) -> Vec<Group> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (mount, version) = match controllers {
            "" => (root.to_owned(), Version::Two),
            list if list.split(',').any(|controller| controller == "memory") => {
                (root.join("memory"), Version::One)
            }
            _ => continue,
        };
        let own = mount.join(path.trim_start_matches('/'));
        let above = own.ancestors().take_while(|group| group.starts_with(&mount));
        found.extend(above.map(|directory| Group {
            directory: directory.to_owned(),
            version,
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read_in_bytes() {
        let meminfo = "MemTotal:       24589120 kB\nMemFree:        123 kB\nMemAvailable:  2048 kB\n";
        assert_eq!(meminfo_total(meminfo), Some(24_589_120 * 1024));
        assert_eq!(meminfo_free(meminfo), Some(2 << 20));
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
        let (total, free) = (available_memory(), free_memory());
        assert!(free.is_some_and(|bytes| bytes > 1 << 20), "{free:?}");
        assert!(free <= total, "{free:?} {total:?}");
    }

    /// A file system with these files.
    fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory can be created");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("the file is in a directory"))
                .expect("it can be created");
            fs::write(path, text).expect("the file can be written");
        }
        root
    }

    #[test]
    fn the_limits_of_a_cgroup_and_of_those_above_it_count() {
        let root = files(&[
            ("pod/memory.max", "1000\n"),
            ("pod/server/memory.max", "max\n"),
            ("memory/old/memory.limit_in_bytes", "2000\n"),
        ]);
        let limits = |groups: &str| -> Vec<u64> {
            let groups = groups_of(groups, root.path());
            groups.iter().filter_map(Group::limit).collect()
        };
        assert_eq!(limits("0::/pod/server\n"), [1000]);
        assert_eq!(limits("5:cpu,memory:/old\n3:cpu:/pod\n"), [2000]);
        // In a container, the root of the mount is the container's own group.
        fs::write(root.path().join("memory.max"), "500\n").expect("the file can be written");
        assert_eq!(limits("0::/not/mounted/here\n"), [500]);
        assert_eq!(limits("malformed"), Vec::<u64>::new());
    }

    #[test]
    fn a_cgroup_has_left_what_is_neither_used_nor_a_cache() {
        let root = files(&[
            ("pod/memory.max", "1000\n"),
            ("pod/memory.current", "700\n"),
            ("pod/memory.stat", "anon 300\ninactive_file 150\n"),
            ("memory/old/memory.limit_in_bytes", "2000\n"),
            ("memory/old/memory.usage_in_bytes", "2500\n"),
        ]);
        let free = |groups: &str| -> Vec<u64> {
            let groups = groups_of(groups, root.path());
            groups.iter().filter_map(Group::free).collect()
        };
        assert_eq!(free("0::/pod\n"), [450]);
        assert_eq!(free("5:memory:/old\n"), [0]);
    }
}
