//! Creates a cgroup for each child process if a cgroup has been delegated to the server. The kernel then counts and limits its
//! memory.
//!
//! Supports cgroup version 2. A cgroup that contains processes cannot enable controllers for its children. The server therefore
//! moves itself into a child `server` of its original cgroup, and the cgroups of child processes become its siblings. A systemd
//! unit permits this with `Delegate=yes`.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the server's own cgroup.
const SERVER: &str = "server";

/// The cgroup that was delegated to the server, which contains those of child processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DelegatedCgroup {
    directory: PathBuf,
}

impl fmt::Display for DelegatedCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}", self.directory.display())
    }
}

/// The parent of this process, if it is the init process of a container, which started the server and does nothing else.
fn container_init_parent() -> Option<u32> {
    let parent = rustix::process::getppid()?.as_raw_pid();
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    let same = program("self").is_some() && program("self") == program(&parent.to_string());
    same.then(|| u32::try_from(parent).ok()).flatten()
}

impl DelegatedCgroup {
    /// Claims the cgroup of this process, which must not contain other processes.
    ///
    /// # Errors
    /// The system does not permit it.
    pub(super) fn claim() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = own_cgroup(&mounts, &groups).ok_or(io::ErrorKind::NotFound)?;
        let mut members = vec![std::process::id()];
        members.extend(container_init_parent());
        Self::below(&own, &members)
    }

    /// Enables the memory controller for children of `own`, which contains the processes `members`.
    fn below(own: &Path, members: &[u32]) -> io::Result<Self> {
        // The server has been moved by an earlier call.
        if own.file_name().is_some_and(|name| name == SERVER)
            && let Some(directory) = own.parent()
            && has_memory(&directory.join("cgroup.subtree_control"))
        {
            return Ok(Self {
                directory: directory.to_owned(),
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
            // Restores the original state: the cgroup contains other processes, or it was not delegated.
            for pid in members {
                let _ = fs::write(own.join("cgroup.procs"), pid.to_string());
            }
            let _ = fs::remove_dir(&server);
            return Err(error);
        }
        Ok(Self {
            directory: own.to_owned(),
        })
    }

    /// Creates a new cgroup with a memory limit.
    pub(super) fn create_cgroup(&self, name: &str, max_memory: u64) -> io::Result<Cgroup> {
        let directory = (0..u32::MAX)
            .map(|number| self.directory.join(format!("{name}.{number}")))
            .find_map(|directory| match fs::create_dir(&directory) {
                Ok(()) => Some(Ok(directory)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(error) => Some(Err(error)),
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))?;
        let cgroup = Cgroup { directory };
        fs::write(cgroup.directory.join("memory.max"), max_memory.to_string())?;
        // Swap would extend the limit, if there is any.
        let _ = fs::write(cgroup.directory.join("memory.swap.max"), "0");
        // If the kernel kills a process, it kills the whole cgroup.
        let _ = fs::write(cgroup.directory.join("memory.oom.group"), "1");
        Ok(cgroup)
    }
}

/// The cgroup of one child process. Must be dropped after the process has exited, and is then removed.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Moves a process, and those that it starts later, into the cgroup.
    pub(super) fn add_process(&self, pid: u32) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string())
    }

    /// Whether the kernel has killed a process in the cgroup because of its memory limit.
    pub(super) fn had_oom_kill(&self) -> bool {
        let events = fs::read_to_string(self.directory.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|kills| kills.trim() != "0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The cgroup is empty. Otherwise it would remain until the server's own cgroup is removed.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn has_memory(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|list| list.split_whitespace().any(|name| name == "memory"))
}

/// The cgroup of a process, from `/proc/…/mountinfo` and `/proc/…/cgroup`. Only version 2.
fn own_cgroup(mounts: &str, groups: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    })?;
    // In a container, only a part of the hierarchy may be mounted.
    let below = Path::new(group).strip_prefix(root).ok()?;
    Some(Path::new(mount).join(below))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MOUNTS: &str = "24 30 0:22 / /proc rw - proc proc rw\n\
                          31 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    /// A directory with the files of a cgroup with these controllers. The rules of the kernel do not apply to it.
    fn fake_cgroup(controllers: &str) -> TempDir {
        let directory = tempfile::tempdir().expect("the directory is writable");
        fs::write(directory.path().join("cgroup.controllers"), controllers)
            .expect("the directory is writable");
        directory
    }

    fn read(directory: &Path, file: &str) -> String {
        fs::read_to_string(directory.join(file)).expect("the file exists")
    }

    #[test]
    fn the_servers_cgroup_is_found_below_its_mount_point() {
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
                own_cgroup(mounts, groups).as_deref(),
                expected.map(Path::new),
                "{groups}"
            );
        }
    }

    #[test]
    fn the_server_moves_to_a_child_cgroup_and_enables_the_memory_controller() {
        let own = fake_cgroup("cpu memory pids");
        let delegated = DelegatedCgroup::below(own.path(), &[42]).expect("the cgroup is delegated");
        assert_eq!(read(own.path(), "server/cgroup.procs"), "42");
        assert_eq!(read(own.path(), "cgroup.subtree_control"), "+memory");

        let cgroup = delegated
            .create_cgroup("m.0", 1 << 20)
            .expect("the directory is writable");
        let other = delegated
            .create_cgroup("m.0", 1 << 20)
            .expect("a second cgroup is created");
        assert_ne!(cgroup.directory, other.directory);
        cgroup.add_process(43).expect("the process is moved");
        assert_eq!(read(&cgroup.directory, "memory.max"), "1048576");
        assert_eq!(read(&cgroup.directory, "cgroup.procs"), "43");
        assert!(!cgroup.had_oom_kill());
        fs::write(cgroup.directory.join("memory.events"), "oom 1\noom_kill 1\n")
            .expect("the directory is writable");
        assert!(cgroup.had_oom_kill());
    }

    #[test]
    fn a_server_that_has_already_moved_finds_its_cgroup_again() {
        let own = fake_cgroup("memory");
        let first = DelegatedCgroup::below(own.path(), &[42]).expect("the cgroup is delegated");
        fs::write(own.path().join("cgroup.subtree_control"), "memory").expect("the directory is writable");
        let second =
            DelegatedCgroup::below(&own.path().join(SERVER), &[42]).expect("the cgroup is delegated");
        assert_eq!(first, second);
    }

    #[test]
    fn nothing_changes_if_the_memory_controller_is_not_available() {
        let own = fake_cgroup("cpu pids");
        DelegatedCgroup::below(own.path(), &[42]).expect_err("the memory controller is missing");
        assert!(!own.path().join(SERVER).exists());
    }
}
