//! JSON Schemas of requests and replies, and the components that hold them.

use std::collections::BTreeMap;

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde_json::{Map, Value as Json, json};

use crate::api::Code;
use crate::protocol::DType;

/// Named schemas. Names are unique and of the characters that OpenAPI allows.
#[derive(Debug, Default)]
pub(super) struct Components(BTreeMap<String, Json>);

impl Components {
    /// Adds a schema under the name or one like it; the reference to it.
    pub(super) fn add(&mut self, name: &str, schema: Json) -> String {
        let name = self.reserve(name);
        let reference = reference(&name);
        self.0.insert(name, schema);
        reference
    }

    /// Adds a schema that comes from outside: its `$defs` become components of their own, and references into itself
    /// are made to point there.
    pub(super) fn add_foreign(&mut self, name: &str, schema: &Json) -> String {
        let name = self.reserve(name);
        let mut schema = schema.clone();
        let mut renames = BTreeMap::new();
        let mut definitions = Vec::new();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            object.remove("$id");
            for keyword in ["$defs", "definitions"] {
                let Some(Json::Object(defined)) = object.remove(keyword) else {
                    continue;
                };
                for (key, definition) in defined {
                    let unique = self.reserve(&format!("{name}.{key}"));
                    renames.insert(format!("#/{keyword}/{key}"), reference(&unique));
                    definitions.push((unique, definition));
                }
            }
        }
        let own = reference(&name);
        rewrite(&mut schema, &own, &renames);
        for (unique, mut definition) in definitions {
            rewrite(&mut definition, &own, &renames);
            self.0.insert(unique, definition);
        }
        self.0.insert(name, schema);
        own
    }

    pub(super) fn into_schemas(self) -> Map<String, Json> {
        self.0.into_iter().collect()
    }

    fn reserve(&mut self, name: &str) -> String {
        let clean: String = name
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
                _ => '_',
            })
            .collect();
        let mut unique = clean.clone();
        let mut count = 2;
        while self.0.contains_key(&unique) {
            unique = format!("{clean}_{count}");
            count += 1;
        }
        self.0.insert(unique.clone(), Json::Null);
        unique
    }
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// Makes local references of a schema, deep down, point to where its parts are now.
fn rewrite(schema: &mut Json, own: &str, renames: &BTreeMap<String, String>) {
    match schema {
        Json::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), &mut *value) {
                    ("$ref", Json::String(target)) => {
                        if let Some(new) = rewritten(target, own, renames) {
                            *target = new;
                        }
                    }
                    // Data, not schemas.
                    ("default" | "const" | "enum" | "examples" | "example", _) => {}
                    _ => rewrite(value, own, renames),
                }
            }
        }
        Json::Array(array) => {
            for value in array {
                rewrite(value, own, renames);
            }
        }
        _ => {}
    }
}

fn rewritten(target: &str, own: &str, renames: &BTreeMap<String, String>) -> Option<String> {
    let pointer = target.strip_prefix('#')?;
    let plain = format!("#{}", pointer.replace("~1", "/").replace("~0", "~"));
    if let Some(new) = renames.get(&plain) {
        return Some(new.clone());
    }
    // Further down inside a definition.
    let inside = renames
        .iter()
        .find_map(|(old, new)| Some((new, plain.strip_prefix(old)?)))
        .filter(|(_, rest)| rest.starts_with('/'));
    Some(match inside {
        Some((new, rest)) => format!("{new}{rest}"),
        None => format!("{own}{pointer}"),
    })
}

/// The schemas that every document has.
pub(super) fn add_common(components: &mut Components) {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    components.add(
        "Error",
        json!({
            "type": "object",
            "description": "What went wrong with a request, or with one of its items.",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": {"type": "string", "enum": codes},
                        "message": {"type": "string"},
                        "request_id": {"type": "string"},
                    },
                },
            },
        }),
    );
    components.add(
        "Model",
        json!({
            "type": "object",
            "required": ["id", "object", "created", "owned_by", "name", "ready", "state", "model_version_status", "tasks"],
            "properties": {
                "id": {"type": "string"},
                "object": {"const": "model"},
                "created": {"type": "integer", "description": "When it was loaded, in seconds since 1970."},
                "owned_by": {"type": "string"},
                "name": {"type": "string"},
                "description": {"type": "string"},
                "ready": {"type": "boolean"},
                "state": {"enum": ["loading", "ready", "recovering", "crash loop", "failed", "unloaded"]},
                "model_version_status": version_status(),
                "reason": {"type": "string", "description": "Why it failed to load."},
                "last_reload_error": {"type": "string", "description": "Why the last reload left the old generation serving."},
                "generation": {"type": "integer", "description": "Counts the times it was loaded."},
                "platform": {"type": "string"},
                "plugin": {"type": "object"},
                "default_task": {"type": "string"},
                "tasks": {"type": "array", "items": {"type": "object"}},
            },
        }),
    );
    components.add(
        "ModelList",
        json!({
            "type": "object",
            "required": ["object", "data", "models"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {"$ref": reference("Model")}},
                "models": {"type": "array", "items": {"$ref": reference("Model")}},
            },
        }),
    );
}

/// The state of a model in TensorFlow Serving's terms: a list of its only version.
pub(super) fn version_status() -> Json {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["version", "state", "status"],
            "properties": {
                "version": {"type": "string"},
                "state": {"enum": ["LOADING", "AVAILABLE", "END"], "type": "string"},
                "status": {
                    "type": "object",
                    "required": ["error_code", "error_message"],
                    "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                },
            },
        },
    })
}

/// The components of one task.
pub(super) struct TaskSchemas {
    /// Reference to the schema of a request.
    pub request: String,
    /// Reference to the schema of a reply.
    pub reply: String,
    /// Reference to the schema of a reply in which every item failed.
    pub failed: String,
}

/// Adds the schemas of one task.
pub(super) fn add_task(
    components: &mut Components,
    model: &str,
    task: &TaskManifest,
    max_items: usize,
) -> TaskSchemas {
    let base = format!("{model}.{}", task.name);
    let input = value_schema(components, &format!("{base}.Input"), &task.input);
    let input = json!({"$ref": components.add(&format!("{base}.Item"), input)});
    let output = value_schema(components, &format!("{base}.Output"), &task.output);
    let outcome = json!({"anyOf": [output, {"$ref": reference("Error")}]});
    let outcome = json!({"$ref": components.add(&format!("{base}.Outcome"), outcome)});
    let parameters = (!task.parameters_schema.is_null()).then(|| {
        let name = format!("{base}.Parameters");
        json!({"$ref": components.add_foreign(&name, &task.parameters_schema)})
    });

    let items = json!({"type": "array", "minItems": 1, "maxItems": max_items, "items": input});
    let envelope = |member: &str, schema: &Json| {
        let mut properties = Map::new();
        properties.insert(member.to_owned(), schema.clone());
        if let Some(parameters) = &parameters {
            properties.insert("parameters".to_owned(), parameters.clone());
        }
        json!({
            "type": "object",
            "required": [member],
            "additionalProperties": false,
            "properties": properties,
        })
    };
    let request = json!({"oneOf": [envelope("inputs", &items), envelope("input", &input)]});
    let request = components.add(&format!("{base}.Request"), request);

    let reply = |member: &str, schema: Json, with_error: bool| {
        let mut required = vec!["model", "task", member, "inference_time"];
        let mut properties = json!({
            "model": {"type": "string", "const": model},
            "task": {"type": "string", "const": task.name},
            "inference_time": {"type": "number", "description": "Seconds in the model."},
        });
        properties[member] = schema;
        if with_error {
            required.push("error");
            properties["error"] = json!({"$ref": "#/components/schemas/Error/properties/error"});
        }
        json!({"type": "object", "required": required, "properties": properties})
    };
    let outcomes = json!({"type": "array", "minItems": 1, "items": outcome});
    let errors = json!({"type": "array", "minItems": 1, "items": {"$ref": reference("Error")}});
    let replies = json!({"oneOf": [reply("outputs", outcomes, false), reply("output", output, false)]});
    let failed = json!({"anyOf": [{"$ref": reference("Error")}, reply("outputs", errors, true)]});
    TaskSchemas {
        request,
        reply: components.add(&format!("{base}.Reply"), replies),
        failed: components.add(&format!("{base}.Failed"), failed),
    }
}

/// The schema of one input or output in the JSON form of the native routes.
fn value_schema(components: &mut Components, name: &str, value: &ValueManifest) -> Json {
    let mut forms: Vec<Json> = value
        .kinds
        .iter()
        .map(|kind| match kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Bytes => bytes_schema(value),
            Kind::Json if value.schema.is_null() => json!({}),
            Kind::Json => json!({"$ref": components.add_foreign(name, &value.schema)}),
            Kind::Tensors => tensors_schema(&value.tensors),
        })
        .collect();
    match forms.len() {
        1 => forms.remove(0),
        _ => json!({ "anyOf": forms }),
    }
}

fn bytes_schema(value: &ValueManifest) -> Json {
    let mut media_type = json!({"type": "string"});
    if !value.media_types.is_empty() {
        media_type["examples"] = json!(value.media_types);
        if value.media_types.iter().all(|pattern| !pattern.contains('*')) {
            media_type["enum"] = json!(value.media_types);
        }
    }
    json!({
        "type": "object",
        "required": ["b64"],
        "additionalProperties": false,
        "properties": {
            // The pattern is what generated requests need: no generator knows `contentEncoding`.
            "b64": {"type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*$"},
            "media_type": media_type,
        },
    })
}

fn tensors_schema(tensors: &[TensorManifest]) -> Json {
    let mut properties = Map::new();
    for tensor in tensors {
        let mut schema = tensor_schema(tensor);
        let shape = format!("{} {:?}", tensor.dtype, tensor.shape);
        schema["description"] = match tensor.description.as_str() {
            "" => shape.into(),
            description => format!("{shape}. {description}").into(),
        };
        properties.insert(tensor.name.clone(), schema);
    }
    let names: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let object = json!({
        "type": "object",
        "required": names,
        "additionalProperties": false,
        "properties": properties,
    });
    match tensors {
        [only] => json!({"anyOf": [object, tensor_schema(only)]}),
        _ => object,
    }
}

fn tensor_schema(tensor: &TensorManifest) -> Json {
    let element = element_schema(&tensor.dtype);
    let array = |items: Json, length: Option<u64>| match length {
        Some(length) => {
            json!({"type": "array", "items": items, "minItems": length, "maxItems": length})
        }
        None => json!({"type": "array", "items": items}),
    };
    let dims: Vec<Option<u64>> = tensor.shape.iter().map(|&dim| u64::try_from(dim).ok()).collect();
    let nested = dims
        .iter()
        .rev()
        .fold(element.clone(), |inner, &dim| array(inner, dim));
    if dims.len() < 2 {
        return nested;
    }
    // Of a shape with an open dimension not every length fits, which no schema can say, so only whole shapes are promised.
    let flat = dims
        .into_iter()
        .try_fold(1u64, |product, dim| product.checked_mul(dim?));
    match flat {
        Some(length) => json!({"anyOf": [nested, array(element, Some(length))]}),
        None => nested,
    }
}

fn element_schema(dtype: &str) -> Json {
    match DType::from_name(dtype) {
        Some(DType::Bool) => json!({"type": "boolean"}),
        Some(DType::Bytes) => json!({"type": "string"}),
        Some(DType::Uint8) => json!({"type": "integer", "minimum": 0, "maximum": u8::MAX}),
        Some(DType::Uint16) => json!({"type": "integer", "minimum": 0, "maximum": u16::MAX}),
        Some(DType::Uint32) => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
        Some(DType::Uint64) => json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
        Some(DType::Int8) => json!({"type": "integer", "minimum": i8::MIN, "maximum": i8::MAX}),
        Some(DType::Int16) => json!({"type": "integer", "minimum": i16::MIN, "maximum": i16::MAX}),
        Some(DType::Int32) => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        Some(DType::Int64) => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        Some(DType::Fp16) => json!({"type": "number", "minimum": -65504, "maximum": 65504}),
        Some(DType::Fp32 | DType::Bf16) => {
            json!({"type": "number", "minimum": -3.3e38, "maximum": 3.3e38})
        }
        Some(DType::Fp64) => json!({"type": "number"}),
        None => json!({}),
    }
}
