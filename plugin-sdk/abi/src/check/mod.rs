//! Rules for what plugins declare, and for whether their outputs match it.
//!
//! The server applies them when it loads a model and receives outputs, the test harness of the SDK applies them in tests, and
//! the commands `inspect` and `check` report them, so all of them agree. All functions are pure.

mod conformance;
mod declarations;
mod media_types;

pub use conformance::{output, output_rows};
pub use declarations::{cut_text, model, plugin};
pub use media_types::{accepts_media_type, media_type_matches, registered_media_type};

use std::fmt;

use serde::Serialize;

/// Severity of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The server rejects the plugin, or clients get wrong documentation.
    Error,
    /// The server accepts the plugin, but the declaration is probably a mistake.
    Warning,
}

/// A problem in the declarations of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Severity.
    pub severity: Severity,
    /// The affected task, or `None` if the whole plugin is affected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What was found, what was expected and how to fix it. Includes the name of the task.
    pub message: String,
}

impl Finding {
    /// Creates an error about `task`, or about the whole plugin.
    pub fn error(task: Option<&str>, message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Error,
            task: task.map(str::to_owned),
            message: message.to_string(),
        }
    }

    /// Creates a warning about `task`, or about the whole plugin.
    pub fn warning(task: Option<&str>, message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(task, message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests;
