//! Opens the library of ONNX Runtime and forwards its log messages to the server's log.

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
/// ONNX Runtime allows one environment per process, so all models that share this copy of the plugin's code use one library. The
/// server gives each model its own copy of the plugin, so models on the server may use different libraries.
static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// Opens the first usable library. A library that a setting names must be usable; others are skipped with a warning.
///
/// # Errors
/// No library is usable. The error names a setting if that setting names the library.
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
    // A library with this name may not be ONNX Runtime, and `ort` panics if it returns invalid data.
    let opened = catch_unwind(AssertUnwindSafe(|| ort::init_from(library)));
    let builder: EnvironmentBuilder = match opened {
        Ok(opened) => opened.map_err(|error| explain(&error, library))?,
        Err(_) => return Err("it is not a working library of ONNX Runtime".to_owned()),
    };
    // Telemetry is off: only the server collects data, and only for its operator.
    let builder = builder.with_logger(Arc::new(forward)).with_telemetry(false);
    let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
    let environment = match built {
        Ok(built) => built.map_err(|error| error.to_string())?,
        Err(_) => return Err("it is not a working library of ONNX Runtime".to_owned()),
    };
    // This level applies to messages outside of sessions, which have their own loggers.
    environment.set_log_level(log_level().max(LogLevel::Info));
    Ok(environment)
}

/// Explains why a library cannot be opened, and how to fix it.
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

/// Explains an error of the dynamic linker, whose messages start with the file that it could not open.
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

/// Loggers of the sessions of one model. While sessions are created, warnings and errors that an earlier session has already
/// logged are suppressed.
pub(super) struct SessionLoggers {
    /// Messages logged so far; `None` once all sessions are created.
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

    /// Stops suppressing repeated messages. Called once all sessions are created.
    pub(super) fn finish(self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Minimum level at which ONNX Runtime logs; the server would discard messages below it.
pub(super) fn log_level() -> LogLevel {
    match log::max_level() {
        LevelFilter::Off | LevelFilter::Error => LogLevel::Error,
        LevelFilter::Warn | LevelFilter::Info => LogLevel::Warning,
        LevelFilter::Debug => LogLevel::Info,
        LevelFilter::Trace => LogLevel::Verbose,
    }
}

/// Forwards a log message of ONNX Runtime to the server's log.
fn forward(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    log::log!(target: "onnxruntime", server_level(level, location), "{message}");
}

/// Maps a log level to the server's. Many messages that ONNX Runtime logs as informational are only useful for debugging.
fn server_level(level: LogLevel, location: &str) -> Level {
    // Source files that log failures of runs or loads, which are returned as errors as well.
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
