//! Conventions of the source text that no compiler or lint enforces.

use std::path::{Path, PathBuf};

use crate::harness::plugins::repository;

/// The directories with Rust code.
const SOURCES: [&str; 3] = ["server", "plugin-sdk", "plugins"];

#[test]
fn unit_tests_are_in_a_module_named_tests_at_the_end_of_their_module() {
    let violations: Vec<String> = library_files()
        .iter()
        .flat_map(|file| {
            let text = std::fs::read_to_string(file).expect("the source can be read");
            let name = file.strip_prefix(repository()).unwrap_or(file).to_owned();
            violations(&name, &text)
        })
        .collect();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn each_violation_of_the_convention_is_detected() {
    for (file, text, expected) in [
        ("a.rs", "#[cfg(test)]\nmod tests {}\n", None),
        ("a/tests.rs", "use super::*;\n", None),
        (
            "a_tests.rs",
            "",
            Some("unit tests belong in `mod tests`, in `<module>/tests.rs` if they are long"),
        ),
        (
            "a.rs",
            "#[path = \"b.rs\"]\nmod b;\n",
            Some("a module lies where Rust looks for it, without `#[path]`"),
        ),
        (
            "a.rs",
            "#[cfg(test)]\nmod checks {}\n",
            Some("a module of unit tests is named `tests`"),
        ),
        (
            "a.rs",
            "#[cfg(test)]\npub(crate) mod checks;\n",
            Some("a module of unit tests is named `tests`"),
        ),
    ] {
        let found = violations(Path::new(file), text);
        let expected: Vec<String> = expected
            .map(|rule| format!("{file}: {rule}"))
            .into_iter()
            .collect();
        assert_eq!(found, expected, "{file}: {text}");
    }
}

/// Departures from the convention for unit tests: inline in `mod tests`, or in the file or directory of that module.
fn violations(file: &Path, text: &str) -> Vec<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let mut rules = Vec::new();
    if name.ends_with("_tests.rs") || name.ends_with("_test.rs") {
        rules.push("unit tests belong in `mod tests`, in `<module>/tests.rs` if they are long");
    }
    let mut after_cfg_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[path") {
            rules.push("a module lies where Rust looks for it, without `#[path]`");
        }
        let declared = line
            .split("mod ")
            .nth(1)
            .filter(|_| after_cfg_test && !line.starts_with("use "));
        let named = declared.map(|rest| rest.trim_end_matches([' ', ';', '{', '}']));
        if named.is_some_and(|name| name != "tests") {
            rules.push("a module of unit tests is named `tests`");
        }
        after_cfg_test = line == "#[cfg(test)]" || after_cfg_test && line.starts_with('#');
    }
    rules
        .into_iter()
        .map(|rule| format!("{}: {rule}", file.display()))
        .collect()
}

/// The files below every `src` directory.
fn library_files() -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = SOURCES.iter().map(|source| repository().join(source)).collect();
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("the source can be read") {
            let path = entry.expect("the source can be read").path();
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "target" && name != "venv" && name != "node_modules" {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path
                    .strip_prefix(repository())
                    .is_ok_and(|inside| inside.iter().any(|part| part == "src"))
            {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 100, "the source was not found");
    files
}
