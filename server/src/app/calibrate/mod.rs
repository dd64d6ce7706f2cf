//! The command `calibrate`: measures the batches of a model, prints what follows from them, and writes the measurements to a
//! file.

mod page;
mod progress;
mod report;

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::interruptible::run_interruptible;
use super::scratch_cleanup::ScratchCleanup;
use super::{AppError, load_environment, read_config};
use crate::calibration::{Calibration, CalibrationError, ItemsError, read_requests};
use crate::cli::CalibrateArgs;
use crate::config::{CalibrationSource, LogFormat, ModelSettings};
use crate::crash;
use crate::html_report::PlotError;
use crate::logging;
use crate::metrics::Metrics;
use crate::open_files;
use crate::reload::{CalibrateError, CalibrateOptions, Calibrated, calibrate_model};
use crate::suggest::nearest;
use crate::system_memory::available_memory;
use progress::ProgressReport;

pub use report::ModelReport;

/// Budget if the memory that the server can use is unknown.
const FALLBACK_BUDGET: u64 = 1 << 30;

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateCommandError {
    /// No model is configured.
    #[error("the configuration has no models: add a [[models]] table")]
    NoModels,
    /// The configuration has several models.
    #[error("the configuration has several models: select one of {0} with --model")]
    SeveralModels(String),
    /// The configuration has no such model.
    #[error("the configuration has no model `{model}`; its models are {known}{hint}")]
    UnknownModel {
        /// The requested model.
        model: String,
        /// The configured models.
        known: String,
        /// A suggestion. Starts with `; `, or is empty.
        hint: String,
    },
    /// The budget is zero.
    #[error("invalid value 0 for --budget: expected a size such as 2GiB")]
    NoBudget,
    /// The recorded requests cannot be used.
    #[error(transparent)]
    Requests(#[from] ItemsError),
    /// The model could not be measured.
    #[error(transparent)]
    Measure(#[from] CalibrateError),
    /// The measurements could not be written.
    #[error(transparent)]
    Write(#[from] CalibrationError),
    /// The page could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The page could not be written.
    #[error("cannot write {}", file.display())]
    Page {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl CalibrateCommandError {
    /// 2 for errors in the arguments, like usage errors; 1 for all others.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NoModels
            | Self::SeveralModels(_)
            | Self::UnknownModel { .. }
            | Self::NoBudget
            | Self::Requests(_)
            | Self::Measure(CalibrateError::UnknownTask { .. }) => 2,
            Self::Measure(_) | Self::Write(_) | Self::Plot(_) | Self::Page { .. } => 1,
        }
    }
}

/// Measures the batches of a model, and writes the measurements and the page.
pub fn calibrate(args: &CalibrateArgs) -> Result<ModelReport, AppError> {
    let settings = read_config(&args.serve)?;
    let model = select(&settings.models, args.model.as_deref())?.clone();
    let budget = args
        .budget
        .unwrap_or_else(|| available_memory().map_or(FALLBACK_BUDGET, |memory| memory / 2));
    if budget == 0 {
        return Err(CalibrateCommandError::NoBudget.into());
    }
    let requests = args.requests.as_deref().map(read_requests).transpose();
    let options = CalibrateOptions {
        task: args.task.clone(),
        budget,
        max_time: args.max_time,
        checks: args.check as usize,
        requests: requests.map_err(CalibrateCommandError::from)?,
    };
    logging::start(&settings.logging);
    crash::install(settings.logging.format == LogFormat::Json)?;
    open_files::raise_limit();
    let prepare = || {
        let metrics = Arc::new(Metrics::new(settings.metrics.clone())?);
        let environment = load_environment(&settings, metrics)?;
        let cleanup = ScratchCleanup::of(environment.loader.scratch_directory());
        Ok((environment, cleanup))
    };
    let measured = {
        let (model, options, quiet) = (model.clone(), options.clone(), args.quiet);
        run_interruptible("calibrate", prepare, move |environment| {
            let mut progress = ProgressReport::new(&model.name, quiet);
            calibrate_model(&environment, &model, &options, &mut |task| progress.update(&task))
        })?
    };
    let Calibrated {
        mut calibration,
        unmeasured,
    } = measured.map_err(CalibrateCommandError::from)?;
    let file = calibration_file(&model);
    let measured_tasks: Vec<String> = calibration.tasks.keys().cloned().collect();
    calibration.keep_other_tasks_of(&file);
    calibration.write(&file).map_err(CalibrateCommandError::from)?;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let report = ModelReport::new(
        calibration,
        measured_tasks,
        unmeasured,
        file,
        budget,
        cores as u64,
    );
    if let Some(html) = &args.html {
        write_page(html, &report)?;
    }
    Ok(report)
}

/// The file with the measurements of a model.
fn calibration_file(model: &ModelSettings) -> PathBuf {
    match &model.calibration {
        Some(CalibrationSource::File(file)) => file.clone(),
        Some(CalibrationSource::Auto) | None => Calibration::default_path(&model.base_dir, &model.name),
    }
}

fn select<'m>(
    models: &'m [ModelSettings],
    name: Option<&str>,
) -> Result<&'m ModelSettings, CalibrateCommandError> {
    let known = || {
        let names = models.iter().map(|model| format!("`{}`", model.name));
        names.collect::<Vec<_>>().join(", ")
    };
    match (models, name) {
        ([], _) => Err(CalibrateCommandError::NoModels),
        ([only], None) => Ok(only),
        (_, None) => Err(CalibrateCommandError::SeveralModels(known())),
        (_, Some(name)) => models.iter().find(|model| model.name == name).ok_or_else(|| {
            let names = models.iter().map(|model| model.name.as_str());
            let hint = nearest(name, names).map(|model| format!("; did you mean `{model}`?"));
            CalibrateCommandError::UnknownModel {
                model: name.to_owned(),
                known: known(),
                hint: hint.unwrap_or_default(),
            }
        }),
    }
}

fn write_page(file: &Path, report: &ModelReport) -> Result<(), CalibrateCommandError> {
    let page = page::of(report)?;
    std::fs::write(file, page).map_err(|source| CalibrateCommandError::Page {
        file: file.to_owned(),
        source,
    })
}
