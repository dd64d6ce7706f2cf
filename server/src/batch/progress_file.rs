//! What survives an interruption: the identity of the run, and the results that were written.
//!
//! The identity is in a file next to the output, which exists until the run is complete. Idempotency keys are derived from it, so
//! that a line is submitted once per run, and a new run submits it again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::Plan;
use super::error::BatchError;
use crate::digest::Digest;

/// A run, possibly one that continues.
#[derive(Debug)]
pub(super) struct Run {
    identity: Identity,
    progress: PathBuf,
    output: File,
    /// Number of the last line of the input that has a result.
    pub(super) last_line: u64,
    /// Number of results that were written before.
    pub(super) done: u64,
    /// How many of them are errors.
    pub(super) failed: u64,
}

/// The identity of a run.
#[derive(Clone, Debug)]
pub(super) struct Identity(String);

/// The content of the file with the progress.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    run: String,
    of: String,
}

/// The parts of a result that are read again.
#[derive(Debug, Deserialize)]
struct Written {
    line: u64,
    status: u16,
}

impl Run {
    /// Starts a run, or continues the one that was interrupted.
    pub(super) fn open(plan: &Plan) -> Result<Self, BatchError> {
        let progress = progress_path(&plan.output);
        let failed = |file: &Path| {
            let file = file.to_owned();
            move |source| BatchError::Output { file, source }
        };
        if plan.restart {
            remove(&progress).map_err(failed(&progress))?;
            remove(&plan.output).map_err(failed(&plan.output))?;
        }
        let of = describe(plan);
        let id = match fs::read(&progress) {
            Ok(bytes) => continued(&bytes, &progress, &of)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let size = fs::metadata(&plan.output).map_or(0, |metadata| metadata.len());
                if size > 0 {
                    return Err(BatchError::OutputExists(plan.output.clone()));
                }
                started(&progress, &of).map_err(failed(&progress))?
            }
            Err(error) => return Err(failed(&progress)(error)),
        };
        let mut options = OpenOptions::new();
        let output = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&plan.output);
        let mut run = Self {
            identity: Identity(id),
            progress,
            output: output.map_err(failed(&plan.output))?,
            last_line: 0,
            done: 0,
            failed: 0,
        };
        run.read_results(&plan.output)?;
        Ok(run)
    }

    /// Reads the results that were written. The last one may be incomplete, and is removed then.
    fn read_results(&mut self, file: &Path) -> Result<(), BatchError> {
        let failed = |source| BatchError::Output {
            file: file.to_owned(),
            source,
        };
        let mut reader = BufReader::new(&self.output);
        let (mut complete, mut number, mut line) = (0, 0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            number += 1;
            let written: Written = serde_json::from_slice(&line).map_err(|_| BatchError::ForeignOutput {
                file: file.to_owned(),
                line: number,
            })?;
            complete += length as u64;
            self.last_line = written.line;
            self.done += 1;
            self.failed += u64::from(written.status >= 400);
        }
        self.output.set_len(complete).map_err(failed)?;
        self.output.seek(SeekFrom::Start(complete)).map_err(failed)?;
        Ok(())
    }

    /// The identity of the run.
    pub(super) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Writes the result of a line.
    pub(super) fn write(&mut self, line: u64, status: u16, result: &str) -> io::Result<()> {
        let text = format!("{{\"line\":{line},\"status\":{status},{result}}}\n");
        self.output.write_all(text.as_bytes())?;
        self.last_line = line;
        self.done += 1;
        self.failed += u64::from(status >= 400);
        Ok(())
    }

    /// Ends the run: its results are complete.
    pub(super) fn finish(self) -> io::Result<()> {
        self.output.sync_all()?;
        remove(&self.progress)
    }
}

impl Identity {
    /// The idempotency key of a line of the input.
    pub(super) fn key(&self, number: u64, line: &[u8]) -> String {
        let head = format!("{}\n{number}\n", self.0);
        format!("batch-{}", Digest::of(&[head.as_bytes(), line].concat()))
    }
}

fn progress_path(output: &Path) -> PathBuf {
    let mut path = output.as_os_str().to_owned();
    path.push(".progress");
    path.into()
}

/// What the results depend on.
fn describe(plan: &Plan) -> String {
    let task = plan
        .task
        .as_deref()
        .map_or_else(String::new, |task| format!(", task {task}"));
    let form = if plan.is_items { ", items" } else { "" };
    let label = plan
        .label
        .as_deref()
        .map_or_else(String::new, |label| format!(", label {label}"));
    format!(
        "model {}{task}{form}, priority {}{label}, input {}",
        plan.model,
        plan.priority,
        plan.input.display()
    )
}

fn continued(bytes: &[u8], file: &Path, expected: &str) -> Result<String, BatchError> {
    let other = |found: String| BatchError::OtherRun {
        file: file.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    let progress: Progress =
        serde_json::from_slice(bytes).map_err(|error| other(format!("invalid content: {error}")))?;
    match progress.of == expected {
        true => Ok(progress.run),
        false => Err(other(progress.of)),
    }
}

/// Creates the file with the progress of a new run. It is complete or does not exist.
fn started(file: &Path, of: &str) -> io::Result<String> {
    let run = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let progress = Progress {
        run: run.clone(),
        of: of.to_owned(),
    };
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut written = File::create(&new)?;
    written.write_all(serde_json::to_string(&progress)?.as_bytes())?;
    written.sync_all()?;
    fs::rename(new, file)?;
    Ok(run)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
