//! Deserializes `[models.settings]`, and finds the key of an invalid setting.

use plugin_abi::json_error;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::LoadError;

pub(crate) fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, LoadError> {
    let empty = Value::Object(serde_json::Map::new());
    let settings = if settings.is_null() { &empty } else { settings };
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let message = json_error::message(error.inner());
        let path = Some(error.path().to_string())
            .filter(|path| path != ".")
            .unwrap_or_default();
        let key = match field(&message) {
            Some(field) if !ends_with(&path, field) => join(&path, field),
            _ => path,
        };
        LoadError::setting(key, message)
    })
}

/// Returns the field in serde's "missing field `x`" and "unknown field `x`, expected …", which the path does not always
/// include.
fn field(message: &str) -> Option<&str> {
    let rest = message
        .strip_prefix("missing field `")
        .or_else(|| message.strip_prefix("unknown field `"))?;
    rest.split('`').next()
}

fn ends_with(path: &str, field: &str) -> bool {
    path.rsplit('.').next() == Some(field)
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only deserialized")]
    struct Settings {
        image: Image,
        #[serde(default)]
        labels: Vec<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only deserialized")]
    struct Image {
        size: u32,
    }

    #[test]
    fn errors_contain_the_dotted_key() {
        for (settings, key, message) in [
            (json!({}), "image", "missing field `image`"),
            (json!(null), "image", "missing field `image`"),
            (json!({"image": {}}), "image.size", "missing field `size`"),
            (
                json!({"image": {"size": "big"}}),
                "image.size",
                "got \"big\", expected a non-negative integer",
            ),
            (
                json!({"image": {"size": 1, "sise": 2}}),
                "image.sise",
                "unknown field `sise`, expected `size`",
            ),
            (
                json!({"image": {"size": 1}, "x": 1}),
                "x",
                "unknown field `x`, expected `image` or `labels`",
            ),
            (
                json!({"image": {"size": 1}, "labels": [1, 999]}),
                "labels[1]",
                "got 999, expected an integer from 0 to 255",
            ),
        ] {
            let error = read::<Settings>(&settings).expect_err("invalid settings");
            assert_eq!((error.key(), error.message()), (Some(key), message), "{settings}");
        }
    }
}
