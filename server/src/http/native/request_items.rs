//! Reads the body of a native request as items, by its content type and by what its task takes.
//!
//! JSON may come as JSON, without a content type, or as the form that `curl -d` claims to send.
//!
//! Knows nothing of sockets or of engines; what a task takes comes in as its manifest.

use bytes::Bytes;
use plugin_abi::check::accepts_media_type;
use plugin_abi::manifest::{Kind, TaskManifest};

pub use super::envelope::Form;
use super::envelope::{check_utf8, split};
pub use crate::api::BodyLimits;
use crate::api::{Code, Failure};
use crate::codec::media_types::essence;
use crate::codec::read_item;
use crate::error::ItemError;
use crate::values::{ItemInput, Value};

/// A request, ready for the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// How to answer.
    pub form: Form,
    /// The items in their order; what could not be read fails alone.
    pub items: Vec<Result<ItemInput, ItemError>>,
}

/// Why a body is no request at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not one item.
    #[error("`{member}` has no items; expected at least one")]
    Empty {
        /// The member that lists them.
        member: &'static str,
    },
    /// Not JSON, or not the JSON that is wanted.
    #[error("malformed request body: {message}")]
    Malformed {
        /// What is wrong, with line and column.
        message: String,
    },
    /// Text that is no text.
    #[error("the request body is not valid UTF-8: invalid byte at offset {offset}")]
    NotUtf8 {
        /// Of the first bad byte.
        offset: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("the request body is nested too deeply at offset {offset}: at most {limit} levels are allowed")]
    TooDeep {
        /// Where the limit is passed.
        offset: usize,
        /// Most levels.
        limit: usize,
    },
    /// More items than a request may have.
    #[error("`{member}` has more than {limit} items, the maximum for one request")]
    TooManyItems {
        /// The member that lists them.
        member: &'static str,
        /// Most items.
        limit: usize,
    },
    /// The member with the items is absent.
    #[error("missing member {expected}")]
    Missing {
        /// What would do.
        expected: &'static str,
    },
    /// The same member twice.
    #[error("member `{member}` is given twice")]
    Duplicate {
        /// Its name.
        member: String,
    },
    /// Both `inputs` and `input`.
    #[error("`inputs` and `input` are both given; send one of them")]
    Both,
    /// A member that means nothing here.
    #[error("unknown member `{member}`{hint}; known members: {known}")]
    UnknownMember {
        /// Its name.
        member: String,
        /// The name that may be meant, as a phrase; may be empty.
        hint: String,
        /// All names.
        known: String,
    },
    /// Parameters for a task that has none.
    #[error("task `{task}` takes no parameters")]
    NoParameters {
        /// Name of the task.
        task: String,
    },
    /// A media type or charset that the task does not take.
    #[error("unsupported media type `{got}`; task `{task}` accepts {accepted}")]
    UnsupportedMediaType {
        /// What the client said.
        got: String,
        /// Name of the task.
        task: String,
        /// What would do.
        accepted: String,
    },
    /// The type of a form, which tools send unless they are told otherwise, and a body that is not JSON.
    #[error(
        "unsupported media type `application/x-www-form-urlencoded`, the default of `curl -d`, for a body that is not a \
         JSON object; task `{task}` accepts {accepted}: set the header `content-type`"
    )]
    Form {
        /// Name of the task.
        task: String,
        /// What would do.
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
        Self::new(code, error.to_string())
    }
}

/// Reads a body of the given content type as a request to `task`.
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

/// The media types of the bodies that a task takes, as they stand in an error or in the documentation.
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

/// What `curl -d` and HTML forms send unless they are told otherwise.
const FORM: &str = "application/x-www-form-urlencoded";

/// Whether a body of no trustworthy type is meant as JSON: an object, as all requests are, or nothing.
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

/// Whether JSON that is known to be an object has no members.
fn is_empty_object(text: &str) -> bool {
    text.strip_prefix('{')
        .is_some_and(|rest| rest.trim_ascii_start() == "}")
}

#[cfg(test)]
mod tests;
