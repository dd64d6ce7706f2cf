//! JSON Schemas of Rust types, in a form that OpenAPI 3.1 documents can contain.

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::Value;

/// Returns the schema of documents that deserialize into `T`.
pub(crate) fn of_input<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Deserialize)
}

/// Returns the schema of documents that a `T` serializes to.
pub(crate) fn of_output<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Serialize)
}

/// Inlines named types, so that the schemas of several plugins cannot conflict in one document. Only recursive types have
/// `$defs`, with references relative to the root of this schema.
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
    #[allow(dead_code, reason = "only its schema is used")]
    struct Outer {
        inner: Inner,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is used")]
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
