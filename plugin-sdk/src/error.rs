//! Why an item, a batch or a load failed, as authors of plugins say it.

use std::error::Error;
use std::fmt::{self, Display};

use abi_stable::std_types::RString;
use plugin_abi::RawError;
use plugin_abi::codes::error as code;

/// Why one item failed. The other items of its batch are not affected.
///
/// It is deliberately not a [`std::error::Error`]: `?` on it in `predict` would turn one client's mistake into the failure
/// of everybody's batch. Collect `Result<_, ItemError>` into [`Outputs`](crate::Outputs) instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError {
    /// The input is not what the task takes: the client's fault.
    Invalid(String),
    /// The model failed on this item.
    Fault(String),
    /// The request asks for what this model cannot do.
    Unsupported(String),
}

impl ItemError {
    /// The input is not what the task takes; the message tells the client what was expected.
    pub fn invalid(message: impl Display) -> Self {
        Self::Invalid(message.to_string())
    }

    /// The model failed on this item, and the client can do nothing about it.
    pub fn fault(message: impl Display) -> Self {
        Self::Fault(message.to_string())
    }

    /// The request asks for what this model cannot do.
    pub fn unsupported(message: impl Display) -> Self {
        Self::Unsupported(message.to_string())
    }

    /// What is told to the client.
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

/// Why a whole batch failed.
///
/// Every [`std::error::Error`] turns into [`BatchError::Failed`] with `?`, its chain of sources included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// Not enough memory for a batch of this size. The server tries again with smaller batches, and remembers.
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

/// Why a model did not load.
///
/// Every [`std::error::Error`] turns into one with `?`, its chain of sources included. Where a setting is to blame, name
/// it with [`LoadError::setting`] or [`LoadError::at`]: the operator is then shown the line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    message: String,
    key: Option<String>,
}

impl LoadError {
    /// The model cannot be loaded, and no setting is to blame.
    pub fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            key: None,
        }
    }

    /// The setting at the dotted path `key` (`image.size`) is missing or wrong.
    pub fn setting(key: impl Display, message: impl Display) -> Self {
        Self::new(message).at(key)
    }

    /// Blames the setting at the dotted path `key`.
    #[must_use]
    pub fn at(mut self, key: impl Display) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// What went wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Dotted path of the setting to blame.
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

/// The messages of an error and its sources, joined: `open weights: no such file`.
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
