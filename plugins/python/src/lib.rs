//! Serves a class or a function that is written in Python, in an environment of its author's.
//!
//! The plugin is two libraries. This one is opened by the server, and linked against no Python: which one is meant, only the
//! settings say. It finds that Python (`environment`), opens its `libpython`, and then `libpython_bridge.so`, in the package
//! `bridge`, which needs it there and does all the rest. The README of this plugin is for users.

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
    /// The class or function to serve: `path/to/file.py:Name` or `package.module:Name`.
    class: String,
    /// The folder of a virtual environment, or an interpreter; that of VIRTUAL_ENV or of the PATH, if not said.
    python: Option<PathBuf>,
    /// The library of that Python, such as `/usr/lib/libpython3.12.so.1.0`; the interpreter is asked, if not said.
    libpython: Option<PathBuf>,
    /// Handed to `load`.
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

    /// An interpreter has one lock, a crash of native code takes all with it, and two environments need two processes.
    fn isolation() -> Option<Isolation> {
        Some(Isolation::Process)
    }
}

export_front!(Python);
