//! Resolved settings: every value is valid, and every default is filled in.
//!
//! The application owns them and passes their parts on; a reload compares two of them. These types do not know whether a value
//! came from the file, the environment or the command line. Values that a later error may refer to keep their place, which
//! comparisons ignore.

mod isolation;
mod jobs;
mod logging;
mod model;
mod place;
mod server;
mod task;
mod tracing;

use std::path::Path;

pub use isolation::{Isolation, OnCrash, ProcessSettings};
pub use jobs::{JobSettings, JobStoreSetting};
pub use logging::{LogFormat, LoggingSettings, SlowRequests};
pub(super) use model::ModelPlaces;
pub use model::{CalibrationSource, Dimensions, EmbeddingSettings, ModelSettings, TokenIds};
pub(super) use place::{UncomparedLocation, UncomparedOrigin};
pub use server::{ServerSettings, TlsSettings};
pub use task::TaskSettings;
pub(super) use task::{BatchingLayers, TaskOverrides, variable_suffix};
pub use tracing::{CollectorSettings, OtlpProtocol, SamplingSettings, SpanBatchSettings, TracingSettings};

use super::error::ConfigWarning;
use super::key_file::KeySettings;
use super::section::{Located, Section as _};
use crate::metrics::Buckets;
use crate::suggest::nearest;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The process and its HTTP server.
    pub server: ServerSettings,
    /// The log.
    pub logging: LoggingSettings,
    /// Traces.
    pub tracing: TracingSettings,
    /// The buckets of histograms.
    pub metrics: Buckets,
    /// Durable jobs.
    pub jobs: JobSettings,
    /// The models, in the order of the file.
    pub models: Vec<ModelSettings>,
    /// The keys of `api_keys_file`, which the application reads. Empty until then.
    pub keys: Vec<KeySettings>,
    /// Lints. The application logs them.
    pub warnings: Vec<ConfigWarning>,
}

impl Settings {
    /// Resolves plugins that are given by name to the first file in the search path that exists.
    pub fn find_plugins(&mut self, exists: impl Fn(&Path) -> bool) {
        for model in &mut self.models {
            if exists(&model.plugin) {
                model.plugin_alternatives.clear();
            } else if let Some(found) = model.plugin_alternatives.iter().position(|file| exists(file)) {
                model.plugin = model.plugin_alternatives.swap_remove(found);
                model.plugin_alternatives.clear();
            }
        }
    }

    /// Lints for environment variables of single tasks that no model has. `tasks` are those of the loaded models.
    pub fn unused_task_variables<'a>(&self, tasks: impl IntoIterator<Item = &'a str>) -> Vec<ConfigWarning> {
        let Some(model) = self.models.first() else {
            return Vec::new();
        };
        let known: Vec<String> = tasks.into_iter().map(variable_suffix).collect();
        let unused = model
            .batching
            .task_variables
            .iter()
            .filter(|(suffix, _)| !known.contains(suffix));
        unused
            .flat_map(|(suffix, written)| written.origins().into_iter().map(move |origin| (suffix, origin)))
            .map(|(suffix, origin)| ConfigWarning {
                origin: origin.clone(),
                message: format!("no model has a task {suffix}; the variable has no effect"),
                hint: Some(match nearest(suffix, known.iter().map(String::as_str)) {
                    Some(task) => format!("did you mean the task {task}?"),
                    None => {
                        "use the name of a task as the suffix, in upper case, with `_` for other characters"
                            .into()
                    }
                }),
            })
            .collect()
    }
}

/// The value of a key whose built-in default has been filled in.
pub(super) fn written_value<T>(written: Option<Located<T>>) -> T {
    written
        .expect("the key has a built-in default in `keys`, which has been merged")
        .value
}
