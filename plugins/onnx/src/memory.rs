//! Memory available to this process, as reported by the system.

use std::fs;
use std::path::Path;

/// Number of bytes that this process can still allocate: the memory available on the machine, capped by the limits of the
/// process and of its control group. `None` if the system does not report it.
pub(crate) fn available() -> Option<u64> {
    let of_machine = field(&read("/proc/meminfo")?, "MemAvailable:").map(|kilobytes| kilobytes << 10);
    [of_machine, of_process(), of_control_group()]
        .into_iter()
        .flatten()
        .min()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Parses the first number after `name`, in the line that starts with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Remaining bytes within the process's limits on address space and data size, if there are any.
fn of_process() -> Option<u64> {
    let (limits, status) = (read("/proc/self/limits")?, read("/proc/self/status")?);
    let left = |limit: &str, used: &str| {
        let used = field(&status, used)? << 10;
        Some(field(&limits, limit)?.saturating_sub(used))
    };
    [
        left("Max address space", "VmSize:"),
        left("Max data size", "VmData:"),
    ]
    .into_iter()
    .flatten()
    .min()
}

/// Remaining bytes within the memory limits of this process's control group and its ancestors.
fn of_control_group() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let left = |group: &Path| {
        let number = |file: &str| read(group.join(file))?.trim().parse::<u64>().ok();
        Some(number("memory.max")?.saturating_sub(number("memory.current")?))
    };
    let group = root.join(group);
    let around = group.ancestors().take_while(|path| path.starts_with(root));
    around.filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::{available, field};

    #[test]
    fn numbers_are_read_from_the_reports_of_the_system() {
        let text = "MemTotal:       24683652 kB\nMemAvailable:   22953632 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(22_953_632));
        let limits = "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(field(limits, "Max address space"), None);
        assert_eq!(
            field("Max address space  1000  2000  bytes", "Max address space"),
            Some(1000)
        );
    }

    #[test]
    fn some_memory_is_available() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
