//! The file that a calibration is kept in: JSON with a version, the key of what was measured, and the measurements.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::key::CalibrationKey;
use super::measure::TaskMeasurement;
use crate::batcher::cost_model::TaskCosts;
use crate::json::{self, JsonError};

/// Version of the format of the file.
pub const FORMAT_VERSION: u32 = 1;

/// Directory of calibration files, in the directory of the configuration file.
const DEFAULT_DIRECTORY: &str = "calibration";

/// How memory was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// The model reported it: memory of a device or an arena.
    Model,
    /// The peak of the resident memory of the process.
    Process,
}

/// The costs of the tasks of a model, by name.
pub type ModelCosts = BTreeMap<String, TaskCosts>;

/// The measurements of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Version of the format.
    format_version: u32,
    /// Name of the model when it was measured.
    pub model: String,
    /// What was measured.
    pub key: CalibrationKey,
    /// When it was measured, as Unix time in seconds.
    pub measured_unix_seconds: u64,
    /// How memory was measured.
    pub memory_source: MemorySource,
    /// Memory of the process before its first batch, in bytes.
    pub idle_bytes: u64,
    /// The measurements of each task, by its name.
    pub tasks: BTreeMap<String, TaskMeasurement>,
}

/// Only the version of a file, which is read first.
#[derive(Deserialize)]
struct Version {
    format_version: u32,
}

/// Why a file cannot be used or written.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// There is no such file.
    #[error("there is no calibration {}: measure the model with `inference-server calibrate`", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the calibration {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The content is not a calibration.
    #[error(
        "{} is not a calibration; measure the model again with `inference-server calibrate`", file.display()
    )]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: JsonError,
    },
    /// The file was written by another version of the server.
    #[error(
        "{} has format version {found}, expected {FORMAT_VERSION}: measure the model again with `inference-server calibrate`",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// The version of the file.
        found: u32,
    },
    /// Something else was measured.
    #[error(
        "the calibration {} is stale: {}; measure the model again with `inference-server calibrate`",
        file.display(), reasons.join("; ")
    )]
    Stale {
        /// The file.
        file: PathBuf,
        /// What differs.
        reasons: Vec<String>,
    },
    /// The file cannot be written.
    #[error("cannot write the calibration {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Calibration {
    /// Creates a calibration from the measurements of each task.
    pub fn new(
        model: &str,
        key: CalibrationKey,
        measured_unix_seconds: u64,
        memory_source: MemorySource,
        idle_bytes: u64,
        tasks: BTreeMap<String, TaskMeasurement>,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            model: model.to_owned(),
            key,
            measured_unix_seconds,
            memory_source,
            idle_bytes,
            tasks,
        }
    }

    /// The file of a model whose configuration does not name one: `calibration/MODEL.json` in the directory of the
    /// configuration file.
    pub fn default_path(base_dir: &Path, model: &str) -> PathBuf {
        base_dir.join(DEFAULT_DIRECTORY).join(format!("{model}.json"))
    }

    /// Reads a file, and checks that it is about the model with this key.
    ///
    /// # Errors
    /// The file is missing, cannot be read, has another format, or is about something else.
    pub fn read(file: &Path, key: &CalibrationKey) -> Result<Self, CalibrationError> {
        let calibration = Self::read_any(file)?;
        let reasons = calibration.key.differences(key);
        if reasons.is_empty() {
            Ok(calibration)
        } else {
            Err(CalibrationError::Stale {
                file: file.to_owned(),
                reasons,
            })
        }
    }

    /// Reads a file about any model.
    fn read_any(file: &Path) -> Result<Self, CalibrationError> {
        let text = fs::read_to_string(file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CalibrationError::Missing {
                file: file.to_owned(),
            },
            _ => CalibrationError::Unreadable {
                file: file.to_owned(),
                source,
            },
        })?;
        let malformed = |source| CalibrationError::Malformed {
            file: file.to_owned(),
            source,
        };
        let version: Version = json::from_str(&text).map_err(malformed)?;
        if version.format_version != FORMAT_VERSION {
            return Err(CalibrationError::Version {
                file: file.to_owned(),
                found: version.format_version,
            });
        }
        json::from_str(&text).map_err(malformed)
    }

    /// Adds the tasks of an existing file about the same model that this one does not contain.
    pub fn keep_other_tasks_of(&mut self, file: &Path) {
        if let Ok(existing) = Self::read(file, &self.key) {
            for (name, task) in existing.tasks {
                self.tasks.entry(name).or_insert(task);
            }
        }
    }

    /// Writes the file, and creates its directory. A process that reads it at the same time sees either the old or the new
    /// content.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), CalibrationError> {
        self.try_write(file).map_err(|source| CalibrationError::Write {
            file: file.to_owned(),
            source,
        })
    }

    fn try_write(&self, file: &Path) -> io::Result<()> {
        let directory = file
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        let mut written = tempfile::Builder::new()
            .prefix(".calibration-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)?;
        written.write_all(text.as_bytes())?;
        written.as_file().sync_all()?;
        written.persist(file)?;
        Ok(())
    }

    /// The costs of a task. `None` if it was not measured.
    pub fn task(&self, name: &str) -> Option<&TaskCosts> {
        self.tasks.get(name).map(|task| &task.costs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batching::WeightRule;
    use crate::calibration::Measured;
    use crate::calibration::plan::{Cell, Point, SkipReason, SkippedCell};

    fn key(threads: u32) -> CalibrationKey {
        CalibrationKey::of(Measured {
            plugin: Path::new("/dev/null"),
            files: &[],
            settings: &serde_json::json!({}),
            details: &BTreeMap::new(),
            threads,
        })
        .expect("the file can be read")
    }

    fn calibration(task: &str) -> Calibration {
        let measurement = TaskMeasurement {
            weight_rule: WeightRule::Padded,
            costs: TaskCosts::default(),
            not_fitted: BTreeMap::from([("time".to_owned(), "too few".to_owned())]),
            cores_used: 1.5,
            points: vec![Point {
                items: 2,
                heaviest: 3,
                sum: 6,
                sum_of_squares: 18.0,
                memory_bytes: vec![0.1],
                seconds: vec![1e-3],
            }],
            skipped: vec![SkippedCell {
                cell: Cell { items: 4, weight: 3 },
                reason: SkipReason::OutOfMemory("it was killed".to_owned()),
            }],
            checks: Vec::new(),
        };
        let tasks = BTreeMap::from([(task.to_owned(), measurement)]);
        Calibration::new("m", key(2), 7, MemorySource::Process, 1000, tasks)
    }

    #[test]
    fn a_calibration_that_was_written_and_read_is_equal_to_the_original() {
        let directory = tempfile::tempdir().expect("a directory can be created");
        let file = Calibration::default_path(directory.path(), "m");
        assert!(file.ends_with("calibration/m.json"));
        let calibration = calibration("t");
        calibration.write(&file).expect("it can be written");
        let read = Calibration::read(&file, &key(2)).expect("it is valid");
        assert_eq!(read, calibration);
        assert_eq!(read.task("t"), Some(&TaskCosts::default()));
        assert_eq!(read.task("u"), None);
    }

    #[test]
    fn measuring_one_task_keeps_the_other_tasks_of_the_file() {
        let directory = tempfile::tempdir().expect("a directory can be created");
        let file = directory.path().join("m.json");
        calibration("t").write(&file).expect("it can be written");
        let mut other = calibration("u");
        other.keep_other_tasks_of(&file);
        assert_eq!(other.tasks.keys().collect::<Vec<_>>(), ["t", "u"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_rejected_with_the_reason() {
        let directory = tempfile::tempdir().expect("a directory can be created");
        let file = directory.path().join("m.json");
        let error = || {
            let error = Calibration::read(&file, &key(2)).expect_err("it cannot be used");
            crate::error::Chain(&error)
                .to_string()
                .replace(&file.display().to_string(), "FILE")
        };
        assert_eq!(
            error(),
            "there is no calibration FILE: measure the model with `inference-server calibrate`"
        );
        fs::write(&file, "{").expect("it can be written");
        assert!(
            error().starts_with("FILE is not a calibration; measure"),
            "{}",
            error()
        );
        fs::write(&file, "{\"format_version\": 2, \"new\": 1}").expect("it can be written");
        assert_eq!(
            error(),
            "FILE has format version 2, expected 1: measure the model again with `inference-server calibrate`"
        );
        calibration("t").write(&file).expect("it can be written");
        let error = Calibration::read(&file, &key(4))
            .expect_err("it is stale")
            .to_string();
        assert!(
            error.contains("is stale: it was measured with 2 threads, and the model has 4; measure"),
            "{error}"
        );
    }
}
