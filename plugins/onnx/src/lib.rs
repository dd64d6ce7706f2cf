//! Serves any `.onnx` file: its inputs, outputs and batch dimension are read from the file, and `[models.settings]` says what
//! to make of them. `choice` picks the runtime: `embedded`, pure Rust, so there is nothing to install, or `onnxruntime`.
//!
//! The path of an item: `task` prepares it (an `image` is decoded, a tensor checked) and stacks it with others if the model
//! has a batch dimension; the `runtime` of a `network` computes; `task::answer` makes the answer, such as labels by `ranking`, or
//! detections, text and embeddings by `answers`.
//! What a task does is worked out once, at load, by `plan` from the `settings`; `describe` puts it into words. Batching itself
//! is the server's. The README of this plugin is for the operator.

#![forbid(unsafe_code)]

mod analysis;
mod answers;
mod choice;
mod classes;
mod describe;
#[doc(hidden)]
pub mod direct;
mod embedded;
mod external;
mod fit;
mod image;
mod interface;
mod memory;
mod network;
mod onnxruntime;
mod ort_values;
mod plan;
mod ports;
mod ranking;
mod runtime;
mod settings;
mod task;
mod values;
mod verified;
mod wire;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use plugin_sdk::prelude::*;

use crate::choice::Chosen;
use crate::plan::Plan;
pub use crate::settings::Settings;
use crate::settings::TaskSettings;
use crate::task::Served;

/// The task of a model whose settings name none.
const ONLY_TASK: &str = "predict";

/// Most threads of one batch; more is a mistake, and would fail in stranger ways.
const MAX_THREADS: usize = 1024;

/// A loaded ONNX file with its tasks.
pub struct Onnx {
    tasks: Vec<(String, Arc<Plan>)>,
    /// What was chosen for it, and why.
    details: BTreeMap<String, String>,
}

impl Model for Onnx {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let threads = settings.threads.map_or(context.threads, NonZeroUsize::get);
        if threads > MAX_THREADS {
            let message = format!("{threads}, expected at most {MAX_THREADS}");
            return Err(LoadError::setting("threads", message));
        }
        let Chosen {
            network,
            runtime,
            reason,
        } = choice::load(&settings, context, threads)?;
        let network = Arc::new(network);
        let batch = settings.batch;
        let plan = |name: &str, settings: TaskSettings, written: bool| {
            Plan::new(name, settings, written, batch, &network, context)
                .map(|plan| (name.to_owned(), Arc::new(plan)))
        };
        let tasks = if settings.tasks.is_empty() {
            vec![plan(ONLY_TASK, TaskSettings::default(), false)?]
        } else {
            let written = settings.tasks.into_iter();
            written
                .map(|(name, settings)| plan(&name, settings, true))
                .collect::<Result<_, _>>()?
        };
        Ok(Self {
            tasks,
            details: BTreeMap::from([
                ("runtime".to_owned(), runtime),
                ("runtime_reason".to_owned(), reason),
            ]),
        })
    }

    /// They follow from the settings.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        self.tasks.iter().fold(Tasks::new(), |tasks, (name, plan)| {
            tasks.add_prepared(name, Served(Arc::clone(plan)))
        })
    }

    fn details(&self) -> BTreeMap<String, String> {
        self.details.clone()
    }

    fn platform() -> &'static str {
        "onnx"
    }
}

export_model!(Onnx);
