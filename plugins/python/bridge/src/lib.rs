//! Serves a class or a function that is written in Python: the half of the plugin `python` that is opened once a `libpython`
//! is, so that one build runs in every Python since 3.9.
//!
//! Most of it is written in Python, in the package `inference_server` beside this one: `_loading` imports the class that the
//! settings name, `_tasks` finds its tasks, `_batches` runs them, `_hints`, `_documents` and `_outcomes` read and write values by
//! their type hints, `_loop` runs asynchronous methods, `_logs` forwards output to the log. Here, `interpreter` starts Python,
//! `scripts` imports that package, `task` passes batches and outcomes, and `json` writes outcomes.
//!
//! # The global lock
//! One thread of a process runs Python at a time, so nothing is prepared in parallel: items are read in the batch that they
//! are in. A thread that holds the lock never waits for one that wants it: the lock is given up while a line is logged.

mod interpreter;
mod json;
mod scripts;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::{Map, Value as JsonValue};
use pyo3::prelude::*;

use crate::interpreter::Environment;
use crate::scripts::Scripts;
use crate::task::{Method, Plan};

/// What the other half of the plugin has made of `[models.settings]`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    class: String,
    environment: Environment,
    settings: Map<String, JsonValue>,
}

/// A loaded model.
struct PythonModel {
    /// A `_loading.Model`.
    model: Py<PyAny>,
    tasks: Vec<(String, Arc<Plan>)>,
    files: Vec<PathBuf>,
}

impl Model for PythonModel {
    type Settings = Order;

    fn load(order: Order, context: &LoadContext) -> Result<Self, LoadError> {
        interpreter::start(&order.environment)?;
        Python::attach(|py| {
            let scripts = Scripts::import(py).map_err(|error| {
                let message = format!("the plugin's own code does not run in this Python: {error}");
                LoadError::setting("python", message)
            })?;
            let model = scripts.load(&order.class, &order.settings, context)?;
            Self::describe(&scripts, model).map_err(|error| {
                LoadError::setting("class", format_args!("the model cannot be described: {error}"))
            })
        })
    }

    /// They are the methods of the class.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        self.tasks.iter().fold(Tasks::new(), |tasks, (name, plan)| {
            tasks.add(name, Method(Arc::clone(plan)))
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn platform() -> &'static str {
        "python"
    }
}

impl PythonModel {
    fn describe(scripts: &Scripts<'_>, model: Bound<'_, PyAny>) -> PyResult<Self> {
        let limit: Option<usize> = model.getattr("max_batch_size")?.extract()?;
        let mut tasks = Vec::new();
        for task in model.getattr("tasks")?.try_iter()? {
            let task = task?;
            let name = task.getattr("name")?.extract()?;
            tasks.push((name, Arc::new(Plan::new(scripts, &task, limit)?)));
        }
        Ok(Self {
            files: model.getattr("files")?.extract()?,
            model: model.unbind(),
            tasks,
        })
    }
}

impl Drop for PythonModel {
    fn drop(&mut self) {
        let unloaded = Python::attach(|py| self.model.call_method0(py, "unload").map(drop));
        if let Err(error) = unloaded {
            log::error!("the model cannot be unloaded: {error}");
        }
    }
}

export_model!(PythonModel);
