//! Memory without a cgroup: a limit that the kernel keeps, and a look at what it does not count.
//!
//! The limit is `RLIMIT_DATA`, which counts private memory that can be written to. `RLIMIT_AS` counts every reserved address
//! instead, of which GPU runtimes take hundreds of gigabytes that they never use. Shared memory is in neither: the
//! server looks at what is resident from time to time.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Makes allocations fail that would take this process past so many bytes.
pub(super) fn limit_data(bytes: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Bytes of memory that a process has to itself: resident or swapped out, and backed by no file. `None` if it is gone.
pub(super) fn held_by(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(held_in(&status))
}

fn held_in(status: &str) -> u64 {
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
    fn memory_that_a_file_backs_is_not_held() {
        let status = "Name:\tx\nVmRSS:\t 900 kB\nRssAnon:\t 100 kB\nRssFile:\t 700 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n";
        assert_eq!(held_in(status), 123 << 10);
    }

    #[test]
    fn what_this_process_holds_can_be_told() {
        let held = held_by(std::process::id()).expect("this process lives");
        assert!(held > 0);
        assert_eq!(held_by(u32::MAX), None);
    }
}
