//! Chooses and sets the CPUs of a child process.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::resources::Cpus;

/// Why the configured CPUs are not available.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// There are fewer CPUs.
    #[error("`cpus` is {requested}, but the server can use only {allowed} CPUs")]
    TooMany {
        /// The configured number.
        requested: usize,
        /// The number of CPUs that the server can use.
        allowed: usize,
    },
    /// A configured CPU is not available.
    #[error("`cpus` names {cpu}, but the server can use only CPUs {allowed}")]
    NotAllowed {
        /// The first CPU that is not available.
        cpu: usize,
        /// The CPUs that the server can use.
        allowed: String,
    },
}

/// The CPUs that this process can use.
pub(super) fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The CPUs of a child process. If only a number is configured, the processes of one model get adjacent ranges, and those of
/// different models start at different positions.
pub(super) fn choose(
    requested: &Cpus,
    allowed: &[usize],
    model: &str,
    slot: usize,
) -> Result<Vec<usize>, CpuError> {
    match requested {
        Cpus::These(cpus) => match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(CpuError::NotAllowed {
                cpu: *cpu,
                allowed: format_ranges(allowed),
            }),
            None => Ok(cpus.clone()),
        },
        Cpus::Count(count) if count.get() > allowed.len() => Err(CpuError::TooMany {
            requested: count.get(),
            allowed: allowed.len(),
        }),
        Cpus::Count(count) => {
            let mut hasher = DefaultHasher::new();
            model.hash(&mut hasher);
            let start = (hasher.finish() % allowed.len() as u64) as usize + slot * count.get();
            let mut chosen: Vec<usize> = (start..start + count.get())
                .map(|position| allowed[position % allowed.len()])
                .collect();
            chosen.sort_unstable();
            Ok(chosen)
        }
    }
}

/// Restricts this thread, and those that it starts, to these CPUs. `available_parallelism` and thread pools that use it return
/// the same number.
pub(super) fn pin_current_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(*cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Formats CPUs in the notation of Linux, such as `0-3,6`.
pub(super) fn format_ranges(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let ranges: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    ranges.join(",")
}
