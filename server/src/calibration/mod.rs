//! Calibration: measures the memory and the time of a model's batches, and keeps the result in a file.
//!
//! [`measure_task`] measures batches of one task and fits cost models to them. It drives a `plan`, a state machine that
//! decides which batch is measured next, and takes its batches from [`Items`]. [`Calibration`] is the file with the results of
//! all tasks of a model. [`CalibrationKey`] identifies what was measured, so that results are not used for anything else.
//! [`Summary`] derives limits from the results: safe batches, the knee of the throughput, and suggested settings.
//!
//! This module does not start processes and does not know how memory is measured: the caller implements
//! [`MeasuredProcess`]. It decides nothing about batches in production.

mod file;
mod items;
mod key;
mod measure;
mod plan;
mod session;
mod summary;

pub use file::{Calibration, CalibrationError, FORMAT_VERSION, MemorySource, ModelCosts};
pub use items::{Items, ItemsError, RecordedItem, read_requests};
pub use key::{CalibrationKey, Measured};
pub use measure::{Check, MeasureError, MeasureOptions, Progress, TaskMeasurement, measure_task};
pub use plan::{Cell, Point, SkipReason, SkippedCell};
pub use session::{MeasuredProcess, ProcessError, Session};
pub use summary::{Fit, SafeBatch, Suggestion, Summary};
