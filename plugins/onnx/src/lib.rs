//! Serves any `.onnx` file: its inputs, outputs and batch dimension are read from the file, and `[models.settings]` says what
//! to make of them. The runtime is `embedded`, pure Rust, so there is nothing to install, or `onnxruntime`, if that is wanted.
//!
//! The path of an item: `task` prepares it (an `image` is decoded, a tensor checked) and stacks it with others if the model
//! has a batch dimension; the `runtime` of a `network` computes; `task::answer` makes the answer, such as labels by `ranking`, or
//! detections, text and embeddings by `answers`.
//! What a task does is worked out once, at load, by `plan` from the `settings`; `describe` puts it into words. Batching itself
//! is the server's. The README of this plugin is for the operator.

#![forbid(unsafe_code)]

mod answers;
mod describe;
mod embedded;
mod external;
mod fit;
mod image;
mod mixing;
mod network;
mod onnxruntime;
mod plan;
mod ranking;
mod runtime;
mod settings;
mod task;
mod values;
mod wire;

use std::num::NonZeroUsize;
use std::sync::Arc;

use plugin_sdk::prelude::*;

use crate::embedded::Embedded;
use crate::network::Network;
use crate::onnxruntime::OnnxRuntime;
use crate::plan::Plan;
use crate::runtime::Abilities;
pub use crate::settings::Settings;
use crate::settings::{RuntimeChoice, TaskSettings};
use crate::task::Served;

/// The task of a model whose settings name none.
const ONLY_TASK: &str = "predict";

/// Most threads of one batch; more is a mistake, and would fail in stranger ways.
const MAX_THREADS: usize = 1024;

/// A loaded ONNX file with its tasks.
pub struct Onnx {
    tasks: Vec<(String, Arc<Plan>)>,
}

impl Model for Onnx {
    type Settings = Settings;

    fn load(settings: Settings, context: &LoadContext) -> Result<Self, LoadError> {
        let threads = settings.threads.map_or(context.threads, NonZeroUsize::get);
        if threads > MAX_THREADS {
            let message = format!("{threads}, expected at most {MAX_THREADS}");
            return Err(LoadError::setting("threads", message));
        }
        let abilities: Box<dyn Abilities> = match (settings.runtime, &settings.ort) {
            (RuntimeChoice::Rten, None) => Box::new(Embedded),
            (RuntimeChoice::Ort, Some(ort)) => Box::new(OnnxRuntime::new(ort, &context.base_dir)?),
            (RuntimeChoice::Ort, None) => {
                let message = "this runtime needs a table `ort` that says where ONNX Runtime is";
                return Err(LoadError::setting("runtime", message));
            }
            (RuntimeChoice::Rten, Some(_)) => {
                return Err(LoadError::setting("ort", "is for the runtime `ort`"));
            }
        };
        let network = Arc::new(Network::load(
            &context.path(&settings.model),
            &*abilities,
            context.workers,
            threads,
        )?);
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
        Ok(Self { tasks })
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

    fn platform() -> &'static str {
        "onnx"
    }
}

export_model!(Onnx);
