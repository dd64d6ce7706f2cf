//! Errors of a tested model.

use std::fmt;

use plugin_abi::RawError;
use plugin_abi::codes::error as code;

/// Error of a load, a batch or an item, as the server would receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kind of the error.
    pub kind: FailureKind,
    /// Message for the client or the operator.
    pub message: String,
    /// The invalid setting, or empty.
    pub key: String,
}

/// Kind of a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The input is invalid. The client is at fault.
    InvalidInput,
    /// The model failed.
    Internal,
    /// Not enough memory for a batch of this size.
    OutOfMemory,
    /// A setting is missing or invalid. The operator is at fault.
    Settings,
    /// The plugin panicked.
    Panic,
    /// The model does not support the request.
    Unsupported,
}

impl Failure {
    pub(super) fn invalid(message: String) -> Self {
        Self {
            kind: FailureKind::InvalidInput,
            message,
            key: String::new(),
        }
    }

    pub(super) fn new(code: u32, message: &str) -> Self {
        let kind = match code {
            code::INVALID_INPUT => FailureKind::InvalidInput,
            code::OUT_OF_MEMORY => FailureKind::OutOfMemory,
            code::SETTINGS => FailureKind::Settings,
            code::PANIC => FailureKind::Panic,
            code::UNSUPPORTED => FailureKind::Unsupported,
            _ => FailureKind::Internal,
        };
        Self {
            kind,
            message: message.to_owned(),
            key: String::new(),
        }
    }
}

impl From<RawError> for Failure {
    fn from(error: RawError) -> Self {
        Self {
            key: error.key.into_string(),
            ..Self::new(error.kind, &error.message)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.kind, self.message)?;
        if self.key.is_empty() {
            Ok(())
        } else {
            write!(formatter, " (setting `{}`)", self.key)
        }
    }
}

impl std::error::Error for Failure {}
