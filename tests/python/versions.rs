//! One build of the plugin supports every Python since 3.9.
//!
//! Tests the Python of the other tests, those that `INFERENCE_TEST_PYTHONS` names (like a `PATH`), those in `PATH`, and those of
//! pyenv, if they meet the requirements of the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{check, class, config, python};
use crate::harness::Scenario;

const VERSIONS: [&str; 5] = ["3.9", "3.10", "3.11", "3.12", "3.13"];

/// Finds one interpreter of each version.
fn found(first: &Path) -> BTreeMap<String, PathBuf> {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_default();
    let named = variable("INFERENCE_TEST_PYTHONS");
    let named = std::env::split_paths(&named).filter(|python| python.is_file());
    let path = variable("PATH");
    let on_path = std::env::split_paths(&path)
        .flat_map(|folder| VERSIONS.map(|version| folder.join(format!("python{version}"))))
        .filter(|python| python.is_file());
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".pyenv"))
    });
    let of_pyenv = pyenv
        .and_then(|folder| std::fs::read_dir(folder.join("versions")).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python"));
    let mut found = BTreeMap::new();
    for python in [first.to_owned()]
        .into_iter()
        .chain(named)
        .chain(on_path)
        .chain(of_pyenv)
    {
        if let Ok(version) = check(&python)
            && VERSIONS.contains(&version.as_str())
        {
            found.entry(version).or_insert(python);
        }
    }
    found
}

#[test]
fn one_build_supports_every_python_version() {
    let Some(first) = python() else { return };
    let found = found(&first);
    assert!(
        !found.is_empty(),
        "the Python of the tests is one of {VERSIONS:?}"
    );
    for (version, python) in &found {
        eprintln!("Python {version}: {}", python.display());
        let server = Scenario::new(&config(python, &class("kinds.py", "Kinds"), "")).start();
        for (task, input, output) in [
            ("text", json!("abc"), json!("cba")),
            ("vector", json!([1, 2]), json!({"output": [2.0, 4.0]})),
            (
                "people",
                json!({"name": "ada"}),
                json!({"name": "ADA", "ages": []}),
            ),
        ] {
            let outputs = server.predict("m", task, &json!([input])).outputs();
            assert_eq!(outputs, [output], "Python {version}, {task}");
        }
        server.shut_down();
    }
    let missing: Vec<_> = VERSIONS
        .iter()
        .filter(|version| !found.contains_key(**version))
        .collect();
    if !missing.is_empty() {
        eprintln!(
            "note: NOT TESTED with Python {missing:?}; name such interpreters in INFERENCE_TEST_PYTHONS"
        );
    }
}
