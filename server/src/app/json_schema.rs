//! Validates JSON against the schema that a plugin declares.

use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// A violation of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Dotted path of the invalid part, such as `image.size` or `labels.1`. Empty for the value itself.
    pub(super) path: String,
    /// What was found and what was expected.
    pub(super) message: String,
}

/// All violations of `schema` by `value`. An invalid schema allows everything.
pub(super) fn violations(schema: &Value, value: &Value) -> Vec<Violation> {
    if schema.is_null() {
        return Vec::new();
    }
    match jsonschema::validator_for(schema) {
        Ok(validator) => validator
            .iter_errors(value)
            .flat_map(|error| describe(&error))
            .collect(),
        Err(_) => Vec::new(),
    }
}

fn describe(error: &ValidationError<'_>) -> Vec<Violation> {
    let path = error
        .instance_path()
        .as_str()
        .trim_start_matches('/')
        .replace('/', ".");
    let member = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| Violation {
                path: member(name),
                message: "unknown key".to_owned(),
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![Violation {
                path: member(name),
                message: "missing required key".to_owned(),
            }]
        }
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => vec![Violation {
            path: path.clone(),
            message: format!("{} has none of the accepted forms", error.instance()),
        }],
        _ => vec![Violation {
            path: path.clone(),
            message: error.to_string(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_violation_has_a_path() {
        let schema = json!({
            "type": "object",
            "properties": {
                "size": {"type": "integer", "maximum": 100},
                "labels": {"type": "array", "items": {"type": "string"}},
                "image": {"type": "object", "required": ["width"]},
                "unit": {"anyOf": [{"const": "mean"}, {"type": "number"}]},
            },
            "additionalProperties": false,
        });
        let found = |value: Value| -> Vec<(String, String)> {
            violations(&schema, &value)
                .into_iter()
                .map(|violation| (violation.path, violation.message))
                .collect()
        };
        let expected = |path: &str, message: &str| vec![(path.to_owned(), message.to_owned())];
        assert_eq!(found(json!({"size": 3, "labels": ["a"]})), []);
        assert_eq!(found(json!({"siez": 3})), expected("siez", "unknown key"));
        assert_eq!(
            found(json!({"image": {}})),
            expected("image.width", "missing required key")
        );
        assert_eq!(
            found(json!({"labels": ["a", 1]})),
            expected("labels.1", "1 is not of type \"string\"")
        );
        assert_eq!(
            found(json!({"size": 101})),
            expected("size", "101 is greater than the maximum of 100")
        );
        assert_eq!(
            found(json!({"unit": "max"})),
            expected("unit", "\"max\" has none of the accepted forms")
        );
    }

    #[test]
    fn everything_is_allowed_without_a_schema() {
        assert_eq!(violations(&Value::Null, &json!({"x": 1})), []);
        assert_eq!(violations(&json!({"type": 5}), &json!({"x": 1})), []);
    }
}
