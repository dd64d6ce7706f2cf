//! Imports the plugin's Python package and loads models with it.

use std::ffi::CString;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::{Map, Value as JsonValue};
use plugin_sdk::{LoadContext, LoadError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyModule};

/// The modules of the package `inference_server`, each after those that it imports.
const MODULES: [(&str, &str); 11] = [
    (PACKAGE, include_str!("../../inference_server/__init__.py")),
    (
        "inference_server._text",
        include_str!("../../inference_server/_text.py"),
    ),
    (
        "inference_server._hints",
        include_str!("../../inference_server/_hints.py"),
    ),
    (
        "inference_server._arrays",
        include_str!("../../inference_server/_arrays.py"),
    ),
    (
        "inference_server._documents",
        include_str!("../../inference_server/_documents.py"),
    ),
    (
        "inference_server._outcomes",
        include_str!("../../inference_server/_outcomes.py"),
    ),
    (
        "inference_server._loop",
        include_str!("../../inference_server/_loop.py"),
    ),
    (
        "inference_server._batches",
        include_str!("../../inference_server/_batches.py"),
    ),
    (
        "inference_server._tasks",
        include_str!("../../inference_server/_tasks.py"),
    ),
    (
        "inference_server._loading",
        include_str!("../../inference_server/_loading.py"),
    ),
    (LOGS, include_str!("../../inference_server/_logs.py")),
];

const PACKAGE: &str = "inference_server";
const LOGS: &str = "inference_server._logs";

/// The imported modules.
pub(crate) struct PythonPackage<'py> {
    pub(crate) outcomes: Bound<'py, PyModule>,
    pub(crate) batches: Bound<'py, PyModule>,
    loading: Bound<'py, PyModule>,
}

impl<'py> PythonPackage<'py> {
    /// Imports the modules and redirects output to the server's log, unless this was already done for another model of this process.
    pub(crate) fn import(py: Python<'py>) -> PyResult<Self> {
        let modules = py.import("sys")?.getattr("modules")?;
        if !modules.contains(LOGS)? {
            for (name, text) in MODULES {
                let module = import(py, name, text)?;
                if name == PACKAGE {
                    // Makes it a package, from which the following modules are imported.
                    module.setattr("__path__", PyList::empty(py))?;
                }
            }
            let record = wrap_pyfunction!(record, py)?;
            let max_level = log::max_level() as u32;
            let logs = py.import(LOGS)?;
            logs.call_method1("redirect", (record, max_level))?;
        }
        Ok(Self {
            outcomes: py.import("inference_server._outcomes")?,
            batches: py.import("inference_server._batches")?,
            loading: py.import("inference_server._loading")?,
        })
    }

    /// Returns an instance of `_loading.Model`.
    pub(crate) fn load(
        &self,
        class: &str,
        settings: &Map<String, JsonValue>,
        context: &LoadContext,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        let py = self.loading.py();
        let load = || {
            let settings = from_json(py, &json!(settings).to_string())?;
            let base_dir = context.base_dir.as_path();
            let arguments = (class, settings, base_dir, context.threads, context.is_repeated);
            self.loading.getattr("load")?.call1(arguments)
        };
        load().map_err(|error: PyErr| self.load_error(&error).unwrap_or_else(LoadError::new))
    }

    /// Converts an exception. Any exception other than `_loading.LoadError` is a bug in the plugin.
    fn load_error(&self, error: &PyErr) -> PyResult<LoadError> {
        let value = error.value(self.loading.py());
        if !value.is_instance(&self.loading.getattr("LoadError")?)? {
            return Ok(LoadError::new(format_args!("the plugin failed: {error}")));
        }
        let key: String = value.getattr("key")?.extract()?;
        Ok(LoadError::setting(key, value.str()?))
    }
}

fn import<'py>(py: Python<'py>, name: &str, text: &str) -> PyResult<Bound<'py, PyModule>> {
    let file = format!("<inference-server {name}>");
    let [text, file, name] = [text, &file, name].map(CString::new);
    PyModule::from_code(py, &text?, &file?, &name?)
}

/// Parses a JSON document.
pub(crate) fn from_json<'py>(py: Python<'py>, document: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (document,))
}

/// Writes a record to the server's log. Releases the global interpreter lock in the meantime.
#[pyfunction]
fn record(py: Python<'_>, level: usize, target: String, text: String) -> PyResult<()> {
    let level = log::Level::iter()
        .nth(level.wrapping_sub(1))
        .ok_or_else(|| PyValueError::new_err("invalid log level"))?;
    py.detach(|| log::log!(target: &target, level, "{text}"));
    Ok(())
}
