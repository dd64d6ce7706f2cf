//! A cgroup of its own for each child, where the system has delegated one to the server: memory is counted and bounded by
//! the kernel, whatever a plugin does.
//!
//! Only version 2. A cgroup that holds processes cannot give its controllers to groups below it, so the server moves itself
//! into a group `server` below the one that it was started in, and the children go beside it. A unit of systemd allows
//! that with `Delegate=yes`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The group for the server itself.
const SERVER: &str = "server";

/// Where the children's groups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delegated {
    folder: PathBuf,
}

impl fmt::Display for Delegated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "groups below {}", self.folder.display())
    }
}

/// The parent of this process, if it is the first process of a container, which has started the server and does nothing else.
fn parent_of_the_same_program() -> Option<u32> {
    let parent = rustix::process::getppid()?.as_raw_pid();
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let same = program("self").is_some() && program("self") == program(&parent.to_string());
    same.then(|| u32::try_from(parent).ok()).flatten()
}

impl Delegated {
    /// Takes over the cgroup of this process, in which there may be no other.
    ///
    /// # Errors
    /// The system does not let it.
    pub(super) fn take_over() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_folder(&mounts, &groups).ok_or(io::ErrorKind::NotFound)?;
        let mut members = vec![std::process::id()];
        members.extend(parent_of_the_same_program());
        Self::below(&own, &members)
    }

    /// Gives memory to the groups below the one that these processes were started in.
    fn below(own: &Path, members: &[u32]) -> io::Result<Self> {
        // After an earlier take-over.
        if own.file_name().is_some_and(|name| name == SERVER)
            && let Some(folder) = own.parent()
            && has_memory(&folder.join("cgroup.subtree_control"))
        {
            return Ok(Self {
                folder: folder.to_owned(),
            });
        }
        if !has_memory(&own.join("cgroup.controllers")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let server = own.join(SERVER);
        match fs::create_dir(&server) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let delegated = members
            .iter()
            .try_for_each(|pid| fs::write(server.join("cgroup.procs"), pid.to_string()))
            .and_then(|()| fs::write(own.join("cgroup.subtree_control"), "+memory"));
        if let Err(error) = delegated {
            // Back to where it was: others live in the group, or it is not the server's.
            for pid in members {
                let _ = fs::write(own.join("cgroup.procs"), pid.to_string());
            }
            let _ = fs::remove_dir(&server);
            return Err(error);
        }
        Ok(Self {
            folder: own.to_owned(),
        })
    }

    /// A group with at most so many bytes, which no other child has.
    pub(super) fn group(&self, name: &str, max_memory: u64) -> io::Result<Group> {
        let folder = (0..u32::MAX)
            .map(|number| self.folder.join(format!("{name}.{number}")))
            .find_map(|folder| match fs::create_dir(&folder) {
                Ok(()) => Some(Ok(folder)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))?;
        let group = Group { folder };
        fs::write(group.folder.join("memory.max"), max_memory.to_string())?;
        // Where there is swap, it would be a second memory.
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        // A child ends as a whole.
        let _ = fs::write(group.folder.join("memory.oom.group"), "1");
        Ok(group)
    }
}

/// The cgroup of one child. Removed when dropped, which must be after the child's end.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    /// Moves a process into it, with what it will start.
    pub(super) fn admit(&self, pid: u32) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), pid.to_string())
    }

    /// Whether the kernel has ended a process in it for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|kills| kills.trim() != "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty. Were it not, it would go with the server's own.
        let _ = fs::remove_dir(&self.folder);
    }
}

fn has_memory(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|list| list.split_whitespace().any(|name| name == "memory"))
}

/// Where the cgroup of version 2 of a process is, from `/proc/…/mountinfo` and `/proc/…/cgroup`.
fn own_folder(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    })?;
    // Within a container the mount may show a part of the hierarchy only.
    let below = Path::new(group).strip_prefix(root).ok()?;
    Some(Path::new(mount).join(below))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MOUNTS: &str = "24 30 0:22 / /proc rw - proc proc rw\n\
                          31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// A folder that looks like a cgroup with these controllers. The kernel's own rules are not in it.
    fn look_alike(controllers: &str) -> TempDir {
        let folder = tempfile::tempdir().expect("there is room");
        fs::write(folder.path().join("cgroup.controllers"), controllers).expect("there is room");
        folder
    }

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).expect("the file is there")
    }

    #[test]
    fn the_own_group_is_found_below_its_mount() {
        let cases = [
            (
                MOUNTS,
                "0::/system.slice/x.service\n",
                Some("/sys/fs/cgroup/system.slice/x.service"),
            ),
            (MOUNTS, "0::/\n", Some("/sys/fs/cgroup/")),
            (MOUNTS, "4:memory:/x\n", None),
            ("24 30 0:22 / /proc rw - proc proc rw\n", "0::/\n", None),
            (
                "31 24 0:27 /docker/a /cg ro - cgroup2 cgroup2 rw\n",
                "0::/docker/a/b\n",
                Some("/cg/b"),
            ),
            (
                "31 24 0:27 /docker/a /cg ro - cgroup2 cgroup2 rw\n",
                "0::/other\n",
                None,
            ),
        ];
        for (mounts, groups, expected) in cases {
            assert_eq!(
                own_folder(mounts, groups).as_deref(),
                expected.map(Path::new),
                "{groups}"
            );
        }
    }

    #[test]
    fn the_server_moves_aside_and_gives_memory_to_the_groups_of_children() {
        let own = look_alike("cpu memory pids");
        let delegated = Delegated::below(own.path(), &[42]).expect("it is delegated");
        assert_eq!(read(own.path(), "server/cgroup.procs"), "42");
        assert_eq!(read(own.path(), "cgroup.subtree_control"), "+memory");

        let group = delegated.group("m.0", 1 << 20).expect("there is room");
        let other = delegated.group("m.0", 1 << 20).expect("a group of its own");
        assert_ne!(group.folder, other.folder);
        group.admit(43).expect("it can be moved");
        assert_eq!(read(&group.folder, "memory.max"), "1048576");
        assert_eq!(read(&group.folder, "cgroup.procs"), "43");
        assert!(!group.ran_out_of_memory());
        fs::write(group.folder.join("memory.events"), "oom 1\noom_kill 1\n").expect("there is room");
        assert!(group.ran_out_of_memory());
    }

    #[test]
    fn a_server_that_has_moved_aside_already_finds_its_group_again() {
        let own = look_alike("memory");
        let first = Delegated::below(own.path(), &[42]).expect("it is delegated");
        fs::write(own.path().join("cgroup.subtree_control"), "memory").expect("there is room");
        let second = Delegated::below(&own.path().join(SERVER), &[42]).expect("it is delegated");
        assert_eq!(first, second);
    }

    #[test]
    fn without_the_controller_nothing_is_touched() {
        let own = look_alike("cpu pids");
        Delegated::below(own.path(), &[42]).expect_err("memory is not delegated");
        assert!(!own.path().join(SERVER).exists());
    }
}
