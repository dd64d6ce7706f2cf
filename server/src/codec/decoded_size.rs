//! Bounds the memory that decoding JSON takes before it is decoded.

use plugin_abi::manifest::{Kind, ValueManifest};

use crate::values::DType;

/// How the strings of a request are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// As slices of the JSON, unless they have escapes ([`read_item`](super::read_item)).
    Shared,
    /// As elements of a `BYTES` tensor, which is a copy ([`read_elements`](super::read_elements)).
    Copied,
}

/// Each element of a `BYTES` tensor is preceded by its length.
const LENGTH_PREFIX: usize = 4;

/// Returns the maximum number of bytes that reading `json` as items of `input` allocates for their values. Text and JSON that
/// are read as slices of `json` need no memory of their own.
///
/// It follows from the length of `json` and from its number of commas: `n` commas separate at most `n + 1` numbers or strings.
/// Base64 and strings with escapes never become longer by decoding.
pub fn max_decoded_size(json: &[u8], input: &ValueManifest, strings: Strings) -> usize {
    let length = json.len();
    let elements = memchr::memchr_iter(b',', json).count() + 1;
    let byte_strings = length.saturating_add(elements * LENGTH_PREFIX);
    let has_escapes = memchr::memchr(b'\\', json).is_some();
    let unescaped = if has_escapes { length } else { 0 };
    let copied = if strings == Strings::Copied {
        byte_strings
    } else {
        0
    };
    let size = |kind: &Kind| match kind {
        Kind::Text => unescaped.max(copied),
        Kind::Json => copied,
        // Base64 without its whitespace and escapes, and the data.
        Kind::Bytes => copied
            .saturating_add(length)
            .saturating_add(unescaped.max(length)),
        Kind::Tensors => {
            let sizes = input
                .tensors
                .iter()
                .map(|tensor| DType::from_name(&tensor.dtype).and_then(DType::size));
            let numbers = sizes.map(|size| match size {
                Some(size) => elements.saturating_mul(size),
                None => byte_strings,
            });
            numbers.max().unwrap_or(0)
        }
    };
    // The kinds of one request can be mixed.
    input.kinds.iter().map(size).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use plugin_abi::manifest::{TaskManifest, TensorManifest};
    use proptest::prelude::*;

    use super::super::read_item;
    use super::*;
    use crate::values::Value;

    fn input(kinds: &[Kind], dtype: &str) -> ValueManifest {
        ValueManifest {
            kinds: kinds.to_vec(),
            tensors: vec![TensorManifest::new("x", dtype, [-1])],
            ..ValueManifest::default()
        }
    }

    #[test]
    fn slices_of_the_body_take_no_memory_and_decoded_values_at_most_the_bound() {
        let text = "[\"a\",\"b,c\"]";
        let escaped = r#"["\n"]"#;
        let numbers = "[1,2,3]";
        let cases = [
            (text, Kind::Text, "FP32", Strings::Shared, 0),
            (escaped, Kind::Text, "FP32", Strings::Shared, escaped.len()),
            (text, Kind::Text, "FP32", Strings::Copied, text.len() + 12),
            (text, Kind::Json, "FP32", Strings::Shared, 0),
            (numbers, Kind::Tensors, "FP32", Strings::Shared, 12),
            (numbers, Kind::Tensors, "FP64", Strings::Shared, 24),
            (numbers, Kind::Tensors, "UINT8", Strings::Copied, 3),
            (text, Kind::Tensors, "BYTES", Strings::Shared, text.len() + 12),
            (text, Kind::Bytes, "FP32", Strings::Shared, 2 * text.len()),
        ];
        for (json, kind, dtype, strings, expected) in cases {
            let input = input(&[kind], dtype);
            assert_eq!(
                max_decoded_size(json.as_bytes(), &input, strings),
                expected,
                "{json} as {kind:?} of {dtype}, {strings:?}"
            );
        }
        let both = input(&[Kind::Text, Kind::Tensors], "FP32");
        assert_eq!(max_decoded_size(b"[1,2]", &both, Strings::Shared), 8);
    }

    proptest! {
        #[test]
        fn a_tensor_never_takes_more_than_the_bound(
            numbers in prop::collection::vec(0u8..100, 0..50),
            dtype in prop::sample::select(vec!["BOOL", "UINT8", "INT64", "FP32", "FP64"]),
        ) {
            let elements: Vec<String> = numbers
                .iter()
                .map(|number| match dtype {
                    "BOOL" => (number % 2 == 0).to_string(),
                    _ => number.to_string(),
                })
                .collect();
            let json = format!("[{}]", elements.join(","));
            let task = TaskManifest {
                input: input(&[Kind::Tensors], dtype),
                ..TaskManifest::default()
            };
            let body = Bytes::from(json.clone());
            let read = read_item(&body, &json, &task);
            if let Ok(Value::Tensors(tensors)) = read {
                let size: usize = tensors.iter().map(|tensor| tensor.data().len()).sum();
                prop_assert!(size <= max_decoded_size(json.as_bytes(), &task.input, Strings::Shared));
            }
        }
    }
}
