//! External programs that some tests require, such as a browser.
//!
//! `cargo test` works on a machine with only Rust: a test whose program is not installed prints a note and passes. If
//! `INFERENCE_TEST_TOOLS=required` is set, as in continuous integration, it fails instead.

use std::path::PathBuf;
use std::process::Command;

/// Finds a program: the one that `variable` names, or else the first of `names` in `PATH`.
pub(crate) fn find(variable: &str, names: &[&str], install: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
            .find(|program| program.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        absent(
            &format!("none of {} is in PATH", names.join(", ")),
            variable,
            install,
        );
    }
    found
}

/// Runs a program that must succeed. Returns its standard output followed by its standard error, and panics with both if it fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    };
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed with {}:\n{text}",
        output.status
    );
    text
}

/// Prints a note that a test did not run, or fails if tools are required.
pub(crate) fn absent(what: &str, variable: &str, install: &str) {
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "{what}, and INFERENCE_TEST_TOOLS=required: install it with `{install}`, or set {variable}"
    );
    eprintln!("note: NOT TESTED, because {what}: install it with `{install}`, or set {variable}");
}

/// Returns a directory in the user's cache that `tests/install` fills, if it has this file.
pub(crate) fn cached(folder: &str, file: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let folder = cache?.join("inference-server").join(folder);
    if folder.join(file).is_file() {
        return Some(folder);
    }
    absent(
        &format!("{} does not exist", folder.display()),
        "XDG_CACHE_HOME",
        "tests/install",
    );
    None
}
