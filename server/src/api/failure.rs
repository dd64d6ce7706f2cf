//! Maps errors to HTTP and gRPC status codes. This is the only place that does.
//!
//! Every protocol takes the code and message of a [`Failure`] and writes them in its own format.

use std::borrow::Cow;
use std::time::Duration;

use crate::byte_budget::BudgetExhausted;
use crate::error::{ItemError, Rejection};
use crate::suggest::nearest;

/// Error codes that clients see, in order of increasing severity. If several items fail, the most severe code
/// determines the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The request is malformed.
    Malformed,
    /// The request has no API key, or an invalid one.
    Unauthorized,
    /// The operation is disabled, or the key does not allow it.
    Forbidden,
    /// The route, model or task does not exist.
    NotFound,
    /// The operation is not possible in the present state, or another request used the same idempotency key.
    Conflict,
    /// There is no result, and there will not be one.
    Gone,
    /// The route exists, but does not support the method.
    MethodNotAllowed,
    /// The client accepts none of the available content encodings.
    NotAcceptable,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body is larger than the limit.
    TooLarge,
    /// The media type or content encoding of the body is not supported.
    UnsupportedMediaType,
    /// The input is not valid for the task.
    InvalidInput,
    /// The model does not support the requested operation.
    Unsupported,
    /// The model does not have a task for the route, in the protocol of text-embeddings-inference.
    UnsuitableModel,
    /// A rate limit of the API key is exceeded.
    RateLimited,
    /// The queue is full.
    QueueFull,
    /// The expected wait exceeds the deadline, or the requests in flight hold as many bytes as they may.
    Overloaded,
    /// The deadline passed.
    DeadlineExceeded,
    /// There is no room left in the store of jobs.
    StorageFull,
    /// The model is loading, failed to load or is unloaded, or the server is shutting down.
    Unavailable,
    /// The model ran out of memory.
    OutOfMemory,
    /// The model or its plugin failed.
    ModelFault,
    /// The server failed.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 23] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Gone,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidInput,
        Self::Unsupported,
        Self::UnsuitableModel,
        Self::RateLimited,
        Self::QueueFull,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::StorageFull,
        Self::Unavailable,
        Self::OutOfMemory,
        Self::ModelFault,
        Self::Internal,
    ];

    /// The name of the code in replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidInput => "invalid_input",
            Self::Unsupported => "unsupported",
            Self::UnsuitableModel => "unsuitable_model",
            Self::RateLimited => "rate_limited",
            Self::QueueFull => "queue_full",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::StorageFull => "storage_full",
            Self::Unavailable => "unavailable",
            Self::OutOfMemory => "out_of_memory",
            Self::ModelFault => "model_fault",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of the code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Gone => 410,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::RequestTimeout => 408,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::InvalidInput | Self::Unsupported => 422,
            Self::UnsuitableModel => 424,
            Self::RateLimited | Self::QueueFull | Self::Overloaded => 429,
            Self::OutOfMemory | Self::ModelFault | Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::StorageFull => 507,
        }
    }

    /// The gRPC status code.
    ///
    /// A full queue is `RESOURCE_EXHAUSTED` and not `UNAVAILABLE`, because clients retry `UNAVAILABLE` automatically
    /// and at once.
    pub fn grpc_status(self) -> i32 {
        match self {
            Self::Malformed
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::UnsupportedMediaType
            | Self::InvalidInput => 3,
            Self::RequestTimeout | Self::DeadlineExceeded => 4,
            Self::NotFound | Self::Gone => 5,
            Self::Conflict => 9,
            Self::Forbidden => 7,
            Self::TooLarge
            | Self::RateLimited
            | Self::QueueFull
            | Self::Overloaded
            | Self::StorageFull
            | Self::OutOfMemory => 8,
            Self::Unsupported => 12,
            Self::UnsuitableModel => 9,
            Self::ModelFault | Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthorized => 16,
        }
    }

    /// The code of a failed item.
    pub fn of_item(error: &ItemError) -> Self {
        match error {
            ItemError::Invalid(_) | ItemError::TooHeavy { .. } => Self::InvalidInput,
            ItemError::Unsupported(_) => Self::Unsupported,
            ItemError::Expired { .. } | ItemError::Infeasible { .. } => Self::DeadlineExceeded,
            ItemError::ShuttingDown | ItemError::Unavailable(_) => Self::Unavailable,
            ItemError::OutOfMemory(_) => Self::OutOfMemory,
            ItemError::Fault(_) => Self::ModelFault,
            ItemError::Lost => Self::Internal,
        }
    }
}

/// An error that fails a whole request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The error code.
    pub code: Code,
    /// What failed, what was found, what was expected, and how to fix it.
    pub message: String,
    /// When the client should retry.
    pub retry_after: Option<Duration>,
    /// The invalid member of the request, for protocols that report it.
    pub param: Option<&'static str>,
    /// What is wrong with the number of items, for protocols that report it.
    pub item_count: Option<ItemCount>,
}

/// An invalid number of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemCount {
    /// There are none.
    Zero,
    /// There are more than allowed.
    TooMany,
}

impl Failure {
    /// Creates a failure without a retry time.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
            param: None,
            item_count: None,
        }
    }

    /// Sets the invalid member of the request.
    #[must_use]
    pub fn with_param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// An unknown model name. The message lists the known names.
    pub fn unknown_model<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::unknown("model", name, "known models", known)
    }

    /// An unknown task name. The message lists the tasks of the model.
    pub fn unknown_task<'a>(model: &str, name: &str, tasks: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::unknown("task", name, &format!("tasks of model `{model}`"), tasks)
    }

    /// A model without a default task, on a route that needs one.
    pub fn no_default_task<'a>(model: &str, tasks: impl Iterator<Item = &'a str>) -> Self {
        let message = format!(
            "model `{model}` has several tasks and no default task; use /v1/models/{model}/tasks/{{task}}/predict with one of: {}",
            tasks.collect::<Vec<_>>().join(", ")
        );
        Self::new(Code::NotFound, message)
    }

    /// The request body did not arrive within `timeout`.
    pub fn body_timeout(timeout: Duration) -> Self {
        let message = format!(
            "the request body did not arrive within {} s",
            timeout.as_secs_f64()
        );
        Self::new(Code::RequestTimeout, message)
    }

    fn unknown<'a>(
        what: &str,
        name: &str,
        known_as: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        let hint = nearest(name, known.clone())
            .map(|near| format!(", did you mean `{near}`?"))
            .unwrap_or_default();
        let known: Vec<&str> = known.collect();
        let known = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let name = excerpt(name);
        Self::new(
            Code::NotFound,
            format!("unknown {what} `{name}`{hint}; {known_as}: {known}"),
        )
    }

    /// The message for clients, truncated to [`MAX_MESSAGE`] bytes. The limit exists because messages quote client
    /// input, a reply can contain one per item, and gRPC sends them in a header.
    pub fn client_message(&self) -> Cow<'_, str> {
        shorten(&self.message, MAX_MESSAGE)
    }

    /// The same failure with a message of at most `length` bytes, or an ellipsis alone.
    pub fn shortened(&self, length: usize) -> Self {
        Self {
            message: shorten(&self.message, length).into_owned(),
            ..self.clone()
        }
    }

    /// The value of the `Retry-After` header: whole seconds, at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            .map(|seconds| seconds.max(1))
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.to_string();
        let (code, retry_after) = match rejection {
            Rejection::QueueFull { retry_after, .. } | Rejection::QueueTooHeavy { retry_after, .. } => {
                (Code::QueueFull, Some(retry_after))
            }
            Rejection::Overloaded { retry_after, .. } => (Code::Overloaded, Some(retry_after)),
            Rejection::TooManyItems { .. } => (Code::Malformed, None),
            Rejection::Expired(_) => (Code::DeadlineExceeded, None),
            Rejection::ShuttingDown => (Code::Unavailable, Some(Duration::from_secs(1))),
        };
        let too_many = matches!(rejection, Rejection::TooManyItems { .. });
        Self {
            retry_after,
            item_count: too_many.then_some(ItemCount::TooMany),
            ..Self::new(code, message)
        }
    }
}

impl From<BudgetExhausted> for Failure {
    fn from(exhausted: BudgetExhausted) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Code::Overloaded, exhausted.to_string())
        }
    }
}

impl From<&ItemError> for Failure {
    fn from(error: &ItemError) -> Self {
        Self::new(Code::of_item(error), error.to_string())
    }
}

/// Truncates `text` to `length` bytes, the last of which are an ellipsis.
fn shorten(text: &str, length: usize) -> Cow<'_, str> {
    if text.len() <= length {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(length.saturating_sub("…".len()));
    Cow::Owned(format!("{}…", &text[..end]))
}

/// Maximum length of an error message in a reply, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// Truncates client input of any length to quote it in a message.
pub(super) fn excerpt(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests;
