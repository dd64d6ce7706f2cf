//! The interpreter of this process. It is started once, for one environment, and never finalized, because native code of packages
//! does not support that.

#![allow(
    unsafe_code,
    reason = "pyo3 can neither set the program name nor get the version of an uninitialized library"
)]

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plugin_sdk::LoadError;
use plugin_sdk::prelude::*;
use pyo3::ffi;
use pyo3::prelude::*;

/// The setting that errors name.
const KEY: &str = "python";

/// Properties of an interpreter, from `probe.py`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Environment {
    executable: PathBuf,
    prefix: PathBuf,
    version: (u32, u32, u32),
}

/// Starts Python for `environment`, or checks that it is already running for the same environment.
pub(crate) fn start(environment: &Environment) -> Result<(), LoadError> {
    // Serializes concurrent loads, since a process has only one interpreter.
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    check_version(environment.version)?;
    // SAFETY: this function can be called at any time.
    let is_running = unsafe { ffi::Py_IsInitialized() } != 0;
    if !is_running {
        set_program_name(&environment.executable)?;
        enable_utf8_mode();
        // Installs no signal handlers, because the server handles signals.
        Python::initialize();
    }
    let prefix: PathBuf = Python::attach(|py| py.import("sys")?.getattr("prefix")?.extract())
        .map_err(|error: PyErr| LoadError::setting(KEY, format_args!("cannot start Python: {error}")))?;
    if prefix == environment.prefix {
        return Ok(());
    }
    let (expected, prefix) = (environment.prefix.display(), prefix.display());
    let message = if is_running {
        format!(
            "cannot use {expected}: this process already runs the Python of {prefix} for another model: set \
             isolation = \"process\" for both"
        )
    } else {
        format!(
            "cannot use {expected}: the library uses {prefix}: set `libpython` to the library of this Python"
        )
    };
    Err(LoadError::setting(KEY, message))
}

/// Checks that the library has the version of the interpreter. Otherwise it would not find its standard library and would abort the
/// process.
fn check_version((major, minor, _): (u32, u32, u32)) -> Result<(), LoadError> {
    // SAFETY: this function can be called at any time.
    let version = unsafe { ffi::Py_GetVersion() };
    // SAFETY: it is a static string that ends with 0.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
    if version.starts_with(&format!("{major}.{minor}.")) {
        return Ok(());
    }
    let got = version.split_whitespace().next().unwrap_or_default();
    let message = format!(
        "the interpreter is Python {major}.{minor}, but the library in this process is Python {got}: set `libpython` to the \
         matching library, or isolation = \"process\" for each model"
    );
    Err(LoadError::setting(KEY, message))
}

/// Sets the path of the interpreter, from which Python derives the environment.
fn set_program_name(executable: &Path) -> Result<(), LoadError> {
    let name = executable
        .to_str()
        .ok_or_else(|| LoadError::setting(KEY, format_args!("{} is not UTF-8", executable.display())))?;
    let wide: Vec<_> = name
        .chars()
        .chain(['\0'])
        .map(|letter| letter as u32 as libc::wchar_t)
        .collect();
    // SAFETY: the lock of `start` is held and Python is not initialized. The string ends with 0 and is never freed.
    unsafe { ffi::Py_SetProgramName(wide.leak().as_ptr()) };
    Ok(())
}

/// Enables UTF-8 mode. Otherwise the library would use the server's locale, which is often not set in a container.
fn enable_utf8_mode() {
    // SAFETY: the name ends with 0.
    let mode = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"Py_UTF8Mode".as_ptr()) }.cast::<c_int>();
    // SAFETY: it is null, which `as_mut` checks, or the address of the `int` with that name. The lock of `start` is held, and nothing
    // else uses it before Python is initialized.
    if let Some(mode) = unsafe { mode.as_mut() } {
        *mode = 1;
    }
}
