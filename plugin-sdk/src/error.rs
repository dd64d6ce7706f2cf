//! Errors that plugin authors return, for an item, a batch or a load.

use std::error::Error;
use std::fmt::{self, Display};

use abi_stable::std_types::RString;
use plugin_abi::RawError;
use plugin_abi::codes::error as code;

/// Error of one item. The other items of its batch are not affected.
///
/// It deliberately does not implement [`std::error::Error`]: applying `?` to it in `predict` would fail the whole batch because
/// of one client's mistake. Collect `Result<_, ItemError>` into [`Outputs`](crate::Outputs) instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError {
    /// The input does not match the task's input type. The client is at fault.
    Invalid(String),
    /// The model failed on this item.
    Fault(String),
    /// The model does not support the request.
    Unsupported(String),
}

impl ItemError {
    /// The input is invalid. The message should tell the client what was expected.
    pub fn invalid(message: impl Display) -> Self {
        Self::Invalid(message.to_string())
    }

    /// The model failed on this item, and the client is not at fault.
    pub fn fault(message: impl Display) -> Self {
        Self::Fault(message.to_string())
    }

    /// The model does not support the request.
    pub fn unsupported(message: impl Display) -> Self {
        Self::Unsupported(message.to_string())
    }

    /// Returns the message for the client.
    pub fn message(&self) -> &str {
        let (Self::Invalid(message) | Self::Fault(message) | Self::Unsupported(message)) = self;
        message
    }

    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Invalid(_) => code::INVALID_INPUT,
            Self::Fault(_) => code::INTERNAL,
            Self::Unsupported(_) => code::UNSUPPORTED,
        }
    }
}

impl Display for ItemError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.message())
    }
}

/// Error of a whole batch.
///
/// `?` converts any [`std::error::Error`] into [`BatchError::Failed`], including its chain of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// Not enough memory for a batch of this size. The server retries with smaller batches and remembers the size.
    OutOfMemory(String),
    /// The model failed.
    Failed(String),
}

impl BatchError {
    /// The model failed.
    pub fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string())
    }

    /// Not enough memory for a batch of this size.
    pub fn out_of_memory(message: impl Display) -> Self {
        Self::OutOfMemory(message.to_string())
    }
}

impl<E: Error> From<E> for BatchError {
    fn from(error: E) -> Self {
        Self::Failed(chain(&error))
    }
}

impl Display for BatchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory(message) => write!(formatter, "out of memory: {message}"),
            Self::Failed(message) => formatter.write_str(message),
        }
    }
}

/// Error of loading a model.
///
/// `?` converts any [`std::error::Error`] into it, including its chain of sources. If a setting is invalid, name it with
/// [`LoadError::setting`] or [`LoadError::at`], so that the message points the operator to the line in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    message: String,
    key: Option<String>,
}

impl LoadError {
    /// Creates an error that is not caused by a setting.
    pub fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            key: None,
        }
    }

    /// Creates an error for a missing or invalid setting with the dotted path `key`, such as `image.size`.
    pub fn setting(key: impl Display, message: impl Display) -> Self {
        Self::new(message).at(key)
    }

    /// Attributes the error to the setting with the dotted path `key`.
    #[must_use]
    pub fn at(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Returns the message, without the key.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the dotted path of the invalid setting.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl<E: Error> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::new(chain(&error))
    }
}

impl Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(formatter, "setting `{key}`: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}

/// Joins the messages of an error and its sources: `open weights: no such file`.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

pub(crate) fn raw_error(kind: u32, message: String, key: String) -> RawError {
    RawError {
        kind,
        reserved: 0,
        message: RString::from(message),
        key: RString::from(key),
    }
}

pub(crate) fn raw_panic(message: String) -> RawError {
    raw_error(code::PANIC, message, String::new())
}

impl From<ItemError> for RawError {
    fn from(error: ItemError) -> Self {
        let kind = error.code();
        let (ItemError::Invalid(message) | ItemError::Fault(message) | ItemError::Unsupported(message)) =
            error;
        raw_error(kind, message, String::new())
    }
}

impl From<BatchError> for RawError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::OutOfMemory(message) => raw_error(code::OUT_OF_MEMORY, message, String::new()),
            BatchError::Failed(message) => raw_error(code::INTERNAL, message, String::new()),
        }
    }
}

impl From<LoadError> for RawError {
    fn from(error: LoadError) -> Self {
        let kind = if error.key.is_some() {
            code::SETTINGS
        } else {
            code::INTERNAL
        };
        raw_error(kind, error.message, error.key.unwrap_or_default())
    }
}
