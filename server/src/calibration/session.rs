//! The processes that run the measured batches, one at a time, and their memory.

use super::file::MemorySource;
use crate::model::{MemoryReading, Model};

/// Minimum memory of a batch that is measured as memory of the process. The heap of a process varies by about as much, so smaller
/// batches cannot be told apart.
pub(super) const MIN_BATCH_BYTES: u64 = 16 << 20;

/// Memory above that of the idle process that a process may keep, in bytes, and as a fraction of its largest batch. A process
/// that keeps more is replaced before smaller batches are measured.
const KEPT_BYTES: u64 = 4 << 20;
const KEPT_FRACTION: f64 = 0.05;

/// A process that runs the model, and whose memory can be measured.
pub trait MeasuredProcess {
    /// The model.
    fn model(&self) -> &dyn Model;

    /// Returns free memory to the operating system, and starts a measurement of the peak.
    fn start_measurement(&self) -> Result<MemoryReading, ProcessError>;

    /// Reads the memory since the start of the measurement.
    fn read_measurement(&self) -> Result<MemoryReading, ProcessError>;
}

/// Why a process cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// It has exited or was killed. The text describes how.
    #[error("the process that runs the batches {0}")]
    Lost(String),
    /// It cannot be started, or its memory cannot be read.
    #[error("{0}")]
    Unusable(String),
}

/// The memory of a process before its first batch.
#[derive(Clone, Copy, Debug)]
struct Idle {
    resident: u64,
    /// Memory that the model reports.
    reported: Option<u64>,
}

impl Idle {
    fn of(reading: &MemoryReading) -> Self {
        Self {
            resident: reading.resident,
            reported: reading.reported.map(|usage| usage.current),
        }
    }

    /// The memory that a batch added at its peak. At least [`MIN_BATCH_BYTES`] of a process.
    fn added_by(&self, reading: &MemoryReading) -> u64 {
        match (self.reported, reading.reported) {
            (Some(idle), Some(usage)) => usage.peak.saturating_sub(idle),
            _ => reading.peak.saturating_sub(self.resident).max(MIN_BATCH_BYTES),
        }
    }
}

/// The current process, and what was learned from all of them.
pub struct Session<'a, P> {
    start: &'a mut dyn FnMut() -> Result<P, ProcessError>,
    process: P,
    idle: Idle,
    /// Memory of the largest batch of the current process, in bytes.
    largest: u64,
}

impl<'a, P: MeasuredProcess> Session<'a, P> {
    /// Starts a process. `start` is called again whenever a process has to be replaced.
    ///
    /// # Errors
    /// The process cannot be started or measured.
    pub fn new(start: &'a mut dyn FnMut() -> Result<P, ProcessError>) -> Result<Self, ProcessError> {
        let process = start()?;
        let idle = Idle::of(&process.start_measurement()?);
        Ok(Self {
            start,
            process,
            idle,
            largest: 0,
        })
    }

    /// The model in the current process.
    pub fn model(&self) -> &dyn Model {
        self.process.model()
    }

    /// Memory of the idle process in bytes.
    pub fn idle_bytes(&self) -> u64 {
        self.idle.resident
    }

    /// How memory is measured.
    pub fn memory_source(&self) -> MemorySource {
        match self.idle.reported {
            Some(_) => MemorySource::Model,
            None => MemorySource::Process,
        }
    }

    /// Starts the measurement of a batch.
    pub(super) fn start_measurement(&self) -> Result<(), ProcessError> {
        self.process.start_measurement().map(|_| ())
    }

    /// Reads what the process has used so far.
    pub(super) fn read_measurement(&self) -> Result<MemoryReading, ProcessError> {
        self.process.read_measurement()
    }

    /// The memory that a batch has added since the start of its measurement.
    pub(super) fn added_memory(&mut self) -> Result<u64, ProcessError> {
        let bytes = self.idle.added_by(&self.process.read_measurement()?);
        self.largest = self.largest.max(bytes);
        Ok(bytes)
    }

    /// Starts another process.
    pub(super) fn replace(&mut self) -> Result<(), ProcessError> {
        self.process = (self.start)()?;
        self.idle = Idle::of(&self.process.start_measurement()?);
        self.largest = 0;
        Ok(())
    }

    /// Replaces the process if it keeps memory of large batches.
    pub(super) fn replace_if_it_keeps_memory(&mut self) -> Result<(), ProcessError> {
        let reading = self.process.start_measurement()?;
        let kept = match (self.idle.reported, reading.reported) {
            (Some(idle), Some(usage)) => usage.current.saturating_sub(idle),
            _ => reading.resident.saturating_sub(self.idle.resident),
        };
        if kept > KEPT_BYTES.max((self.largest as f64 * KEPT_FRACTION) as u64) {
            log::debug!("the process keeps {kept} bytes of its largest batch, and is replaced");
            self.replace()?;
        }
        Ok(())
    }
}
