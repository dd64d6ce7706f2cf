//! The resident memory of a process and its peak, as the kernel accounts them in `/proc/PID` (see proc(5)).

use std::fs;
use std::io;

/// Why the memory of a process cannot be read: the file of the kernel, and the error.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) what: &'static str,
    pub(super) source: io::Error,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessMemory {
    /// Present memory.
    pub(super) resident: u64,
    /// Maximum since [`reset_peak`].
    pub(super) peak: u64,
}

/// Sets the peak of a process to its present memory. Writing 5 to `clear_refs` resets the high-water mark.
pub(super) fn reset_peak(pid: u32) -> Result<(), Unreadable> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").map_err(|source| Unreadable {
        what: "/proc/PID/clear_refs",
        source,
    })
}

impl ProcessMemory {
    /// Reads the memory of a process.
    pub(super) fn read(pid: u32) -> Result<Self, Unreadable> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        let parsed = status.and_then(|status| Self::parse(&status).ok_or(io::ErrorKind::InvalidData.into()));
        parsed.map_err(|source| Unreadable {
            what: "/proc/PID/status",
            source,
        })
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self {
            resident: bytes(status, "VmRSS:")?,
            peak: bytes(status, "VmHWM:")?,
        })
    }
}

/// A field of the status in bytes.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status_of_a_process() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n";
        let expected = ProcessMemory {
            resident: 1 << 20,
            peak: 2 << 20,
        };
        assert_eq!(ProcessMemory::parse(status), Some(expected));
        assert_eq!(ProcessMemory::parse("VmHWM:\t 2048 kB\n"), None);
    }
}
