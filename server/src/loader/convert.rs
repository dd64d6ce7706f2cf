//! Converts between the server's values and those of the plugin ABI. Inputs are borrowed; outputs are checked and copied
//! once.

use abi_stable::std_types::{RSlice, RStr};
use bytes::Bytes;
use plugin_abi::check::registered_media_type;
use plugin_abi::manifest::{Kind, ValueManifest};
use plugin_abi::{RawError, RawItem, RawTensor, RawValue, check, codes};
use serde::de::IgnoredAny;

use crate::error::ItemError;
use crate::json;
use crate::model::BatchError;
use crate::values::{DType, ItemInput, Tensor, Value};

/// Maximum length of a plugin's error message.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// Appends the borrowed tensors of an item. Separate from [`borrow_item`], because the raw item borrows them in turn.
pub(super) fn borrow_tensors<'a>(item: &'a ItemInput, into: &mut Vec<RawTensor<'a>>) {
    if let Value::Tensors(tensors) = &item.value {
        into.extend(tensors.iter().map(|tensor| RawTensor {
            name: RStr::from_str(tensor.name()),
            dtype: tensor.dtype().code(),
            reserved: 0,
            shape: RSlice::from_slice(tensor.shape()),
            data: RSlice::from_slice(tensor.data()),
        }));
    }
}

/// A borrowed item. `tensors` must be what [`borrow_tensors`] appended for it.
pub(super) fn borrow_item<'a>(
    item: &'a ItemInput,
    tensors: &'a [RawTensor<'a>],
    prepared: usize,
) -> Result<RawItem<'a>, ItemError> {
    let (kind, data, media_type): (u32, &[u8], &str) = match &item.value {
        Value::Text(text) => (codes::kind::TEXT, text, ""),
        Value::Bytes { data, media_type } => (codes::kind::BYTES, data, registered_media_type(media_type)),
        Value::Json(json) => (codes::kind::JSON, json, ""),
        Value::Tensors(_) => (codes::kind::TENSORS, &[], ""),
    };
    let parameters = std::str::from_utf8(&item.parameters)
        .map_err(|error| ItemError::Invalid(format!("the parameters are not UTF-8: {error}")))?;
    Ok(RawItem {
        value: RawValue {
            kind,
            reserved: 0,
            data: RSlice::from_slice(data),
            media_type: RStr::from_str(media_type),
            tensors: RSlice::from_slice(tensors),
            reserved_word: 0,
        },
        parameters: RStr::from_str(parameters),
        prepared,
        reserved: 0,
    })
}

/// Number of tensors that [`borrow_tensors`] appends for an item.
pub(super) fn tensor_count(item: &ItemInput) -> usize {
    match &item.value {
        Value::Tensors(tensors) => tensors.len(),
        Value::Text(_) | Value::Bytes { .. } | Value::Json(_) => 0,
    }
}

/// Checks an output against `declared`, the output of the task's manifest, and copies it.
pub(super) fn copy_value(raw: &RawValue<'_>, declared: &ValueManifest) -> Result<Value, String> {
    let kind = check::output(raw, declared)?;
    let data = raw.data.as_slice();
    let utf8 = |what| {
        std::str::from_utf8(data).map_err(|error| format!("the plugin's {what} is not UTF-8: {error}"))
    };
    Ok(match kind {
        Kind::Text => {
            utf8("text")?;
            Value::Text(Bytes::copy_from_slice(data))
        }
        Kind::Json => {
            // serde_json does not check the encoding of strings that it skips.
            json::from_str::<IgnoredAny>(utf8("JSON")?)
                .map_err(|error| format!("the plugin's output is not valid JSON: {error}"))?;
            Value::Json(Bytes::copy_from_slice(data))
        }
        Kind::Bytes => Value::Bytes {
            data: Bytes::copy_from_slice(data),
            media_type: raw.media_type.as_str().to_owned(),
        },
        Kind::Tensors => Value::Tensors(copy_tensors(raw.tensors.as_slice())?),
    })
}

/// Checks and copies tensors.
pub(super) fn copy_tensors(raw: &[RawTensor<'_>]) -> Result<Vec<Tensor>, String> {
    raw.iter()
        .map(|raw| {
            let name = raw.name.as_str();
            let dtype = DType::from_code(raw.dtype)
                .ok_or_else(|| format!("the plugin's tensor `{name}` has unknown datatype {}", raw.dtype))?;
            let data = Bytes::copy_from_slice(raw.data.as_slice());
            Tensor::new(name, dtype, raw.shape.as_slice().to_vec(), data)
                .map_err(|error| format!("the plugin's output is invalid: {error}"))
        })
        .collect()
}

/// The error of an item, from the plugin's error code. A code from a newer SDK counts as a fault of the plugin.
pub(super) fn item_error(code: u32, message: &str) -> ItemError {
    let message = super::truncate(message, MAX_MESSAGE_BYTES).to_owned();
    match code {
        codes::error::INVALID_INPUT => ItemError::Invalid(message),
        codes::error::OUT_OF_MEMORY => ItemError::OutOfMemory(message),
        codes::error::UNSUPPORTED => ItemError::Unsupported(message),
        codes::error::PANIC => ItemError::Fault(format!("the plugin panicked: {message}")),
        _ => ItemError::Fault(message),
    }
}

/// The error of a batch, from the plugin's error code.
pub(super) fn batch_error(error: &RawError) -> BatchError {
    match item_error(error.kind, &error.message) {
        ItemError::OutOfMemory(message) => BatchError::OutOfMemory(message),
        ItemError::Fault(_) if error.kind == codes::error::PANIC => {
            BatchError::Panicked(super::truncate(&error.message, MAX_MESSAGE_BYTES).to_owned())
        }
        failed => BatchError::Failed(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(kind: u32, data: &[u8]) -> RawValue<'_> {
        RawValue {
            kind,
            reserved: 0,
            data: RSlice::from_slice(data),
            media_type: RStr::from_str("image/png"),
            tensors: RSlice::EMPTY,
            reserved_word: 0,
        }
    }

    #[test]
    fn plugins_see_the_registered_name_of_a_misspelled_media_type() {
        let registered = |media_type: &str| {
            let item = ItemInput {
                value: Value::Bytes {
                    data: Bytes::from_static(b"x"),
                    media_type: media_type.to_owned(),
                },
                parameters: Bytes::new(),
            };
            let raw = borrow_item(&item, &[], 0).expect("the item is valid");
            raw.value.media_type.as_str().to_owned()
        };
        assert_eq!(registered("image/jpg"), "image/jpeg");
        assert_eq!(registered("image/png"), "image/png");
    }

    #[test]
    fn outputs_of_the_declared_kind_are_copied() {
        let text = Bytes::from_static("größer".as_bytes());
        let cases = [
            (raw(1, &text), Kind::Text, Value::Text(text.clone())),
            (
                raw(3, b"{\"a\":[1]}"),
                Kind::Json,
                Value::Json(Bytes::from_static(b"{\"a\":[1]}")),
            ),
            (
                raw(2, b"\xff\x00"),
                Kind::Bytes,
                Value::Bytes {
                    data: Bytes::from_static(b"\xff\x00"),
                    media_type: "image/png".to_owned(),
                },
            ),
        ];
        for (raw, declared, value) in cases {
            assert_eq!(copy_value(&raw, &ValueManifest::of(declared)), Ok(value));
        }
    }

    #[test]
    fn malformed_outputs_are_rejected_with_the_reason() {
        let cases = [
            (raw(1, b"\xff"), Kind::Text, "the plugin's text is not UTF-8"),
            (
                raw(3, b"{\"a\":"),
                Kind::Json,
                "the plugin's output is not valid JSON: the document ends",
            ),
            (
                raw(3, b"1 2"),
                Kind::Json,
                "the plugin's output is not valid JSON: unexpected characters",
            ),
            (raw(3, b"\"\xff\""), Kind::Json, "the plugin's JSON is not UTF-8"),
            (
                raw(9, b""),
                Kind::Json,
                "the plugin's output has the unknown kind 9",
            ),
            (
                raw(1, b"x"),
                Kind::Json,
                "the plugin's output is of kind text, its manifest declares json",
            ),
        ];
        for (raw, declared, reason) in cases {
            let error = copy_value(&raw, &ValueManifest::of(declared)).expect_err(reason);
            assert!(error.starts_with(reason), "{error}");
        }
        let tensor = RawTensor {
            name: RStr::from_str("logits"),
            dtype: codes::dtype::FP32,
            reserved: 0,
            shape: RSlice::from_slice(&[3]),
            data: RSlice::from_slice(&[0; 8]),
        };
        let error = copy_tensors(&[tensor]).expect_err("12 bytes are expected");
        assert!(
            error.contains("tensor `logits` of FP32 [3] takes 12 bytes, got 8"),
            "{error}"
        );
        let error = copy_tensors(&[RawTensor { dtype: 99, ..tensor }]).expect_err("no such datatype");
        assert_eq!(error, "the plugin's tensor `logits` has unknown datatype 99");
    }

    #[test]
    fn error_codes_map_to_errors_of_items_and_batches() {
        let cases = [
            (1, ItemError::Invalid("m".to_owned())),
            (2, ItemError::Fault("m".to_owned())),
            (3, ItemError::OutOfMemory("m".to_owned())),
            (5, ItemError::Fault("the plugin panicked: m".to_owned())),
            (6, ItemError::Unsupported("m".to_owned())),
            (77, ItemError::Fault("m".to_owned())),
        ];
        for (code, expected) in cases {
            assert_eq!(item_error(code, "m"), expected, "{code}");
            let error = RawError {
                kind: code,
                reserved: 0,
                message: "m".into(),
                key: "".into(),
            };
            let expected = match code {
                3 => BatchError::OutOfMemory("m".to_owned()),
                5 => BatchError::Panicked("m".to_owned()),
                _ => BatchError::Failed(expected),
            };
            assert_eq!(batch_error(&error), expected, "{code}");
        }
    }
}
