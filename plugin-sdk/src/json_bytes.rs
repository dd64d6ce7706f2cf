//! Bytes as a part of a JSON document, in the forms in which the server takes an item that is bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};

/// Padding is welcome but not needed, as clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes as a member of a [`Json`](crate::Json) item, such as an image beside a question. Clients write them as
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
    /// What the client says they are; empty if it does not.
    pub media_type: String,
}

#[derive(serde::Deserialize)]
#[serde(
    untagged,
    expecting = "expected an object {\"b64\": …, \"media_type\": …} or a data URI in base64"
)]
enum Written<'a> {
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
        let written = Written::deserialize(deserializer)?;
        let (text, media_type) = match &written {
            Written::Object(object) => (&*object.b64, object.media_type.clone()),
            Written::DataUri(uri) => {
                let (head, text) = uri
                    .strip_prefix("data:")
                    .and_then(|rest| rest.split_once(";base64,"))
                    .ok_or_else(|| {
                        D::Error::custom("expected a data URI such as `data:image/png;base64,…`")
                    })?;
                // Parameters of the media type, such as a charset, mean nothing to bytes.
                let media_type = head.split(';').next().unwrap_or_default();
                (text, media_type.trim().to_ascii_lowercase())
            }
        };
        let data = BASE64
            .decode(text)
            .map_err(|error| D::Error::custom(format_args!("not base64: {error}")))?;
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
    fn bytes_are_written_as_the_server_takes_them() {
        for (written, media_type) in [
            (json!({"b64": "AAE=", "media_type": "image/png"}), "image/png"),
            (json!({"b64": "AAE"}), ""),
            (json!("data:image/PNG;charset=x;base64,AAE="), "image/png"),
            (json!("data:;base64,AAE"), ""),
        ] {
            let bytes = read(&written).expect("it is a way to write them");
            assert_eq!(
                (&bytes.data[..], &bytes.media_type[..]),
                (&[0, 1][..], media_type)
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (written, problem) in [
            (
                json!("AAE="),
                "expected a data URI such as `data:image/png;base64,…`",
            ),
            (json!({"b64": "*"}), "not base64: "),
            (
                json!(5),
                "expected an object {\"b64\": …, \"media_type\": …} or a data URI",
            ),
            (json!({"b65": "AAE="}), "expected an object"),
        ] {
            let error = read(&written).expect_err("it is wrong");
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
