//! Names of crates: the rules of Cargo, and names that cannot be compiled together with the dependencies of a plugin.

use std::path::Path;

use super::ScaffoldError;

/// Maximum length of the name of a crate on crates.io.
const MAX_LENGTH: usize = 64;

/// Keywords of Rust, including those that are reserved for later.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

/// Crates that the example uses, and the library of the test harness.
const DEPENDENCIES: [&str; 8] = [
    "alloc",
    "core",
    "plugin_sdk",
    "proc_macro",
    "schemars",
    "serde",
    "std",
    "test",
];

/// The name of a crate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CrateName(String);

impl CrateName {
    /// The name of a crate in this directory: its last part.
    pub(super) fn of(directory: &Path) -> Result<Self, ScaffoldError> {
        let name = directory.file_name().unwrap_or(directory.as_os_str());
        let name = name.to_string_lossy().into_owned();
        match problem(&name) {
            None => Ok(Self(name)),
            Some(problem) => Err(ScaffoldError::Name { name, problem }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its library.
    pub(super) fn library(&self) -> String {
        library(&self.0)
    }
}

fn library(name: &str) -> String {
    name.replace('-', "_")
}

/// The rule that a name breaks.
fn problem(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(allowed) {
        let expected = "expected a letter, then letters, digits, `-` or `_`, such as `words`";
        return Some(expected.to_owned());
    }
    if name.len() > MAX_LENGTH {
        return Some(format!(
            "expected at most {MAX_LENGTH} characters, got {}",
            name.len()
        ));
    }
    let library = library(name);
    if KEYWORDS.contains(&library.as_str()) {
        return Some(format!("`{library}` is a keyword of Rust"));
    }
    DEPENDENCIES
        .contains(&library.as_str())
        .then(|| format!("`{library}` is the name of a crate that it uses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_part_of_the_path() {
        for (path, library) in [
            ("words", "words"),
            ("a/my-words", "my_words"),
            ("./B2_x/", "B2_x"),
        ] {
            let name = CrateName::of(Path::new(path)).expect(path);
            assert_eq!(name.library(), library);
        }
    }

    #[test]
    fn each_rule_has_its_message() {
        let long = "a".repeat(65);
        for (path, part) in [
            (".", "expected a letter"),
            ("a/..", "expected a letter"),
            ("", "expected a letter"),
            ("2words", "expected a letter"),
            ("-words", "expected a letter"),
            ("wörter", "expected a letter"),
            ("my words", "expected a letter"),
            ("my.words", "expected a letter"),
            (&long, "at most 64 characters, got 65"),
            ("a/match", "`match` is a keyword of Rust"),
            ("gen", "is a keyword"),
            ("plugin-sdk", "`plugin_sdk` is the name of a crate that it uses"),
            ("test", "is the name of a crate"),
        ] {
            let error = CrateName::of(Path::new(path)).expect_err(path).to_string();
            assert!(
                error.starts_with("invalid name ") && error.contains(part),
                "{path}: {error}"
            );
        }
    }
}
