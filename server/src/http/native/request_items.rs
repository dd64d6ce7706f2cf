//! Reads the body of a native request as items, according to its content type and the manifest of the task.
//!
//! JSON is accepted with a JSON content type, without a content type, and with the form content type that `curl -d`
//! sends by default.

use bytes::Bytes;
use plugin_abi::check::accepts_media_type;
use plugin_abi::manifest::{Kind, TaskManifest};

pub use super::envelope::Form;
use super::envelope::{check_utf8, split};
pub use crate::api::BodyLimits;
use crate::api::{Code, Failure, ItemCount};
use crate::codec::media_types::essence;
use crate::codec::read_item;
use crate::error::ItemError;
use crate::values::{ItemInput, Value};

/// A request that is ready to be queued.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// The form of the request and the reply.
    pub form: Form,
    /// The items in order. An invalid item does not fail the others.
    pub items: Vec<Result<ItemInput, ItemError>>,
}

/// Why a body is not a valid request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There are no items.
    #[error("`{member}` has no items; expected at least one")]
    Empty {
        /// Name of the member with the items.
        member: &'static str,
    },
    /// The body is not JSON, or not the expected JSON.
    #[error("malformed request body: {message}")]
    Malformed {
        /// The error, with line and column.
        message: String,
    },
    /// The body is not UTF-8.
    #[error("the request body is not UTF-8: invalid byte at offset {offset}")]
    NotUtf8 {
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("the request body is nested too deeply at offset {offset}: expected at most {limit} levels")]
    TooDeep {
        /// Offset where the limit is exceeded.
        offset: usize,
        /// Maximum number of levels.
        limit: usize,
    },
    /// There are too many items.
    #[error("`{member}` has too many items: expected at most {limit} per request")]
    TooManyItems {
        /// Name of the member with the items.
        member: &'static str,
        /// Maximum number of items.
        limit: usize,
    },
    /// The member with the items is missing.
    #[error("missing member {expected}")]
    Missing {
        /// The expected members.
        expected: &'static str,
    },
    /// A member appears twice.
    #[error("duplicate member `{member}`")]
    Duplicate {
        /// Name of the member.
        member: String,
    },
    /// Both `inputs` and `input` are present.
    #[error("both `inputs` and `input` are present; send one of them")]
    Both,
    /// A member is unknown.
    #[error("unknown member `{member}`{hint}; expected one of {expected}")]
    UnknownMember {
        /// Name of the member.
        member: String,
        /// A suggestion, as a phrase; may be empty.
        hint: String,
        /// All known members.
        expected: String,
    },
    /// The task takes no parameters.
    #[error("task `{task}` takes no parameters")]
    NoParameters {
        /// Name of the task.
        task: String,
    },
    /// The task does not accept the media type or the charset.
    #[error("unsupported media type `{got}`: task `{task}` accepts {accepted}")]
    UnsupportedMediaType {
        /// The content type of the request.
        got: String,
        /// Name of the task.
        task: String,
        /// The accepted media types.
        accepted: String,
    },
    /// The form content type, which some tools send by default, with a body that is not JSON.
    #[error(
        "unsupported media type `application/x-www-form-urlencoded`: task `{task}` accepts {accepted}; set the header \
    `content-type` (`curl -d` sends the form type by default)"
    )]
    Form {
        /// Name of the task.
        task: String,
        /// The accepted media types.
        accepted: String,
    },
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::UnsupportedMediaType { .. } | RequestError::Form { .. } => {
                Code::UnsupportedMediaType
            }
            _ => Code::Malformed,
        };
        let item_count = match error {
            RequestError::Empty { .. } => Some(ItemCount::Zero),
            RequestError::TooManyItems { .. } => Some(ItemCount::TooMany),
            _ => None,
        };
        Self {
            item_count,
            ..Self::new(code, error.to_string())
        }
    }
}

/// Reads a body as a request to `task`.
///
/// # Errors
/// If the body is not a request, or the task does not accept its content type.
pub fn read_body(
    body: &Bytes,
    content_type: Option<&str>,
    task: &TaskManifest,
    limits: BodyLimits,
) -> Result<Body, RequestError> {
    let content_type = content_type.unwrap_or_default().trim();
    let essence = essence(content_type);
    let is_form = essence == FORM;
    let is_json = essence.is_empty() || is_json(&essence) || is_form && looks_like_json(body);
    if is_json {
        return read_json(body, task, limits);
    }
    let unsupported = || RequestError::UnsupportedMediaType {
        got: content_type.to_owned(),
        task: task.name.clone(),
        accepted: accepted_media_types(task).join(", "),
    };
    let kinds = &task.input.kinds;
    let value = if essence == "text/plain" && kinds.contains(&Kind::Text) {
        if !is_utf8_charset(content_type) {
            return Err(unsupported());
        }
        check_utf8(body)?;
        Value::Text(body.clone())
    } else if kinds.contains(&Kind::Bytes)
        && (essence == "application/octet-stream" || accepts_media_type(&task.input, &essence))
    {
        Value::Bytes {
            data: body.clone(),
            media_type: essence,
        }
    } else if is_form {
        return Err(RequestError::Form {
            task: task.name.clone(),
            accepted: accepted_media_types(task).join(", "),
        });
    } else {
        return Err(unsupported());
    };
    Ok(Body {
        form: Form::Single,
        items: vec![Ok(ItemInput {
            value,
            parameters: Bytes::new(),
        })],
    })
}

/// Lists the media types of bodies that a task accepts, for errors and the documentation.
pub fn accepted_media_types(task: &TaskManifest) -> Vec<&str> {
    let mut accepted = vec!["application/json"];
    if task.input.kinds.contains(&Kind::Text) {
        accepted.push("text/plain");
    }
    if task.input.kinds.contains(&Kind::Bytes) {
        accepted.push("application/octet-stream");
        match task.input.media_types.as_slice() {
            [] => accepted.push("*/*"),
            some => accepted.extend(some.iter().map(String::as_str)),
        }
    }
    accepted
}

/// The default content type of `curl -d` and HTML forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// Whether a body with the form content type is probably JSON: it starts like an object, as all requests do, or is
/// empty.
fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), None | Some(b'{'))
}

fn is_json(essence: &str) -> bool {
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn is_utf8_charset(content_type: &str) -> bool {
    content_type.split(';').skip(1).all(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return true;
        };
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || ["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|known| value.eq_ignore_ascii_case(known))
    })
}

fn read_json(body: &Bytes, task: &TaskManifest, limits: BodyLimits) -> Result<Body, RequestError> {
    let split = split(body, limits)?;
    let parameters = match split.parameters {
        None => Bytes::new(),
        Some(text) if is_empty_object(text) => Bytes::new(),
        Some(_) if task.parameters_schema.is_null() => {
            return Err(RequestError::NoParameters {
                task: task.name.clone(),
            });
        }
        Some(text) => body.slice_ref(text.as_bytes()),
    };
    let items = split
        .items
        .into_iter()
        .map(|text| {
            let value = read_item(body, text, task)?;
            Ok(ItemInput {
                value,
                parameters: parameters.clone(),
            })
        })
        .collect();
    Ok(Body {
        form: split.form,
        items,
    })
}

/// Whether a JSON object has no members.
fn is_empty_object(text: &str) -> bool {
    text.strip_prefix('{')
        .is_some_and(|rest| rest.trim_ascii_start() == "}")
}

#[cfg(test)]
mod tests;
