//! Limits memory without a cgroup.
//!
//! The kernel enforces `RLIMIT_DATA`, which counts private writable memory. `RLIMIT_AS` is not suitable, because it counts
//! reserved addresses, and GPU runtimes reserve hundreds of gigabytes that they never use. Neither counts shared memory, so
//! the server also checks the resident memory periodically.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Makes allocations fail if they would exceed `bytes` in this process.
pub(super) fn limit_data(bytes: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Memory of a process that is not backed by a file, resident or swapped out, in bytes. `None` if the process has exited.
pub(super) fn memory_usage(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(parse_usage(&status))
}

fn parse_usage(status: &str) -> u64 {
    let kilobytes = |name: &str| -> u64 {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    (kilobytes("RssAnon:") + kilobytes("RssShmem:") + kilobytes("VmSwap:")) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_backed_memory_is_not_counted() {
        let status = "Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n";
        assert_eq!(parse_usage(status), 123 << 10);
    }

    #[test]
    fn the_memory_usage_of_this_process_is_known() {
        let used = memory_usage(std::process::id()).expect("this process is running");
        assert!(used > 0);
        assert_eq!(memory_usage(u32::MAX), None);
    }
}
