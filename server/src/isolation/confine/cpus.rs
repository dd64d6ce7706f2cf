//! Which processors a child runs on.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::resources::Cpus;

/// Why there are no such processors.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// Fewer than wanted.
    #[error("`cpus` is {wanted}, but the server itself may run on {allowed} only")]
    TooMany {
        /// As configured.
        wanted: usize,
        /// How many there are.
        allowed: usize,
    },
    /// Others than wanted.
    #[error("`cpus` names {cpu}, but the server itself may run on {allowed} only")]
    NotAllowed {
        /// The first that is not there.
        cpu: usize,
        /// Those that are.
        allowed: String,
    },
}

/// The processors that this process may run on.
pub(super) fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The processors of a child. Of a mere count, the children of a model lie side by side as long as there is room, and those
/// of different models begin at different places.
pub(super) fn choose(
    wanted: &Cpus,
    allowed: &[usize],
    model: &str,
    slot: usize,
) -> Result<Vec<usize>, CpuError> {
    match wanted {
        Cpus::These(cpus) => match cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(cpu) => Err(CpuError::NotAllowed {
                cpu: *cpu,
                allowed: show(allowed),
            }),
            None => Ok(cpus.clone()),
        },
        Cpus::Count(count) if count.get() > allowed.len() => Err(CpuError::TooMany {
            wanted: count.get(),
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

/// Keeps this thread, and those that it will start, on these processors. `available_parallelism` and what sizes its pools by
/// it follow.
pub(super) fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(*cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// As Linux writes them: `0-3,6`.
pub(super) fn show(cpus: &[usize]) -> String {
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
