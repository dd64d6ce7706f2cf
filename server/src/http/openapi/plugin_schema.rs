//! Converts schemas that plugins declare to schemas of the document.
//!
//! A plugin can declare any JSON as a schema, in any draft. The result has only keywords of JSON Schema 2020-12 with
//! valid values, `items` for every array, and `$ref` only to whole components: definitions and other referenced parts
//! become separate components. Anything that cannot be expressed is omitted, which makes the schema more permissive
//! but never invalidates the document. Titles are omitted as well, because generators name classes after them, and
//! two plugins can have the same titles.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::components::{Components, reference};

/// Adds the schema as the component `name`, and its referenced parts as separate components. Returns a reference to
/// the component.
pub(super) fn add(components: &mut Components, name: &str, schema: &Json) -> Json {
    let mut converter = Converter {
        components,
        root: schema,
        base: name.to_owned(),
        known: BTreeMap::new(),
    };
    match converter.component("") {
        Some(target) => json!({ "$ref": target }),
        None => json!({}),
    }
}

struct Converter<'c, 's> {
    components: &'c mut Components,
    root: &'s Json,
    base: String,
    /// References to components by JSON pointer. Includes unfinished components, because schemas can be recursive.
    known: BTreeMap<String, String>,
}

/// The type of a keyword's value.
#[derive(Clone, Copy)]
enum KeywordType {
    Text,
    Flag,
    Number,
    Count,
    Positive,
    Names,
    Values,
    Anything,
    Schema,
    Schemas,
    Members,
}

/// Returns the type of a keyword's value; `None` for keywords that are omitted.
fn keyword_type(keyword: &str) -> Option<KeywordType> {
    Some(match keyword {
        "description" | "format" | "pattern" | "contentEncoding" | "contentMediaType" => KeywordType::Text,
        "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => KeywordType::Flag,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => KeywordType::Number,
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
        | "minContains" | "maxContains" => KeywordType::Count,
        "multipleOf" => KeywordType::Positive,
        "required" => KeywordType::Names,
        "enum" | "examples" => KeywordType::Values,
        "const" | "default" => KeywordType::Anything,
        "items"
        | "additionalProperties"
        | "not"
        | "if"
        | "then"
        | "else"
        | "contains"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contentSchema" => KeywordType::Schema,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => KeywordType::Schemas,
        "properties" | "patternProperties" | "dependentSchemas" => KeywordType::Members,
        _ => return None,
    })
}

const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "number", "string", "integer",
];

impl Converter<'_, '_> {
    /// Returns a reference to the component of the part at this pointer; `None` if there is no such part.
    fn component(&mut self, pointer: &str) -> Option<String> {
        if let Some(known) = self.known.get(pointer) {
            return Some(known.clone());
        }
        let part = self.root.pointer(pointer)?;
        let name = match pointer.rsplit_once('/') {
            None => self.base.clone(),
            Some((_, last)) => format!("{} {last}", self.base),
        };
        let name = self.components.reserve(&name);
        let target = reference(&name);
        self.known.insert(pointer.to_owned(), target.clone());
        let schema = self.schema(part);
        self.components.set(name, schema);
        Some(target)
    }

    fn schema(&mut self, part: &Json) -> Json {
        let Json::Object(object) = part else {
            // `false` is the only other schema that restricts anything.
            return if *part == Json::Bool(false) {
                json!({"not": {}})
            } else {
                json!({})
            };
        };
        let mut kept = Map::new();
        for (keyword, value) in object {
            if let Some(value) =
                keyword_type(keyword).and_then(|keyword_type| self.value(keyword_type, value))
            {
                kept.insert(keyword.clone(), value);
            }
        }
        self.convert_older_drafts(object, &mut kept);
        kept.extend(types(object));
        complete_arrays(&mut kept);
        match object
            .get("$ref")
            .or_else(|| object.get("$dynamicRef"))
            .and_then(Json::as_str)
        {
            Some(target) => self.reference_with(target, kept),
            None => Json::Object(kept),
        }
    }

    /// Converts a reference and its sibling keywords.
    fn reference_with(&mut self, target: &str, siblings: Map<String, Json>) -> Json {
        let pointer = target.strip_prefix('#').map(percent_decode);
        let Some(target) = pointer.and_then(|pointer| self.component(&pointer)) else {
            // A reference to another document or an anchor, or one without a target, cannot be resolved.
            return Json::Object(siblings);
        };
        if siblings.is_empty() {
            return json!({ "$ref": target });
        }
        // Generators ignore keywords beside a reference.
        let mut whole = siblings;
        match whole.get_mut("allOf").and_then(Json::as_array_mut) {
            Some(all) => all.push(json!({ "$ref": target })),
            None => {
                whole.insert("allOf".to_owned(), json!([{ "$ref": target }]));
            }
        }
        Json::Object(whole)
    }

    fn value(&mut self, keyword_type: KeywordType, value: &Json) -> Option<Json> {
        let fits = match keyword_type {
            KeywordType::Text => value.is_string(),
            KeywordType::Flag => value.is_boolean(),
            KeywordType::Number => value.is_number(),
            KeywordType::Count => value.as_u64().is_some(),
            KeywordType::Positive => value.as_f64().is_some_and(|number| number > 0.0),
            KeywordType::Values => value.as_array().is_some_and(|values| !values.is_empty()),
            KeywordType::Anything => true,
            KeywordType::Names => {
                let mut names: Vec<&str> = value
                    .as_array()?
                    .iter()
                    .map(Json::as_str)
                    .collect::<Option<_>>()?;
                names.sort_unstable();
                names.dedup();
                return Some(json!(names));
            }
            // Generators support booleans for `additionalProperties`; `complete_arrays` replaces the others.
            KeywordType::Schema if value.is_boolean() => true,
            KeywordType::Schema => return value.is_object().then(|| self.schema(value)),
            KeywordType::Schemas => {
                let parts = value.as_array().filter(|parts| !parts.is_empty())?;
                return Some(parts.iter().map(|part| self.schema(part)).collect());
            }
            KeywordType::Members => {
                let members = value.as_object()?.iter();
                let members = members.map(|(name, part)| (name.clone(), self.schema(part)));
                return Some(Json::Object(members.collect()));
            }
        };
        fits.then(|| value.clone())
    }

    /// Converts keywords of earlier drafts of JSON Schema and of OpenAPI 3.0.
    fn convert_older_drafts(&mut self, object: &Map<String, Json>, kept: &mut Map<String, Json>) {
        if let Some(Json::Array(parts)) = object.get("items") {
            if !parts.is_empty() {
                kept.insert(
                    "prefixItems".to_owned(),
                    parts.iter().map(|part| self.schema(part)).collect(),
                );
            }
            if let Some(rest) = object.get("additionalItems").filter(|rest| rest.is_object()) {
                kept.insert("items".to_owned(), self.schema(rest));
            }
        }
        for (bound, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
            if object.get(exclusive) == Some(&Json::Bool(true))
                && let Some(number) = kept.remove(bound)
            {
                kept.insert(exclusive.to_owned(), number);
            }
        }
    }
}

/// Returns `type` with its valid names.
fn types(object: &Map<String, Json>) -> Option<(String, Json)> {
    let named: Vec<&str> = match object.get("type")? {
        Json::String(name) => vec![name],
        Json::Array(names) => names.iter().filter_map(Json::as_str).collect(),
        _ => return None,
    };
    let mut named: Vec<&str> = named.into_iter().filter(|name| TYPES.contains(name)).collect();
    if object.get("nullable") == Some(&Json::Bool(true)) && !named.is_empty() {
        named.push("null");
    }
    let mut unique = Vec::new();
    named.retain(|name| {
        !unique.contains(name) && {
            unique.push(*name);
            true
        }
    });
    match named.as_slice() {
        [] => None,
        [only] => Some(("type".to_owned(), json!(only))),
        several => Some(("type".to_owned(), json!(several))),
    }
}

/// Adds `items` to every array, and replaces boolean schemas where generators do not support them.
fn complete_arrays(kept: &mut Map<String, Json>) {
    let is_array = match kept.get("type") {
        Some(Json::String(name)) => name == "array",
        Some(Json::Array(names)) => names.iter().any(|name| name == "array"),
        _ => kept.contains_key("prefixItems"),
    };
    let closed = kept.get("items") == Some(&Json::Bool(false));
    if closed {
        let count = kept
            .get("prefixItems")
            .and_then(Json::as_array)
            .map_or(0, Vec::len);
        kept.entry("maxItems").or_insert_with(|| count.into());
    }
    if kept.get("items").is_some_and(Json::is_boolean) || (is_array && !kept.contains_key("items")) {
        kept.insert("items".to_owned(), json!({}));
    }
    for (keyword, value) in kept.iter_mut() {
        if keyword != "additionalProperties"
            && matches!(keyword_type(keyword), Some(KeywordType::Schema))
            && let Json::Bool(any) = *value
        {
            *value = if any { json!({}) } else { json!({"not": {}}) };
        }
    }
}

/// Decodes a JSON pointer in a URI fragment, which is percent-encoded.
fn percent_decode(fragment: &str) -> String {
    let bytes = fragment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = fragment.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the components of a schema named `Root`.
    fn converted(schema: &Json) -> Json {
        let mut components = Components::default();
        assert_eq!(
            add(&mut components, "Root", schema),
            json!({"$ref": reference("Root")})
        );
        Json::Object(components.into_schemas())
    }

    #[test]
    fn nested_and_recursive_definitions_become_components() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "tree": {"$ref": "#/$defs/Tree"},
                "leaf": {"$ref": "#/$defs/Tree/$defs/Leaf"},
                "name": {"$ref": "#/$defs/Tree/properties/name"},
                "again": {"$ref": "#"},
            },
            "$defs": {"Tree": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "below": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
                "$defs": {"Leaf": {"const": 1}},
            }},
        });
        let to = |name: &str| json!({"$ref": reference(name)});
        assert_eq!(
            converted(&schema),
            json!({
                "Root": {"type": "object", "properties": {
                    "tree": to("RootTree"), "leaf": to("RootLeaf"), "name": to("RootName"), "again": to("Root"),
                }},
                "RootTree": {"type": "object", "properties": {
                    "name": {"type": "string"}, "below": {"type": "array", "items": to("RootTree")},
                }},
                "RootLeaf": {"const": 1},
                "RootName": {"type": "string"},
            })
        );
    }

    #[test]
    fn invalid_and_unsupported_keywords_are_omitted() {
        for (schema, expected) in [
            (json!("a string"), json!({})),
            (json!(false), json!({"not": {}})),
            (
                json!({"type": "strin", "description": 3, "minimum": "low"}),
                json!({}),
            ),
            (json!({"$ref": "https://example.org/schema.json"}), json!({})),
            (
                json!({"$ref": "#/$defs/missing", "description": "D"}),
                json!({"description": "D"}),
            ),
            (json!({"$ref": "#anchor"}), json!({})),
            (
                json!({"properties": [], "required": "a", "enum": [], "allOf": []}),
                json!({}),
            ),
            (json!({"made_up": {"$ref": "#/nowhere"}}), json!({})),
            (
                json!({"multipleOf": 0, "minItems": -1, "maxLength": 2.5}),
                json!({}),
            ),
        ] {
            assert_eq!(converted(&schema)["Root"], expected, "{schema}");
        }
    }

    #[test]
    fn values_that_look_like_schemas_are_kept() {
        let schema = json!({"const": {"$ref": "#/nowhere"}, "examples": [{"type": "array"}]});
        assert_eq!(converted(&schema)["Root"], schema);
        let named = json!({"type": "object", "properties": {"$ref": {"type": "string"}, "enum": {"type": "integer"}}});
        assert_eq!(converted(&named)["Root"], named);
    }

    #[test]
    fn every_array_has_items() {
        for (schema, expected) in [
            (json!({"type": "array"}), json!({"type": "array", "items": {}})),
            (
                json!({"type": ["array", "null"]}),
                json!({"type": ["array", "null"], "items": {}}),
            ),
            (
                json!({"type": "array", "items": true}),
                json!({"type": "array", "items": {}}),
            ),
            (
                json!({"type": "array", "prefixItems": [{"type": "string"}], "items": false}),
                json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {}, "maxItems": 1}),
            ),
        ] {
            assert_eq!(converted(&schema)["Root"], expected, "{schema}");
        }
    }

    #[test]
    fn older_drafts_are_converted() {
        for (schema, expected) in [
            (
                json!({"type": "array", "items": [{"type": "string"}, true]}),
                json!({"type": "array", "prefixItems": [{"type": "string"}, {}], "items": {}}),
            ),
            (
                json!({"minimum": 1, "exclusiveMinimum": true}),
                json!({"exclusiveMinimum": 1}),
            ),
            (
                json!({"type": "string", "nullable": true}),
                json!({"type": ["string", "null"]}),
            ),
        ] {
            assert_eq!(converted(&schema)["Root"], expected, "{schema}");
        }
        let schema = json!({"$ref": "#/definitions/a%20b", "definitions": {"a b": {"type": "null"}}});
        assert_eq!(converted(&schema)["RootAB"], json!({"type": "null"}));
    }

    #[test]
    fn keywords_beside_a_reference_are_kept() {
        let schema = json!({"$ref": "#/$defs/A", "description": "D", "$defs": {"A": {}}});
        let expected = json!({"allOf": [{"$ref": reference("RootA")}], "description": "D"});
        assert_eq!(converted(&schema)["Root"], expected);
    }
}
