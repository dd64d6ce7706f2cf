//! Unique names for schemas and operations, and the named schemas.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

/// A set of unique names. Names that a code generator would map to the same identifier count as equal.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Adds the name, with a number appended if it is not unique.
    pub(super) fn unique(&mut self, name: String) -> String {
        let plain = |name: &str| -> String {
            let characters = name.chars().filter(char::is_ascii_alphanumeric);
            characters.map(|c| c.to_ascii_lowercase()).collect()
        };
        let mut unique = name.clone();
        let mut number = 1;
        while !self.0.insert(plain(&unique)) {
            number += 1;
            unique = format!("{name}_{number}");
        }
        unique
    }
}

/// Named schemas. Names are unique, and only have characters that OpenAPI and code generators allow.
#[derive(Debug, Default)]
pub(super) struct Components {
    names: Names,
    schemas: BTreeMap<String, Json>,
}

impl Components {
    /// Adds a schema under a unique form of the name, and returns a reference to it. A schema that is itself a
    /// reference is returned unchanged.
    pub(super) fn add(&mut self, name: &str, schema: Json) -> Json {
        if schema.get("$ref").is_some() {
            return schema;
        }
        let name = self.reserve(name);
        let reference = reference(&name);
        self.set(name, schema);
        serde_json::json!({ "$ref": reference })
    }

    /// Like [`add`](Self::add), but returns the reference to an equal schema that was added under a form of the name.
    pub(super) fn share(&mut self, name: &str, schema: Json) -> Json {
        let base = pascal_case(name);
        let is_form = |other: &str| {
            let number = other.strip_prefix(&base);
            number.is_some_and(|number| number.is_empty() || number.starts_with('_'))
        };
        let mut known = self.schemas.iter();
        match known.find(|(other, known)| is_form(other) && **known == schema) {
            Some((other, _)) => serde_json::json!({ "$ref": reference(other) }),
            None => self.add(name, schema),
        }
    }

    /// Reserves a unique form of the name for a schema that is added later.
    pub(super) fn reserve(&mut self, name: &str) -> String {
        self.names.unique(pascal_case(name))
    }

    /// Sets the schema of a reserved name.
    pub(super) fn set(&mut self, name: String, schema: Json) {
        self.schemas.insert(name, schema);
    }

    pub(super) fn into_schemas(self) -> Map<String, Json> {
        self.schemas.into_iter().collect()
    }
}

/// The `$ref` of a component.
pub(super) fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// Converts `digits classify request` to `DigitsClassifyRequest`.
fn pascal_case(name: &str) -> String {
    let mut pascal = String::with_capacity(name.len());
    for word in words(name) {
        let mut characters = word.chars();
        pascal.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        pascal.push_str(characters.as_str());
    }
    if !pascal.starts_with(|c: char| c.is_ascii_alphabetic()) {
        pascal.insert_str(0, "Schema");
    }
    pascal
}

/// Converts `predict digits.classify` to `predict_digits_classify`.
pub(super) fn snake_case(name: &str) -> String {
    words(name)
        .map(str::to_ascii_lowercase)
        .collect::<Vec<_>>()
        .join("_")
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_schemas_of_a_name_are_shared() {
        let mut components = Components::default();
        let mut share = |name, schema: &str| components.share(name, serde_json::json!({ "const": schema }));
        let (one, other) = (share("Request", "one"), share("Request", "other"));
        assert_ne!(one, other);
        assert_eq!(
            (share("Request", "one"), share("Request", "other")),
            (one.clone(), other)
        );
        assert_ne!(share("Reply", "one"), one);
    }

    #[test]
    fn names_are_unique_as_identifiers() {
        let mut components = Components::default();
        let names =
            ["a.b request", "a b request", "a.bRequest", "αβ", "3d", ""].map(|name| components.reserve(name));
        assert_eq!(
            names,
            [
                "ABRequest",
                "ABRequest_2",
                "ABRequest_3",
                "Schema",
                "Schema3d",
                "Schema_2"
            ]
        );
    }
}
