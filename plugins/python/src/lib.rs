//! Plugin that serves a class or function written in Python, in the author's own environment.
//!
//! The plugin consists of two libraries. The server opens this one, which is not linked against Python, because only the settings
//! name the Python to use. It finds that Python (`environment`), opens its `libpython`, and then opens `libpython_bridge.so` from
//! the package `bridge`, which implements the rest. The README of this plugin is the documentation for users.

#![forbid(unsafe_code)]

mod environment;

use std::path::PathBuf;

use plugin_sdk::manifest::Isolation;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::{Map, Value};
use plugin_sdk::{Back, Front, export_front};

use crate::environment::Environment;

/// `[models.settings]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Class or function to serve: `path/to/file.py:Name` or `package.module:Name`.
    class: String,
    /// Directory of a virtual environment, or path of an interpreter. Default: the environment that the
    /// server is installed in, else VIRTUAL_ENV, else `python3`.
    python: Option<PathBuf>,
    /// Shared library of that Python, such as `/usr/lib/libpython3.12.so.1.0`. Default: as reported by the interpreter.
    libpython: Option<PathBuf>,
    /// Settings that are passed to `load`.
    #[serde(default)]
    settings: Map<String, Value>,
}

/// The first library of the plugin.
pub struct Python;

impl Front for Python {
    type Settings = Settings;

    fn find(settings: Settings, context: &LoadContext) -> Result<Back, LoadError> {
        let environment = Environment::find(settings.python.as_deref(), context)?;
        let (library, key) = match settings.libpython {
            Some(library) => (context.path(library), "libpython"),
            None => (environment.library()?, "python"),
        };
        Ok(Back {
            libraries: vec![(library, key)],
            plugin: "libpython_bridge.so",
            settings: json!({
                "class": settings.class,
                "environment": environment.facts(),
                "settings": settings.settings,
            }),
        })
    }

    /// A process, because an interpreter has one global lock, native code can crash, and each environment needs its own process.
    fn isolation() -> Option<Isolation> {
        Some(Isolation::Process)
    }
}

export_front!(Python);
