//! Programs that some tests need and that are not built here: a browser.
//!
//! `cargo test` works on a machine that has only Rust: a test whose program is absent says so and passes. Where
//! `INFERENCE_TEST_TOOLS=required` is set, as in continuous integration, absence fails the test instead.

use std::path::PathBuf;

/// Finds a program: the one that `variable` names, else the first of `names` on the `PATH`.
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
            &format!("none of {} is on the PATH", names.join(", ")),
            variable,
            install,
        );
    }
    found
}

/// Says that something is not tested, or fails.
pub(crate) fn absent(what: &str, variable: &str, install: &str) {
    let required = std::env::var("INFERENCE_TEST_TOOLS").is_ok_and(|value| value == "required");
    assert!(
        !required,
        "{what}, and INFERENCE_TEST_TOOLS=required: install it with `{install}`, or name it in {variable}"
    );
    eprintln!("note: NOT TESTED, since {what}; install it with `{install}`, or name it in {variable}");
}
