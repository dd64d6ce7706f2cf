//! What a process holds of the system, as Linux tells it.

use std::fs;

/// What a process holds at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Memory that is resident.
    pub(crate) resident_bytes: u64,
    /// The maximum of it so far, or since it was last reset.
    pub(crate) peak_bytes: u64,
    /// The part of it that no file backs: what the process has allocated.
    pub(crate) anonymous_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) open_files: u64,
}

impl Resources {
    /// What has a number that is the same again when everything has been given back.
    pub(crate) fn threads_and_files(&self) -> (u64, u64) {
        (self.threads, self.open_files)
    }

    /// Runs `work`, and returns by how much the resident memory of a process grew at its peak meanwhile.
    pub(crate) fn peak_growth(pid: u32, work: impl FnOnce()) -> u64 {
        // This resets the peak to the present size.
        fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is our own");
        let before = Self::of(pid).resident_bytes;
        work();
        Self::of(pid).peak_bytes.saturating_sub(before)
    }

    /// Of a process that lives.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or_else(|| panic!("no number {name} in {status}"))
        };
        let open_files = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
        Self {
            resident_bytes: number("VmRSS:") << 10,
            peak_bytes: number("VmHWM:") << 10,
            anonymous_bytes: number("RssAnon:") << 10,
            threads: number("Threads:"),
            open_files: open_files.count() as u64,
        }
    }
}

/// The threads of a process that lives: what each is called, and its scheduling niceness.
pub(crate) fn niceness_of_threads(pid: i32) -> Vec<(String, i64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let stats = tasks.flatten().filter_map(|task| {
        // A thread may end meanwhile.
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
