//! The one place where errors become status codes, of HTTP and of gRPC.
//!
//! Every protocol takes the code and the message from here and writes them in its own shape.

use std::borrow::Cow;
use std::time::Duration;

use crate::error::{ItemError, Rejection};
use crate::suggest::nearest;

/// What went wrong, as clients can tell it apart. The order is that of severity: of several failed items, the greatest
/// decides the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The request does not say what it should.
    Malformed,
    /// The request brings no key, or a wrong one.
    Unauthorized,
    /// The operator has not switched on what the request asks for.
    Forbidden,
    /// No such route, model or task.
    NotFound,
    /// The route is there, the method is not.
    MethodNotAllowed,
    /// The client takes none of the content encodings that there are.
    NotAcceptable,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The body is larger than the limit.
    TooLarge,
    /// A media type or content encoding that is not taken.
    UnsupportedMediaType,
    /// The model cannot take an input.
    InvalidInput,
    /// The model cannot do what the request asks for.
    Unsupported,
    /// The queue is full.
    QueueFull,
    /// The deadline passed.
    DeadlineExceeded,
    /// The model is not loaded yet, failed to load, or is being unloaded; or the server stops.
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
    pub const ALL: [Self; 17] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidInput,
        Self::Unsupported,
        Self::QueueFull,
        Self::DeadlineExceeded,
        Self::Unavailable,
        Self::OutOfMemory,
        Self::ModelFault,
        Self::Internal,
    ];

    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidInput => "invalid_input",
            Self::Unsupported => "unsupported",
            Self::QueueFull => "queue_full",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable => "unavailable",
            Self::OutOfMemory => "out_of_memory",
            Self::ModelFault => "model_fault",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status of an answer with this code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::RequestTimeout => 408,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::InvalidInput | Self::Unsupported => 422,
            Self::QueueFull => 429,
            Self::OutOfMemory | Self::ModelFault | Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// The number of the gRPC status of an answer with this code.
    ///
    /// A full queue is not `UNAVAILABLE`: clients retry that at once and on their own.
    pub fn grpc_status(self) -> i32 {
        match self {
            Self::Malformed
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::UnsupportedMediaType
            | Self::InvalidInput => 3,
            Self::RequestTimeout | Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::Forbidden => 7,
            Self::TooLarge | Self::QueueFull | Self::OutOfMemory => 8,
            Self::Unsupported => 12,
            Self::ModelFault | Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthorized => 16,
        }
    }

    /// The code of a failed item.
    pub fn of_item(error: &ItemError) -> Self {
        match error {
            ItemError::Invalid(_) => Self::InvalidInput,
            ItemError::Unsupported(_) => Self::Unsupported,
            ItemError::Expired { .. } => Self::DeadlineExceeded,
            ItemError::ShuttingDown | ItemError::Unavailable(_) => Self::Unavailable,
            ItemError::OutOfMemory(_) => Self::OutOfMemory,
            ItemError::Fault(_) => Self::ModelFault,
            ItemError::Lost => Self::Internal,
        }
    }
}

/// A request that is answered by an error alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind it is.
    pub code: Code,
    /// What, where, got, expected, hint.
    pub message: String,
    /// When it is worth coming back.
    pub retry_after: Option<Duration>,
    /// The member of the request that is at fault, for protocols that name it.
    pub param: Option<&'static str>,
}

impl Failure {
    /// A failure that says no time to come back.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
            param: None,
        }
    }

    /// The same, blaming a member of the request.
    #[must_use]
    pub fn about(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// No model of this name; says which there are.
    pub fn unknown_model<'a>(name: &str, loaded: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::unknown("model", name, "loaded", loaded)
    }

    /// No task of this name; says which there are.
    pub fn unknown_task<'a>(model: &str, name: &str, tasks: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self::unknown("task", name, &format!("tasks of model `{model}`"), tasks)
    }

    /// A route that needs a default task on a model that has none.
    pub fn no_default_task<'a>(model: &str, tasks: impl Iterator<Item = &'a str>) -> Self {
        let message = format!(
            "model `{model}` has several tasks and no default; use /v1/models/{model}/tasks/{{task}}/predict with one of: {}",
            tasks.collect::<Vec<_>>().join(", ")
        );
        Self::new(Code::NotFound, message)
    }

    /// The body of a request was not there in time.
    pub fn late_body(timeout: Duration) -> Self {
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
        let name = cut(name);
        Self::new(
            Code::NotFound,
            format!("unknown {what} `{name}`{hint}; {known_as}: {known}"),
        )
    }

    /// The message as clients get it: at most [`MAX_MESSAGE`] bytes. Messages quote what clients sent, and a reply can
    /// carry one for each item; gRPC sends them in a header.
    pub fn client_message(&self) -> Cow<'_, str> {
        if self.message.len() <= MAX_MESSAGE {
            return Cow::Borrowed(&self.message);
        }
        let end = self.message.floor_char_boundary(MAX_MESSAGE - "…".len());
        Cow::Owned(format!("{}…", &self.message[..end]))
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
            Rejection::TooManyItems { .. } => (Code::Malformed, None),
            Rejection::Expired(_) => (Code::DeadlineExceeded, None),
            Rejection::ShuttingDown => (Code::Unavailable, Some(Duration::from_secs(1))),
        };
        Self {
            retry_after,
            ..Self::new(code, message)
        }
    }
}

impl From<&ItemError> for Failure {
    fn from(error: &ItemError) -> Self {
        Self::new(Code::of_item(error), error.to_string())
    }
}

/// Maximum length of a message that clients get, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// The beginning of a client's own text, which may be of any length, to be quoted in a message.
pub(super) fn cut(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests;
