//! The model processes of a server, as listed by the system.

use rustix::process::{Pid, Signal, kill_process};

use super::eventually::eventually;
use super::server::Server;

/// A model process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(Pid);

impl Process {
    /// Returns the process with this ID.
    pub(crate) fn of(number: u64) -> Self {
        let number = i32::try_from(number).expect("a valid process ID");
        Self(Pid::from_raw(number).expect("a nonzero process ID"))
    }

    /// Returns the process ID.
    pub(crate) fn number(self) -> i32 {
        self.0.as_raw_pid()
    }

    /// Sends a signal.
    pub(crate) fn signal(self, signal: Signal) {
        kill_process(self.0, signal).expect("a running process");
    }

    /// Sends a signal. Returns whether the process still existed.
    pub(crate) fn try_signal(self, signal: Signal) -> bool {
        kill_process(self.0, signal).is_ok()
    }

    /// Whether the process exists, possibly as a zombie.
    pub(crate) fn exists(self) -> bool {
        rustix::process::test_kill_process(self.0).is_ok()
    }

    /// Waits until the process no longer exists.
    #[track_caller]
    pub(crate) fn wait_until_gone(self) {
        eventually("a process to be gone", || match self.exists() {
            true => Err("it is there"),
            false => Ok(()),
        });
    }
}

impl Server {
    /// Returns the model processes.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let own = format!("PPid:\t{}", self.pid().as_raw_pid());
        let entries = std::fs::read_dir("/proc").expect("Linux lists its processes");
        let numbers = entries.flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse::<u64>().ok()?;
            let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
            let arguments = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let child = status.lines().any(|line| line == own) && arguments.contains("model-process");
            child.then_some(number)
        });
        numbers.map(Process::of).collect()
    }
}
