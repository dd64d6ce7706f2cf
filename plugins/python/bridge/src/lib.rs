//! The second library of the plugin `python`, which is opened after a `libpython`, so that one build supports all versions of
//! Python since 3.9.
//!
//! Most of the plugin is written in Python, in the package `inference_server` next to this one: `_loading` imports the class that
//! the settings name, `_tasks` finds its tasks, `_batches` runs them, `_hints`, `_documents` and `_outcomes` convert values by their
//! type hints, `_loop` runs asynchronous methods, and `_logs` forwards output to the log. In this crate, `interpreter` starts
//! Python, `package` imports that package, `task` passes batches and outcomes, and `json` serializes outcomes.
//!
//! # Global interpreter lock
//! Only one thread of a process runs Python at a time, so items are converted as part of their batch. Only a class that states
//! the weights of items has a prepare step. A thread that holds the lock never waits for a thread that needs it, because the lock is released while a record is logged.

mod interpreter;
mod json;
mod package;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::{Map, Value as JsonValue};
use pyo3::prelude::*;

use crate::interpreter::Environment;
use crate::package::PythonPackage;
use crate::task::{Method, TaskSpec, WeighedMethod};

/// Settings that the first library passes to this one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BridgeSettings {
    class: String,
    environment: Environment,
    settings: Map<String, JsonValue>,
}

/// A loaded model.
struct PythonModel {
    /// Instance of `_loading.Model`.
    model: Py<PyAny>,
    tasks: Vec<(String, Arc<TaskSpec>)>,
    files: Vec<PathBuf>,
}

impl Model for PythonModel {
    type Settings = BridgeSettings;

    fn load(settings: BridgeSettings, context: &LoadContext) -> Result<Self, LoadError> {
        interpreter::start(&settings.environment)?;
        Python::attach(|py| {
            let package = PythonPackage::import(py).map_err(|error| {
                let message = format!("the plugin's own code failed in this Python: {error}");
                LoadError::setting("python", message)
            })?;
            let model = package.load(&settings.class, &settings.settings, context)?;
            Self::describe(&package, model).map_err(|error| {
                LoadError::setting("class", format_args!("cannot describe the model: {error}"))
            })
        })
    }

    /// The tasks are methods of the class.
    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        self.tasks.iter().fold(Tasks::new(), |tasks, (name, spec)| {
            if spec.is_weighed {
                tasks.add_prepared(name, WeighedMethod(Arc::clone(spec)))
            } else {
                tasks.add(name, Method(Arc::clone(spec)))
            }
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn memory_usage(&self) -> Option<MemoryUsage> {
        let usage = Python::attach(|py| {
            let usage = self.model.call_method0(py, "memory_usage")?;
            usage.extract::<Option<(u64, u64)>>(py)
        });
        match usage {
            Ok(usage) => usage.map(|(current, peak)| MemoryUsage { current, peak }),
            Err(error) => {
                log::error!("cannot read the memory usage of the model: {error}");
                None
            }
        }
    }

    fn platform() -> &'static str {
        "python"
    }
}

impl PythonModel {
    fn describe(package: &PythonPackage<'_>, model: Bound<'_, PyAny>) -> PyResult<Self> {
        let limit: Option<usize> = model.getattr("max_batch_size")?.extract()?;
        let mut tasks = Vec::new();
        for task in model.getattr("tasks")?.try_iter()? {
            let task = task?;
            let name = task.getattr("name")?.extract()?;
            tasks.push((name, Arc::new(TaskSpec::new(package, &task, limit)?)));
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
            log::error!("cannot unload the model: {error}");
        }
    }
}

export_model!(PythonModel);
