//! Resources of a process, as reported by Linux.

use std::fs;

/// Resources of a process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Resident memory in bytes.
    pub(crate) resident_bytes: u64,
    /// Peak of the resident memory, since the start or the last reset.
    pub(crate) peak_bytes: u64,
    /// Resident memory that is not backed by a file.
    pub(crate) anonymous_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_files: u64,
}

impl Resources {
    /// Returns the numbers of threads and open files, which return to their initial values if nothing leaks.
    pub(crate) fn threads_and_files(&self) -> (u64, u64) {
        (self.threads, self.open_files)
    }

    /// Runs `work` and returns by how many bytes the peak of the resident memory of a process exceeded its initial value.
    pub(crate) fn peak_growth(pid: u32, work: impl FnOnce()) -> u64 {
        // Resets the peak to the current value.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset the peak");
        let before = Self::of(pid).resident_bytes;
        work();
        Self::of(pid).peak_bytes.saturating_sub(before)
    }

    /// Returns the resources of a running process.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or_else(|| panic!("no number {name} in {status}"))
        };
        let open_files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a running process");
        Self {
            resident_bytes: number("VmRSS:") << 10,
            peak_bytes: number("VmHWM:") << 10,
            anonymous_bytes: number("RssAnon:") << 10,
            threads: number("Threads:"),
            open_files: open_files.count() as u64,
        }
    }
}

/// Returns the names and the niceness of the threads of a running process.
pub(crate) fn niceness_of_threads(pid: i32) -> Vec<(String, i64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let stats = tasks.flatten().filter_map(|task| {
        // A thread can exit in the meantime.
        fs::read_to_string(task.path().join("stat")).ok()
    });
    stats
        .map(|stat| {
            // The name is in parentheses and may hold any character; niceness is the 19th field, the 17th after the name.
            let (head, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
            let name = head.split_once('(').expect("the name is in parentheses").1;
            let nice = fields.split(' ').nth(16).and_then(|nice| nice.parse().ok());
            (name.to_owned(), nice.expect("niceness is a number"))
        })
        .collect()
}
