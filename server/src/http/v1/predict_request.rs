//! Reads a predict request: rows (`instances`) or columns (`inputs`).
//!
//! A row is one item. Columns are tensors with a batch dimension, as in the Open Inference Protocol, and
//! [`crate::api::tensors`] converts them to items. The columns of an unbatched task are the tensors of one item.

use std::borrow::Cow;

use bytes::Bytes;
use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::tensors::{self, BYTES, InputTensor, JSON, MediaTypes, TEXT};
use crate::api::{BodyLimits, Code, Failure};
use crate::codec::bounded_json::elements;
use crate::codec::{JsonForm, b64_object, members, read_elements, read_item, read_tensor};
use crate::error::ItemError;
use crate::http::native::envelope::{check_depth, check_utf8};
use crate::http::native::request_items::RequestError;
use crate::json::{self, Object};
use crate::values::{DType, ItemInput, Value};

/// The form of a request, which determines the form of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `instances`; the reply has `predictions`.
    Rows,
    /// `inputs`; the reply has `outputs`.
    Columns,
}

/// A request whose task is not known yet.
#[derive(Debug)]
pub struct PredictRequest<'a> {
    /// The requested signature: the name of a task, or the default signature.
    pub signature: Option<String>,
    /// The form of the request.
    pub form: Form,
    data: &'a str,
    parameters: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestJson<'a> {
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    signature_name: Option<String>,
}

/// Reads the members of a request.
///
/// # Errors
/// If the body is not a request of this protocol.
pub fn read_request(body: &[u8], limits: BodyLimits) -> Result<PredictRequest<'_>, Failure> {
    let text = check_utf8(body)?;
    check_depth(body, limits.depth)?;
    let Object(request) = json::from_str::<Object<RequestJson<'_>>>(text)
        .map_err(|error| malformed(format!("malformed request body: {error}")))?;
    let (form, data) = match (request.instances, request.inputs) {
        (Some(rows), None) => (Form::Rows, rows),
        (None, Some(columns)) => (Form::Columns, columns),
        (Some(_), Some(_)) => {
            return Err(malformed(
                "both `instances` and `inputs` are present; send one of them",
            ));
        }
        (None, None) => {
            return Err(malformed(
                "missing member `instances` (rows) or `inputs` (columns)",
            ));
        }
    };
    let parameters = request.parameters.map(RawValue::get);
    if let Some(other) = parameters
        .map(JsonForm::of)
        .filter(|form| *form != JsonForm::Object)
    {
        return Err(malformed(format!(
            "`parameters`: expected an object, got {}",
            other.name()
        )));
    }
    Ok(PredictRequest {
        signature: request.signature_name,
        form,
        data: data.get(),
        parameters,
    })
}

/// The items of a request. An invalid item does not fail the others.
pub type Items = Vec<Result<ItemInput, ItemError>>;

impl PredictRequest<'_> {
    /// Reads the items for `task`. `body` is the body that the request was read from.
    ///
    /// # Errors
    /// If the request has no items, too many items, or tensors that do not match the task.
    pub fn items(&self, body: &Bytes, task: &TaskManifest, limits: BodyLimits) -> Result<Items, Failure> {
        let parameters = match self.parameters {
            None | Some("{}") => Bytes::new(),
            Some(_) if task.parameters_schema.is_null() => {
                let task = task.name.clone();
                return Err(RequestError::NoParameters { task }.into());
            }
            Some(text) => body.slice_ref(text.as_bytes()),
        };
        let reader = Reader {
            body,
            task,
            parameters,
            limits,
        };
        match self.form {
            Form::Rows => reader.rows("instances", self.data),
            Form::Columns => reader.columns(self.data),
        }
    }
}

struct Reader<'a> {
    body: &'a Bytes,
    task: &'a TaskManifest,
    parameters: Bytes,
    limits: BodyLimits,
}

impl Reader<'_> {
    fn rows(&self, member: &'static str, text: &str) -> Result<Items, Failure> {
        let form = JsonForm::of(text);
        if form != JsonForm::Array {
            let got = form.name();
            return Err(malformed(format!("`{member}`: expected an array, got {got}")));
        }
        let limit = self.limits.items;
        let rows = elements(text, limit).ok_or(RequestError::TooManyItems { member, limit })?;
        if rows.is_empty() {
            return Err(RequestError::Empty { member }.into());
        }
        let item = |text: &str| {
            Ok(ItemInput {
                value: read_row(self.body, text, self.task)?,
                parameters: self.parameters.clone(),
            })
        };
        Ok(rows.into_iter().map(item).collect())
    }

    fn columns(&self, text: &str) -> Result<Items, Failure> {
        let columns = self.named(text)?;
        if let [(name, column)] = columns.as_slice()
            && self.is_list_of_items(name)
        {
            let items = self.rows("inputs", column)?;
            if self.task.unbatched && items.len() > 1 {
                return Err(malformed(format!(
                    "`inputs` has {} items, but the task takes one per request; send several items as `instances`",
                    items.len()
                )));
            }
            return Ok(items);
        }
        let inputs = columns.iter().map(|(name, text)| self.column(name, text));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        Ok(tensors::items_from_tensors(
            self.task,
            inputs,
            &self.parameters,
            self.limits,
        )?)
    }

    /// Returns the columns with their names. The name of an only column is optional.
    fn named<'t>(&self, text: &'t str) -> Result<Vec<(Cow<'t, str>, &'t str)>, Failure> {
        if JsonForm::of(text) == JsonForm::Object && b64_object(text).is_none() {
            return members(text).map_err(|error| malformed(format!("`inputs`: {error}")));
        }
        match tensors::inputs(self.task).as_slice() {
            [only] if !only.sequence => Ok(vec![(only.name.to_owned().into(), text)]),
            several => Err(malformed(format!(
                "`inputs`: expected an object with {}, got {}",
                tensors::list_names(several),
                JsonForm::of(text).name()
            ))),
        }
    }

    /// Whether a column is the list of items of a task that takes text, bytes or JSON.
    fn is_list_of_items(&self, name: &str) -> bool {
        let input = &self.task.input;
        input.find_tensor(name).is_none()
            && [(TEXT, Kind::Text), (BYTES, Kind::Bytes), (JSON, Kind::Json)]
                .iter()
                .any(|(known, kind)| *known == name && input.kinds.contains(kind))
    }

    /// Returns the maximum number of elements of a column; `None` if items can have any size.
    fn max_elements(&self, name: &str) -> Option<u64> {
        tensors::max_elements(self.task, name, &[], self.limits)
            .ok()
            .flatten()
    }

    fn column(&self, name: &str, text: &str) -> Result<InputTensor, Failure> {
        let input = &self.task.input;
        let declared = input.find_tensor(name).map(|(index, _)| &input.tensors[index]);
        if let Some(declared) = declared.filter(|_| self.task.unbatched) {
            return unbatched_input(name, text, declared);
        }
        let dtype = declared.and_then(|tensor| DType::from_name(&tensor.dtype));
        let (dtype, (data, shape)) = match dtype {
            Some(dtype) => {
                let read = read_elements(text, dtype, self.max_elements(name))
                    .map_err(|problem| malformed(format!("input `{name}`: {problem}")))?;
                (dtype, read)
            }
            // `items_from_tensors` rejects the unknown name.
            None => (DType::Bytes, (Bytes::new(), vec![0])),
        };
        Ok(InputTensor {
            name: name.to_owned(),
            dtype,
            shape,
            data,
            media_types: MediaTypes::default(),
        })
    }
}

/// Reads a tensor of an unbatched task.
fn unbatched_input(name: &str, text: &str, declared: &TensorManifest) -> Result<InputTensor, Failure> {
    let tensor = read_tensor(text, name, declared).map_err(|error| malformed(error.to_string()))?;
    Ok(InputTensor {
        name: name.to_owned(),
        dtype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        data: tensor.data().clone(),
        media_types: MediaTypes::default(),
    })
}

/// Reads one row. TensorFlow does not distinguish text and bytes, so clients can send text as `{"b64": …}`.
fn read_row(body: &Bytes, text: &str, task: &TaskManifest) -> Result<Value, ItemError> {
    let kinds = &task.input.kinds;
    let takes_objects = kinds.contains(&Kind::Json) || kinds.contains(&Kind::Bytes);
    if kinds.contains(&Kind::Text)
        && !takes_objects
        && JsonForm::of(text) == JsonForm::Object
        && let Some(data) = b64_object(text)
    {
        let data = data.map_err(ItemError::Invalid)?;
        return match String::from_utf8(data) {
            Ok(text) => Ok(Value::Text(text.into())),
            Err(error) => Err(ItemError::Invalid(format!(
                "`b64` is not UTF-8: invalid byte at offset {}",
                error.utf8_error().valid_up_to()
            ))),
        };
    }
    read_item(body, text, task)
}

fn malformed(message: impl Into<String>) -> Failure {
    Failure::new(Code::Malformed, message)
}

#[cfg(test)]
mod tests;
