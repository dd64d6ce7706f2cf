//! Serves any `.onnx` file. Inputs, outputs and the batch dimension are read from the file; `[models.settings]` configures tasks.
//! `choice` selects the runtime: `embedded`, which is written in pure Rust and requires no installation, or `onnxruntime`.
//!
//! How an item is processed: `task` prepares it (decodes an `image`, validates a tensor) and stacks it with others if the model
//! has a batch dimension, after `padding` to the longest of them. The `runtime` of a `network` runs the model. `task::answer` builds
//! the answer, such as labels from `ranking`, or detections, text and embeddings from `answers`. `plan` derives what a task does
//! from the `settings` once, at load time; `describe` documents it. The server forms the batches.

#![forbid(unsafe_code)]

mod analysis;
mod answers;
mod choice;
mod classes;
mod declared_shapes;
mod describe;
#[doc(hidden)]
pub mod direct;
mod embedded;
mod external;
mod fallback;
mod files;
mod fit;
mod image;
mod instrument;
mod interface;
mod memory;
mod network;
mod onnxruntime;
mod ort_values;
mod padding;
mod plan;
mod ranking;
mod reservations;
mod runtime;
mod settings;
mod specs;
mod task;
mod values;
mod verified;
mod wire;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use plugin_sdk::log;
use plugin_sdk::prelude::*;

use crate::choice::Chosen;
use crate::plan::Plan;
pub use crate::settings::Settings;
use crate::settings::TaskSettings;
use crate::task::Served;

/// Name of the task of a model whose settings do not define any.
const ONLY_TASK: &str = "predict";

/// Maximum number of threads per batch.
const MAX_THREADS: usize = 1024;

/// A loaded ONNX file and its tasks.
pub struct Onnx {
    tasks: Vec<(String, Arc<Plan>)>,
    /// Name and version of the runtime.
    runtime: String,
    /// Why the runtime was chosen.
    reason: String,
    /// Name and version of the runtime for items for which the other one is not verified, if there is one.
    fallback: Option<String>,
}

impl Onnx {
    /// Plans the configured tasks, or the default task if none are configured.
    fn plan(chosen: Chosen, settings: &Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let network = Arc::new(chosen.network);
        let plan = |name: &str, task: TaskSettings, written: bool| {
            Plan::new(name, task, written, settings.batch, &network, context)
                .map(|plan| (name.to_owned(), Arc::new(plan)))
        };
        let tasks = if settings.tasks.is_empty() {
            vec![plan(ONLY_TASK, TaskSettings::default(), false)?]
        } else {
            let written = settings.tasks.iter();
            written
                .map(|(name, task)| plan(name, task.clone(), true))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            tasks,
            runtime: chosen.runtime,
            reason: chosen.reason,
            fallback: network.fallback().map(str::to_owned),
        })
    }

    /// The reason why the trial run of a task failed; `None` if all trial runs succeeded.
    fn trial_failure(&self) -> Option<&str> {
        self.tasks
            .iter()
            .find_map(|(_, plan)| plan.trial_failure.as_deref())
    }

    /// Fails if a task pads, but no item could be computed to check that its results do not depend on padding.
    fn check_padding(&self) -> Result<(), LoadError> {
        let plans = self.tasks.iter().map(|(_, plan)| plan);
        let mut unchecked =
            plans.filter_map(|plan| plan.unchecked_padding.as_ref().zip(plan.trial_failure.as_ref()));
        match unchecked.next() {
            None => Ok(()),
            Some((key, failure)) => Err(LoadError::setting(
                key,
                format_args!(
                    "cannot be checked, since the trial failed: {failure}; set `examples` to items that the model accepts"
                ),
            )),
        }
    }

    fn report(&self) {
        log::info!("runs on {}: {}", self.runtime, self.reason);
        if let Some(fallback) = &self.fallback {
            log::info!(
                "items for which it is not verified run in {fallback}, which is loaded for the first of them"
            );
        }
        for (level, remark) in self.tasks.iter().flat_map(|(_, plan)| &plan.remarks) {
            log::log!(*level, "{remark}");
        }
    }
}

impl Model for Onnx {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let threads = settings.threads.map_or(context.threads, NonZeroUsize::get);
        if threads > MAX_THREADS {
            let message = format!("{threads}, expected at most {MAX_THREADS}");
            return Err(LoadError::setting("threads", message));
        }
        let chosen = choice::load(&settings, context, threads)?;
        let has_alternative = chosen.has_alternative;
        let mut model = Self::plan(chosen, &settings, context)?;
        if has_alternative
            && let Some(failure) = model.trial_failure()
            && let Some(other) = choice::after_failed_trial(&settings, context, threads, failure)
            && let Ok(other) = Self::plan(other, &settings, context)
            && other.trial_failure().is_none()
        {
            model = other;
        }
        model.check_padding()?;
        // Other processes of the same model would log the same messages.
        if !context.is_repeated {
            model.report();
        }
        Ok(model)
    }

    /// Empty: tasks depend on the settings.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        self.tasks.iter().fold(Tasks::new(), |tasks, (name, plan)| {
            tasks.add_prepared(name, Served(Arc::clone(plan)))
        })
    }

    fn details(&self) -> BTreeMap<String, String> {
        let mut details = BTreeMap::from([
            ("runtime".to_owned(), self.runtime.clone()),
            ("runtime_reason".to_owned(), self.reason.clone()),
        ]);
        details.extend(
            self.fallback
                .clone()
                .map(|fallback| ("fallback_runtime".to_owned(), fallback)),
        );
        details
    }

    fn platform() -> &'static str {
        "onnx"
    }
}

export_model!(Onnx);
