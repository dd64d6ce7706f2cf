//! Opens the library of ONNX Runtime, and forwards what it logs to the server's log.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::{Environment, EnvironmentBuilder};
use ort::logging::{LogLevel, LoggerFunction};
use plugin_sdk::LoadError;
use plugin_sdk::log::{self, Level, LevelFilter};

use super::library::Candidate;

/// An open library with its environment.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) library: PathBuf,
    pub(super) environment: Environment,
}

/// The library in use.
///
/// ONNX Runtime allows one environment in a process, and this plugin has one library for all models that share its code. The
/// server gives every model its own copy of the plugin, so two models may use different libraries there.
static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// Opens the first library that can be used. One that a setting names has to be usable; others may be passed over.
///
/// # Errors
/// None can be used. The error blames a setting if one names the library.
pub(super) fn open(candidates: &[Candidate]) -> Result<Opened, LoadError> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*opened {
        return match candidates {
            [
                Candidate {
                    path, key: Some(key), ..
                },
            ] if *path != known.library => {
                let message = format!(
                    "`{}` cannot be loaded beside `{}`, which another model uses: expected the same library for all models",
                    path.display(),
                    known.library.display()
                );
                Err(LoadError::setting(key, message))
            }
            _ => Ok(known.clone()),
        };
    }
    let mut problems = Vec::new();
    for Candidate { path, origin, key } in candidates {
        match open_one(path) {
            Ok(environment) => {
                log::info!(
                    "loaded ONNX Runtime from `{}`, found by {origin}: {}",
                    path.display(),
                    ort::info()
                );
                let library = path.clone();
                let new = Opened { library, environment };
                return Ok(opened.insert(new).clone());
            }
            Err(problem) => {
                let problem = format!("`{}` cannot be loaded: {problem}", path.display());
                if let Some(key) = key {
                    return Err(LoadError::setting(key, problem));
                }
                log::warn!("ONNX Runtime, found by {origin}: {problem}");
                problems.push(problem);
            }
        }
    }
    Err(LoadError::new(match problems.as_slice() {
        [] => "no library of ONNX Runtime was found in `ORT_DYLIB_PATH`, in the Python environment (`VIRTUAL_ENV`, `python3`) \
               or in the system's directories"
            .to_owned(),
        _ => format!("no library of ONNX Runtime can be used: {}", problems.join("; ")),
    }))
}

fn open_one(library: &Path) -> Result<Environment, String> {
    if !library.is_file() {
        return Err("there is no such file".to_owned());
    }
    // A library of this name need not be ONNX Runtime, and `ort` panics if what it finds there makes no sense.
    let opened = catch_unwind(AssertUnwindSafe(|| ort::init_from(library)));
    let builder: EnvironmentBuilder = match opened {
        Ok(opened) => opened.map_err(|error| explain(&error, library))?,
        Err(_) => return Err("it is not a working library of ONNX Runtime".to_owned()),
    };
    // Only the server reports, and only to its operator.
    let builder = builder.with_logger(Arc::new(forward)).with_telemetry(false);
    let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
    let environment = match built {
        Ok(built) => built.map_err(|error| error.to_string())?,
        Err(_) => return Err("it is not a working library of ONNX Runtime".to_owned()),
    };
    // What is not about a session; sessions have their own loggers.
    environment.set_log_level(log_level().max(LogLevel::Info));
    Ok(environment)
}

/// Why a library cannot be opened, and what to do about it.
fn explain(error: &LoadDynamicError, library: &Path) -> String {
    match error {
        LoadDynamicError::BadVersion { version_str, .. } => format!(
            "it is ONNX Runtime {version_str}, expected 1.{} or newer: install a newer one",
            ort::MINOR_VERSION
        ),
        LoadDynamicError::MissingApi { .. } | LoadDynamicError::InvalidVersionString => {
            "it is not ONNX Runtime: it does not have the function `OrtGetApiBase` that returns a version"
                .to_owned()
        }
        LoadDynamicError::Dlopen { error, .. } => explain_linker(&error.to_string(), library),
    }
}

/// The messages of the dynamic linker start with the file that it could not open.
fn explain_linker(message: &str, library: &Path) -> String {
    let Some((file, problem)) = message.split_once(": ") else {
        return message.to_owned();
    };
    let is_library = Path::new(file) == library;
    if problem.starts_with("cannot open shared object file") && !is_library {
        return format!(
            "it needs `{file}`, which the dynamic linker does not find: install that library, or add its directory to \
             LD_LIBRARY_PATH"
        );
    }
    let is_foreign = problem.starts_with("wrong ELF class")
        || is_library && problem.starts_with("cannot open shared object file: No such file");
    if is_foreign {
        return format!(
            "it is for another kind of processor, expected one for {}",
            std::env::consts::ARCH
        );
    }
    message.to_owned()
}

/// The loggers of the sessions of one model. While the sessions are made, each would repeat what the first has logged about the file.
pub(super) struct SessionLoggers {
    /// What was logged so far; `None` once all sessions are made.
    seen: Arc<Mutex<Option<HashSet<String>>>>,
}

impl SessionLoggers {
    pub(super) fn new() -> Self {
        let seen = Arc::new(Mutex::new(Some(HashSet::new())));
        Self { seen }
    }

    /// The logger of one session.
    pub(super) fn next(&self) -> LoggerFunction {
        let seen = Arc::clone(&self.seen);
        let forward_once = move |level: LogLevel, category: &str, id: &str, location: &str, message: &str| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = seen
                .as_mut()
                .is_none_or(|seen| level < LogLevel::Warning || seen.insert(message.to_owned()));
            drop(seen);
            if is_new {
                forward(level, category, id, location, message);
            }
        };
        Arc::new(forward_once)
    }

    /// All sessions are made.
    pub(super) fn finish(self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What ONNX Runtime need not even write, since the server's log leaves it out.
pub(super) fn log_level() -> LogLevel {
    match log::max_level() {
        LevelFilter::Off | LevelFilter::Error => LogLevel::Error,
        LevelFilter::Warn | LevelFilter::Info => LogLevel::Warning,
        LevelFilter::Debug => LogLevel::Info,
        LevelFilter::Trace => LogLevel::Verbose,
    }
}

/// Writes what ONNX Runtime logs to the server's log.
fn forward(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    log::log!(target: "onnxruntime", server_level(level, location), "{message}");
}

/// ONNX Runtime calls much informational that is only of use to those who debug it.
fn server_level(level: LogLevel, location: &str) -> Level {
    // Where the failure of a run or a load is logged, although it is returned as well.
    const RETURNED: [&str; 2] = ["sequential_executor.cc", "inference_session.cc"];
    match level {
        LogLevel::Error | LogLevel::Fatal if RETURNED.iter().any(|file| location.contains(file)) => {
            Level::Debug
        }
        LogLevel::Error | LogLevel::Fatal => Level::Error,
        LogLevel::Warning => Level::Warn,
        LogLevel::Info => Level::Debug,
        LogLevel::Verbose => Level::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dynamic_linker_says_becomes_what_to_do() {
        let library = Path::new("/opt/lib/libonnxruntime.so");
        for (message, expected) in [
            (
                "libcudart.so.12: cannot open shared object file: No such file or directory",
                "it needs `libcudart.so.12`, which the dynamic linker does not find: install that library, or add its \
                 directory to LD_LIBRARY_PATH",
            ),
            (
                "/opt/lib/libonnxruntime.so: wrong ELF class: ELFCLASS32",
                "it is for another kind of processor, expected one for ",
            ),
            (
                "/opt/lib/libonnxruntime.so: invalid ELF header",
                "/opt/lib/libonnxruntime.so: invalid ELF header",
            ),
        ] {
            let explained = explain_linker(message, library);
            assert!(explained.starts_with(expected), "{explained}");
        }
    }

    #[test]
    fn errors_that_are_returned_are_not_logged_as_errors_too() {
        let run = "/onnxruntime_src/onnxruntime/core/framework/sequential_executor.cc:572";
        for (level, location, expected) in [
            (LogLevel::Error, run, Level::Debug),
            (LogLevel::Error, "provider_bridge_ort.cc:2539", Level::Error),
            (LogLevel::Warning, "graph.cc:123", Level::Warn),
            (LogLevel::Info, "graph.cc:123", Level::Debug),
            (LogLevel::Verbose, run, Level::Trace),
        ] {
            assert_eq!(server_level(level, location), expected, "{level:?} {location}");
        }
    }
}
