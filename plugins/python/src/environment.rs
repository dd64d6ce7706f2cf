//! Finds the Python interpreter and its shared library. Runs the interpreter to get its properties.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json;

/// Minimum minor version of Python 3 that the bridge supports.
const MIN_MINOR_VERSION: u32 = 9;

/// The setting that names the environment.
const KEY: &str = "python";

/// An interpreter that can be embedded.
#[derive(Debug)]
pub(crate) struct Environment {
    facts: Facts,
    library_directories: Vec<PathBuf>,
}

/// Properties of the interpreter that the bridge needs.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Facts {
    executable: PathBuf,
    prefix: PathBuf,
    version: (u32, u32, u32),
}

/// Output of `probe.py`.
#[derive(Deserialize)]
struct Probe {
    implementation: String,
    free_threaded: bool,
    library_directories: Vec<PathBuf>,
    #[serde(flatten)]
    facts: Facts,
}

impl Environment {
    /// Finds the interpreter that the settings name, and gets its properties.
    pub(crate) fn find(configured: Option<&Path>, context: &LoadContext) -> Result<Self, LoadError> {
        let interpreter = match configured {
            Some(path) => interpreter_at(&context.path(path))?,
            None => default_interpreter(env::current_exe().ok().as_deref(), env::var_os("VIRTUAL_ENV")),
        };
        let probe = probe(&interpreter)?;
        let (major, minor, patch) = probe.facts.version;
        let unsupported = |problem: String| {
            let message = format!(
                "{} is {problem}, expected CPython 3.{MIN_MINOR_VERSION} or newer",
                interpreter.display()
            );
            Err(LoadError::setting(KEY, message))
        };
        if probe.implementation != "cpython" {
            return unsupported(format!(
                "an interpreter of the implementation `{}`",
                probe.implementation
            ));
        }
        if major != 3 || minor < MIN_MINOR_VERSION {
            return unsupported(format!("Python {major}.{minor}.{patch}"));
        }
        if probe.free_threaded {
            return unsupported(format!("a free-threaded build of Python {major}.{minor}.{patch}"));
        }
        Ok(Self {
            facts: probe.facts,
            library_directories: probe.library_directories,
        })
    }

    /// Returns the properties that the bridge needs.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns the path of the interpreter's shared library.
    pub(crate) fn library(&self) -> Result<PathBuf, LoadError> {
        let (major, minor, _) = self.facts.version;
        let name = format!("libpython{major}.{minor}.so.1.0");
        let found = self
            .library_directories
            .iter()
            .map(|directory| directory.join(&name))
            .find(|file| file.is_file());
        found.ok_or_else(|| {
            let directories: Vec<_> = self
                .library_directories
                .iter()
                .map(|directory| directory.display().to_string())
                .collect();
            let message = format!(
                "{} has no {name} in {}: on Debian, install libpython{major}.{minor}; with pyenv, build with \
                 PYTHON_CONFIGURE_OPTS=--enable-shared; otherwise, set `libpython`",
                self.facts.executable.display(),
                directories.join(", ")
            );
            LoadError::setting(KEY, message)
        })
    }
}

/// Returns the interpreter of a virtual environment, or `path` itself if it is an interpreter.
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
        "{} does not exist, expected the directory of a virtual environment or an interpreter",
        interpreter.display()
    );
    Err(LoadError::setting(KEY, message))
}

/// Returns the interpreter of the environment that the server is installed in, or of the active environment, or one in the
/// directory of the server, or the one in PATH.
fn default_interpreter(server: Option<&Path>, active: Option<OsString>) -> PathBuf {
    let beside = server.and_then(Path::parent).map(|bin| bin.join("python3"));
    let beside = beside.filter(|interpreter| interpreter.is_file());
    let active = active.filter(|environment| !environment.is_empty());
    match (beside, active) {
        (Some(interpreter), _) if is_in_environment(&interpreter) => interpreter,
        (_, Some(environment)) => Path::new(&environment).join("bin/python"),
        (Some(interpreter), None) => interpreter,
        (None, None) => PathBuf::from("python3"),
    }
}

/// Whether an interpreter belongs to a virtual or conda environment.
fn is_in_environment(interpreter: &Path) -> bool {
    let prefix = interpreter.parent().and_then(Path::parent);
    prefix.is_some_and(|prefix| prefix.join("pyvenv.cfg").is_file() || prefix.join("conda-meta").is_dir())
}

fn probe(interpreter: &Path) -> Result<Probe, LoadError> {
    let fail = |problem: String| {
        let message = format!("{} {problem}", interpreter.display());
        LoadError::setting(KEY, message)
    };
    let output = Command::new(interpreter)
        .args(["-c", include_str!("probe.py")])
        .output()
        .map_err(|error| fail(format!("cannot be run: {error}")))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last = stderr.lines().next_back().unwrap_or_default();
        return Err(fail(format!("failed with {}: {last}", output.status)));
    }
    // Startup code of the environment can print other lines before.
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().next_back().unwrap_or_default()).map_err(|error| {
        fail(format!(
            "printed invalid properties: {error}: expected a Python 3 interpreter"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates `PREFIX/bin/NAME` for each name, and an empty file or directory that marks an environment.
    fn prefix(directory: &Path, names: &[&str], marker: Option<&str>) -> PathBuf {
        let bin = directory.join("bin");
        std::fs::create_dir_all(&bin).expect("create the directory");
        for name in names {
            std::fs::write(bin.join(name), "").expect("write the file");
        }
        match marker {
            Some("conda-meta") => {
                std::fs::create_dir(directory.join("conda-meta")).expect("create the directory")
            }
            Some(file) => std::fs::write(directory.join(file), "").expect("write the file"),
            None => {}
        }
        bin.join("inference-server")
    }

    #[test]
    fn the_default_interpreter_is_that_of_the_environment_that_the_server_is_installed_in() {
        let root = env::temp_dir().join(format!("default-interpreter-{}", std::process::id()));
        let own = |name: &str| root.join(name).join("bin/python3");
        let server = |name: &str, names: &[&str], marker| prefix(&root.join(name), names, marker);
        let active = || Some(OsString::from("/active"));
        let venv = server("venv", &["python3"], Some("pyvenv.cfg"));
        let conda = server("conda", &["python3"], Some("conda-meta"));
        let usr = server("usr", &["python3"], None);
        let target = server("target", &[], None);
        for (server, active, expected) in [
            (Some(&venv), None, own("venv")),
            (Some(&venv), active(), own("venv")),
            (Some(&conda), active(), own("conda")),
            (Some(&usr), None, own("usr")),
            (Some(&usr), active(), PathBuf::from("/active/bin/python")),
            (Some(&target), active(), PathBuf::from("/active/bin/python")),
            (Some(&target), None, PathBuf::from("python3")),
            (None, None, PathBuf::from("python3")),
        ] {
            let found = default_interpreter(server.map(PathBuf::as_path), active.clone());
            assert_eq!(found, expected, "{server:?} {active:?}");
        }
        std::fs::remove_dir_all(&root).expect("remove the directory");
    }
}
