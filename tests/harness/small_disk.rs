//! A disk that a test can fill and make read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tools;

/// Set in the process that has the disk.
const VARIABLE: &str = "INFERENCE_TEST_SMALL_DISK";

/// A file system of 16 MiB in memory, which only this process can see.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns the disk, in a process that has it. Otherwise, runs a test, which is named with its module, in such a process and checks
    /// that it passed; the caller then returns.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Some(Self(path.into()));
        }
        let directory = tempfile::tempdir().expect("a directory can be created");
        let executable = std::env::current_exe().expect("the executable has a path");
        // Root of a container may have no right to create namespaces of users, and other users none to mount without one.
        let options: &[&str] = if rustix::process::geteuid().is_root() {
            &["--mount"]
        } else {
            &["--mount", "--user", "--map-root-user"]
        };
        if !Command::new("unshare")
            .args(options)
            .arg("true")
            .status()
            .is_ok_and(|status| status.success())
        {
            tools::absent("`unshare --mount`", VARIABLE, "allow it in the container");
            return None;
        }
        let mount = format!("mount -t tmpfs -o size=16m none \"${VARIABLE}\" && exec \"$0\" \"$@\"");
        let status = Command::new("unshare")
            .args(options)
            .args(["sh", "-c", &mount])
            .arg(executable)
            .args(["--exact", test, "--nocapture"])
            .env(VARIABLE, directory.path())
            .status();
        assert!(
            status.expect("the test can be run").success(),
            "the test failed on its disk; see above"
        );
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn make_read_only(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.0)
            .status();
        assert!(status.expect("mount can be run").success());
    }
}
