//! Which Python is meant, and where its library is. Everything but its place is learned by asking the interpreter itself.
//! Knows nothing of what is to be run in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json;

/// The oldest Python 3 that the bridge runs in.
const OLDEST: u32 = 9;

/// The key of the settings that names the environment.
const KEY: &str = "python";

/// An interpreter that can be embedded.
#[derive(Debug)]
pub(crate) struct Environment {
    facts: Facts,
    library_folders: Vec<PathBuf>,
}

/// What the bridge has to know of the interpreter.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    executable: PathBuf,
    prefix: PathBuf,
    version: (u32, u32, u32),
}

/// What `probe.py` prints.
#[derive(Deserialize)]
struct Probe {
    implementation: String,
    free_threaded: bool,
    library_folders: Vec<PathBuf>,
    #[serde(flatten)]
    facts: Facts,
}

impl Environment {
    /// Finds the interpreter that the settings mean, and asks it what it is.
    pub(crate) fn find(written: Option<&Path>, context: &LoadContext) -> Result<Self, LoadError> {
        let interpreter = match written {
            Some(written) => interpreter_at(&context.path(written))?,
            None => default_interpreter(),
        };
        let probe = ask(&interpreter)?;
        let (major, minor, patch) = probe.facts.version;
        let refuse = |problem: String| {
            let message = format!(
                "{} is {problem}, expected CPython 3.{OLDEST} or newer",
                interpreter.display()
            );
            Err(LoadError::setting(KEY, message))
        };
        if probe.implementation != "cpython" {
            return refuse(format!(
                "an interpreter of the implementation `{}`",
                probe.implementation
            ));
        }
        if major != 3 || minor < OLDEST {
            return refuse(format!("Python {major}.{minor}.{patch}"));
        }
        if probe.free_threaded {
            return refuse(format!("Python {major}.{minor}.{patch} without the global lock"));
        }
        Ok(Self {
            facts: probe.facts,
            library_folders: probe.library_folders,
        })
    }

    /// What the bridge has to know.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The shared library of the interpreter.
    pub(crate) fn library(&self) -> Result<PathBuf, LoadError> {
        let (major, minor, _) = self.facts.version;
        let name = format!("libpython{major}.{minor}.so.1.0");
        let found = self
            .library_folders
            .iter()
            .map(|folder| folder.join(&name))
            .find(|file| file.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> = self
                .library_folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            let message = format!(
                "{} has no {name} in {}; on Debian install libpython{major}.{minor}, with pyenv build with \
                 PYTHON_CONFIGURE_OPTS=--enable-shared, or set `libpython`",
                self.facts.executable.display(),
                folders.join(", ")
            );
            LoadError::setting(KEY, message)
        })
    }
}

/// The interpreter of an environment, or an interpreter.
fn interpreter_at(path: &Path) -> Result<PathBuf, LoadError> {
    let interpreter = if path.is_dir() {
        path.join("bin/python")
    } else {
        path.to_owned()
    };
    if interpreter.is_file() {
        return Ok(interpreter);
    }
    let message = format!(
        "{} does not exist, expected the folder of a virtual environment or an interpreter",
        interpreter.display()
    );
    Err(LoadError::setting(KEY, message))
}

fn default_interpreter() -> PathBuf {
    match env::var_os("VIRTUAL_ENV") {
        Some(environment) => Path::new(&environment).join("bin/python"),
        None => PathBuf::from("python3"),
    }
}

fn ask(interpreter: &Path) -> Result<Probe, LoadError> {
    let fail = |problem: String| {
        let message = format!("{} {problem}", interpreter.display());
        LoadError::setting(KEY, message)
    };
    let output = Command::new(interpreter)
        .args(["-c", include_str!("probe.py")])
        .output()
        .map_err(|error| fail(format!("cannot be run: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = said.lines().next_back().unwrap_or_default();
        return Err(fail(format!("does not run: {}; {last}", output.status)));
    }
    // What starts with every Python there may print something before.
    let printed = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(printed.lines().next_back().unwrap_or_default())
        .map_err(|error| fail(format!("does not say what it is: {error}; is it a Python 3?")))
}
