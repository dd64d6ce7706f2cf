//! What is wrong with a configuration, where it is written and what to do about it.
//!
//! The one error type of this boundary. A `ConfigError` is a block of text for the operator: a line that starts with the
//! place, the line of the file that is meant, and a hint. It does not know which rule was broken; whoever found the
//! fault has put that into words. The quoted line of the file is for the log and the terminal, never for a client.

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

/// Where a value comes from. The order is the one in which errors are reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Written in the configuration file.
    File(Location),
    /// Taken from the environment variable of this name.
    Environment(String),
    /// Given on the command line by this flag, such as `--port`.
    Flag(&'static str),
    /// Nobody wrote it.
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

/// One fault in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the faulty value is written.
    pub origin: Origin,
    /// What was got and what was expected.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line of the file that is meant, with a mark under the place.
    pub excerpt: Option<String>,
}

impl ConfigError {
    /// An error at `origin`, without a quotation from the file.
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

/// Something legal that the operator probably did not mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where it is written.
    pub origin: Origin,
    /// What is odd about it.
    pub message: String,
    /// What to do about it.
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

/// Everything that is wrong with a configuration, reported at once: the faults of the file in its order, then those of
/// the environment and of the command line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// The errors in the order of a reader, or `None` if there are none.
    pub fn collect(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        (!errors.is_empty()).then_some(Self { errors })
    }

    /// Each error.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
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
