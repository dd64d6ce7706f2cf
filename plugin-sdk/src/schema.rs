//! JSON Schemas that can be put into an OpenAPI 3.1 document as they are.

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::Value;

/// Schema of what is read as `T`.
pub(crate) fn of_input<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Deserialize)
}

/// Schema of what is written from a `T`.
pub(crate) fn of_output<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Serialize)
}

/// Named types are inlined, so that the schemas of several plugins cannot clash in one document. Only a recursive type
/// still has `$defs`, whose references start at the root of this schema.
fn schema<T: JsonSchema>(contract: Contract) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings.contract = contract;
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Outer {
        inner: Inner,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        size: u8,
    }

    #[test]
    fn named_types_are_inlined() {
        let schema = of_input::<Outer>();
        assert_eq!(
            schema["properties"]["inner"]["properties"]["size"]["type"],
            "integer"
        );
        assert!(
            schema.get("$defs").is_none() && schema.get("$schema").is_none(),
            "{schema}"
        );
    }
}
