//! Bytes within a JSON document, in the same forms that the server accepts for items of kind bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

/// Base64 with optional padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes in a field of a [`Json`](crate::Json) item, such as an image next to a question. Clients write them as
/// `{"b64": "…", "media_type": "image/png"}` or as a data URI, `"data:image/png;base64,…"`.
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Question {
///     image: JsonBytes,
///     question: String,
/// }
///
/// let item = json!({"image": "data:image/png;base64,iVBORw0", "question": "What is it?"});
/// let question: Question = plugin_sdk::serde_json::from_value(item).expect("it is complete");
/// assert_eq!(question.image.data, b"\x89PNG\r");
/// assert_eq!(question.image.media_type, "image/png");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsonBytes {
    /// The bytes.
    pub data: Vec<u8>,
    /// Their media type. Empty if the client did not specify it.
    pub media_type: String,
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    expecting = "expected an object {\"b64\": …, \"media_type\": …} or a data URI in base64"
)]
enum EncodedBytes<'a> {
    #[serde(borrow)]
    DataUri(Cow<'a, str>),
    Object(Object<'a>),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(borrow)]
    b64: Cow<'a, str>,
    #[serde(default)]
    media_type: String,
}

impl<'de> Deserialize<'de> for JsonBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let encoded = EncodedBytes::deserialize(deserializer)?;
        let (text, media_type) = match &encoded {
            EncodedBytes::Object(object) => (&*object.b64, object.media_type.clone()),
            EncodedBytes::DataUri(uri) => {
                let (head, text) = uri
                    .strip_prefix("data:")
                    .and_then(|rest| rest.split_once(";base64,"))
                    .ok_or_else(|| {
                        D::Error::custom("expected a data URI such as `data:image/png;base64,…`")
                    })?;
                // Parameters of the media type, such as a charset, are ignored.
                let media_type = head.split(';').next().unwrap_or_default();
                (text, media_type.trim().to_ascii_lowercase())
            }
        };
        let data = BASE64
            .decode(text)
            .map_err(|error| D::Error::custom(format_args!("invalid base64: {error}")))?;
        Ok(Self { data, media_type })
    }
}

impl JsonSchema for JsonBytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "b64": {"type": "string", "contentEncoding": "base64"},
                        "media_type": {"type": "string"},
                    },
                    "required": ["b64"],
                    "additionalProperties": false,
                },
                {"type": "string", "pattern": "^data:[^,]*;base64,"},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(written: &Json) -> Result<JsonBytes, String> {
        serde_json::from_str(&written.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn objects_and_data_uris_are_accepted() {
        for (written, media_type) in [
            (json!({"b64": "AAE=", "media_type": "image/png"}), "image/png"),
            (json!({"b64": "AAE"}), ""),
            (json!("data:image/PNG;charset=x;base64,AAE="), "image/png"),
            (json!("data:;base64,AAE"), ""),
        ] {
            let bytes = read(&written).expect("valid bytes");
            assert_eq!(
                (&bytes.data[..], &bytes.media_type[..]),
                (&[0, 1][..], media_type)
            );
        }
    }

    #[test]
    fn errors_state_the_expected_form() {
        for (written, problem) in [
            (
                json!("AAE="),
                "expected a data URI such as `data:image/png;base64,…`",
            ),
            (json!({"b64": "*"}), "invalid base64: "),
            (
                json!(5),
                "expected an object {\"b64\": …, \"media_type\": …} or a data URI",
            ),
            (json!({"b65": "AAE="}), "expected an object"),
        ] {
            let error = read(&written).expect_err("invalid bytes");
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
