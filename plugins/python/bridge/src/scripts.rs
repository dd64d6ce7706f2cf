//! The plugin's own Python modules, and what is called in them.

use std::ffi::CString;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::{Map, Value as JsonValue};
use plugin_sdk::{LoadContext, LoadError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyModule;

/// Names and texts, each after those that it imports.
const MODULES: [(&str, &str); 5] = [
    ("_inference_server", "__path__ = []"),
    ("_inference_server.values", include_str!("python/values.py")),
    ("_inference_server.tasks", include_str!("python/tasks.py")),
    ("_inference_server.loading", include_str!("python/loading.py")),
    ("_inference_server.logs", include_str!("python/logs.py")),
];

/// The modules, once they have been imported.
pub(crate) struct Scripts<'py> {
    pub(crate) values: Bound<'py, PyModule>,
    pub(crate) tasks: Bound<'py, PyModule>,
    loading: Bound<'py, PyModule>,
}

impl<'py> Scripts<'py> {
    /// Imports the modules, and leads what is printed and logged to the server's log, unless that was done for another model
    /// of this process.
    pub(crate) fn import(py: Python<'py>) -> PyResult<Self> {
        let known = py.import("sys")?.getattr("modules")?;
        if !known.contains("_inference_server.logs")? {
            for (name, text) in MODULES {
                import(py, name, text)?;
            }
            let record = wrap_pyfunction!(record, py)?;
            let most = log::max_level() as u32;
            let logs = py.import("_inference_server.logs")?;
            logs.call_method1("redirect", (record, most))?;
        }
        Ok(Self {
            values: py.import("_inference_server.values")?,
            tasks: py.import("_inference_server.tasks")?,
            loading: py.import("_inference_server.loading")?,
        })
    }

    /// A `loading.Model`.
    pub(crate) fn load(
        &self,
        class: &str,
        settings: &Map<String, JsonValue>,
        context: &LoadContext,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        let py = self.loading.py();
        let load = || {
            let settings = from_json(py, &json!(settings).to_string())?;
            let arguments = (class, settings, context.base_dir.as_path(), context.threads);
            self.loading.getattr("load")?.call1(arguments)
        };
        load().map_err(|error: PyErr| self.refusal(&error).unwrap_or_else(LoadError::new))
    }

    /// What the operator is told. Anything but a `Refused` is a mistake of the plugin.
    fn refusal(&self, error: &PyErr) -> PyResult<LoadError> {
        let value = error.value(self.loading.py());
        if !value.is_instance(&self.loading.getattr("Refused")?)? {
            return Ok(LoadError::new(format_args!("the plugin failed: {error}")));
        }
        let key: String = value.getattr("key")?.extract()?;
        Ok(LoadError::setting(key, value.str()?))
    }
}

fn import(py: Python<'_>, name: &str, text: &str) -> PyResult<()> {
    let file = format!("<inference-server {name}>");
    let [text, file, name] = [text, &file, name].map(CString::new);
    PyModule::from_code(py, &text?, &file?, &name?).map(drop)
}

/// The value of a JSON document.
pub(crate) fn from_json<'py>(py: Python<'py>, document: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (document,))
}

/// Writes a record to the server's log. Nobody waits for it with the global lock.
#[pyfunction]
fn record(py: Python<'_>, level: usize, target: String, text: String) -> PyResult<()> {
    let level = log::Level::iter()
        .nth(level.wrapping_sub(1))
        .ok_or_else(|| PyValueError::new_err("no such level"))?;
    py.detach(|| log::log!(target: &target, level, "{text}"));
    Ok(())
}
