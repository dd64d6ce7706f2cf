//! Measures the memory and the time of batches in a child process.
//!
//! The memory is that of the process as the kernel accounts it. Memory of a device or an arena is what the model reports.

use std::fs;
use std::io;
use std::time::Duration;

use super::isolated_model::IsolatedModel;
use super::process_memory::{ProcessMemory, Unreadable, reset_peak};
use super::remote::ChildLost;
use crate::model::MemoryReading;

/// Why memory cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The process has exited, or was killed. The text describes how.
    #[error("the process that runs the batches {0}")]
    Lost(String),
    /// The kernel does not provide what is needed.
    #[error("cannot measure the memory of a process: {what} of the kernel cannot be used")]
    Kernel {
        /// The file.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl From<ChildLost> for MeasureError {
    fn from(lost: ChildLost) -> Self {
        match lost {
            ChildLost::BeforeCall => Self::Lost("has exited".to_owned()),
            ChildLost::DuringCall(reason) => Self::Lost(reason),
        }
    }
}

impl From<Unreadable> for MeasureError {
    fn from(Unreadable { what, source }: Unreadable) -> Self {
        Self::Kernel { what, source }
    }
}

/// Measurements of a model with one worker process.
impl IsolatedModel {
    /// Makes the process return free memory to the operating system, and starts a measurement of its peak.
    ///
    /// # Errors
    /// The process has exited, or the kernel does not support this.
    pub fn start_measurement(&self) -> Result<MemoryReading, MeasureError> {
        self.read(true)
    }

    /// Reads the memory since the start of the measurement.
    ///
    /// # Errors
    /// The process has exited, or the kernel does not support this.
    pub fn read_measurement(&self) -> Result<MemoryReading, MeasureError> {
        self.read(false)
    }

    fn read(&self, start: bool) -> Result<MemoryReading, MeasureError> {
        let lost = || MeasureError::Lost("has exited".to_owned());
        let child = self.pool.first_serving().ok_or_else(lost)?;
        let pid = child.process_id();
        // The peak includes this call, which allocates little, and not what happens after it.
        let read = child.read_memory(start).inspect_err(|_| self.pool.remove(&child));
        let (reported, batch_time) = read?;
        if start {
            reset_peak(pid)?;
        }
        let memory = ProcessMemory::read(pid)?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        let cpu_time = stat.and_then(|stat| cpu_time(&stat).ok_or(io::ErrorKind::InvalidData.into()));
        Ok(MemoryReading {
            resident: memory.resident,
            peak: memory.peak,
            reported,
            batch_time,
            cpu_time: cpu_time.map_err(|source| MeasureError::Kernel {
                what: "/proc/PID/stat",
                source,
            })?,
        })
    }
}

/// User and system time, from the text of `/proc/PID/stat`.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The name of the program is in parentheses, and can contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    // Fields 14 and 15 of proc(5). The first one after the name is the third.
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_secs(1).mul_f64((user + system) as f64 / ticks as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_is_read_from_the_statistics_of_a_process() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 1 0 100 1000 10";
        let ticks = rustix::param::clock_ticks_per_second();
        let expected = Duration::from_secs(1).mul_f64(200.0 / ticks as f64);
        assert_eq!(cpu_time(stat), Some(expected));
        assert_eq!(cpu_time("7 (a"), None);
    }
}
