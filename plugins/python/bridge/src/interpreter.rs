//! The interpreter of this process: started once, for one environment, and never ended, since the native code of packages
//! does not survive that.

#![allow(
    unsafe_code,
    reason = "pyo3 can neither name the program nor ask a library that is not initialized for its version"
)]

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use plugin_sdk::LoadError;
use plugin_sdk::prelude::*;
use pyo3::ffi;
use pyo3::prelude::*;

/// The setting to blame.
const KEY: &str = "python";

/// An interpreter as it describes itself.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Environment {
    executable: PathBuf,
    prefix: PathBuf,
    version: (u32, u32, u32),
}

/// Starts Python as `environment` has it, or makes sure that it is what runs already.
pub(crate) fn start(environment: &Environment) -> Result<(), LoadError> {
    // A process has one Python, whoever wants one.
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    check_version(environment.version)?;
    // SAFETY: it may be called at any time.
    let runs = unsafe { ffi::Py_IsInitialized() } != 0;
    if !runs {
        name_program(&environment.executable)?;
        use_utf8();
        // Without handlers of signals, which are the server's.
        Python::initialize();
    }
    let prefix: PathBuf = Python::attach(|py| py.import("sys")?.getattr("prefix")?.extract())
        .map_err(|error: PyErr| LoadError::setting(KEY, format_args!("Python does not start: {error}")))?;
    if prefix == environment.prefix {
        return Ok(());
    }
    let (wanted, prefix) = (environment.prefix.display(), prefix.display());
    let message = if runs {
        format!(
            "{wanted}, but this process runs the Python of {prefix} for another model; give each a process, with \
             isolation = \"process\""
        )
    } else {
        format!(
            "{wanted}, but the library takes {prefix} for its own; set `libpython` to the one of this Python"
        )
    };
    Err(LoadError::setting(KEY, message))
}

/// A library of another version would not find its standard library, and end the process.
fn check_version((major, minor, _): (u32, u32, u32)) -> Result<(), LoadError> {
    // SAFETY: it may be called at any time.
    let version = unsafe { ffi::Py_GetVersion() };
    // SAFETY: it is a static text that ends in 0.
    let version = unsafe { CStr::from_ptr(version) }.to_string_lossy();
    if version.starts_with(&format!("{major}.{minor}.")) {
        return Ok(());
    }
    let got = version.split_whitespace().next().unwrap_or_default();
    let message = format!(
        "Python {major}.{minor}, but the library in this process is that of Python {got}; set `libpython` to the right one, \
         or give each model a process, with isolation = \"process\""
    );
    Err(LoadError::setting(KEY, message))
}

/// Where the interpreter would be says which environment it is.
fn name_program(executable: &Path) -> Result<(), LoadError> {
    let name = executable
        .to_str()
        .ok_or_else(|| LoadError::setting(KEY, format_args!("{} is not UTF-8", executable.display())))?;
    let wide: Vec<_> = name
        .chars()
        .chain(['\0'])
        .map(|letter| letter as u32 as libc::wchar_t)
        .collect();
    // SAFETY: Python has not been initialized, under the lock of `start`; the text ends in 0 and is never freed.
    unsafe { ffi::Py_SetProgramName(wide.leak().as_ptr()) };
    Ok(())
}

/// Files and their names are UTF-8, as in an interpreter that is started by hand: the library would take the server's locale,
/// and in a container that is often none.
fn use_utf8() {
    // SAFETY: the name ends in 0.
    let mode = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"Py_UTF8Mode".as_ptr()) }.cast::<c_int>();
    // SAFETY: it is null, which `as_mut` checks, or the address of the `int` of that name, which nothing else uses before Python
    // is initialized, under the lock of `start`.
    if let Some(mode) = unsafe { mode.as_mut() } {
        *mode = 1;
    }
}
