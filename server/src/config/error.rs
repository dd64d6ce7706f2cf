//! Errors and warnings of the configuration: what is wrong, where it is written, and how to fix it.
//!
//! A [`ConfigError`] is a block of text for the operator: a line that starts with the place, the quoted line of the file, and
//! a hint. It does not distinguish kinds of errors: the code that finds one words it. The quoted line is for the log and the
//! terminal, and must never be sent to a client.

use std::fmt;
use std::sync::Arc;

/// A place in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Name of the file, as the operator gave it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Where a value comes from. Errors are reported in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Written in the configuration file.
    File(Location),
    /// Taken from the environment variable of this name.
    Environment(String),
    /// Given on the command line by this flag, such as `--port`.
    Flag(&'static str),
    /// A built-in default, or one that a plugin declares.
    BuiltIn,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(location) => location.fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "command line {flag}"),
            Self::BuiltIn => f.write_str("built-in default"),
        }
    }
}

/// One error in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the invalid value is written.
    pub origin: Origin,
    /// What failed, what was found, and what was expected.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
    /// The line of the file, with a mark under the invalid part.
    pub excerpt: Option<String>,
}

impl ConfigError {
    /// An error at `origin`, without an excerpt of the file.
    pub fn new(origin: Origin, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            origin,
            message: message.into(),
            hint,
            excerpt: None,
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_block(
            f,
            &self.origin,
            &self.message,
            self.excerpt.as_deref(),
            self.hint.as_deref(),
        )
    }
}

/// A valid setting that the operator probably did not intend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where it is written.
    pub origin: Origin,
    /// Why it is probably a mistake.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_block(f, &self.origin, &self.message, None, self.hint.as_deref())
    }
}

fn write_block(
    f: &mut fmt::Formatter<'_>,
    origin: &Origin,
    message: &str,
    excerpt: Option<&str>,
    hint: Option<&str>,
) -> fmt::Result {
    write!(f, "{origin}: {message}")?;
    if let Some(excerpt) = excerpt {
        write!(f, "\n{excerpt}")?;
    }
    if let Some(hint) = hint {
        write!(f, "\n    hint: {hint}")?;
    }
    Ok(())
}

/// All errors of a configuration: those of the file in its order, then those of the environment and of the command line.
/// Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Sorts the errors by origin. `None` if there are none.
    pub fn collect(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        (!errors.is_empty()).then_some(Self { errors })
    }

    /// The errors, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error] }
    }
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// A list such as `a`, `b` or `c`.
pub(super) fn alternatives<'a>(names: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
    }
}
