//! JSON Schemas of requests and replies.

use plugin_abi::manifest::{Kind, TaskManifest, TensorManifest, ValueManifest};
use serde_json::{Map, Value as Json, json};

use super::components::Components;
use super::plugin_schema;
use crate::api::tensors::{BYTES, JSON, TEXT};
use crate::values::DType;

/// States of a model, as `/v1/models` and `/health` name them.
const STATES: [&str; 7] = [
    "loading",
    "untried",
    "ready",
    "recovering",
    "crash loop",
    "failed",
    "unloaded",
];

/// Schemas of what the server says about itself and its models.
pub(super) struct ServerSchemas {
    pub(super) model: Json,
    pub(super) models: Json,
    pub(super) health: Json,
    pub(super) live: Json,
    pub(super) ready: Json,
    pub(super) root: Json,
}

impl ServerSchemas {
    pub(super) fn add(components: &mut Components) -> Self {
        let value = components.add("ModelValue", model_value());
        let task = components.add("ModelTask", model_task(&value));
        let model = components.add("Model", model_schema(&task));
        let models = components.add(
            "ModelList",
            json!({
                "type": "object",
                "required": ["object", "data", "models"],
                "properties": {
                    "object": {"type": "string", "const": "list"},
                    "data": {"type": "array", "items": model},
                    "models": {"type": "array", "items": model, "description": "The same, for clients of KServe."},
                },
            }),
        );
        let flags = |names: &[&str]| {
            let properties: Map<String, Json> = names
                .iter()
                .map(|&name| (name.to_owned(), json!({"type": "boolean"})))
                .collect();
            json!({"type": "object", "required": names, "properties": properties})
        };
        Self {
            model,
            models,
            health: components.add(
                "Health",
                json!({
                    "type": "object",
                    "required": ["status", "ready", "models"],
                    "properties": {
                        "status": {"type": "string", "enum": ["ok", "not ready", "stopping"]},
                        "ready": {"type": "boolean"},
                        "models": {
                            "type": "object",
                            "description": "The state of each model, by its name.",
                            "additionalProperties": {"type": "string", "enum": STATES},
                        },
                    },
                }),
            ),
            live: components.add("Liveness", flags(&["live"])),
            ready: components.add("Readiness", flags(&["ready"])),
            root: components.add(
                "Root",
                json!({
                    "type": "object",
                    "required": ["name", "version", "models", "health", "metrics"],
                    "properties": {
                        "name": {"type": "string"},
                        "version": {"type": "string"},
                        "status": {"type": "string"},
                        "models": {"type": "string"},
                        "health": {"type": "string"},
                        "metrics": {"type": "string"},
                        "docs": {"type": "string"},
                        "openapi": {"type": "string"},
                    },
                }),
            ),
        }
    }
}

fn model_value() -> Json {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "type": "object",
        "required": ["kinds", "media_types", "schema", "tensors"],
        "properties": {
            "kinds": {"type": "array", "items": {"type": "string", "enum": ["text", "bytes", "json", "tensors"]}},
            "media_types": texts,
            "schema": {"description": "JSON Schema, if the value is JSON."},
            "tensors": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "dtype", "shape"],
                "properties": {
                    "name": {"type": "string"},
                    "dtype": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "description": {"type": "string"},
                    "sequence": {
                        "type": "boolean",
                        "description": "Whether it stands for any number of tensors `name.0`, `name.1`, ….",
                    },
                    "unranked": {"type": "boolean", "description": "Whether it has any number of dimensions."},
                },
            }},
        },
    })
}

fn model_task(value: &Json) -> Json {
    json!({
        "type": "object",
        "required": ["name", "description", "input", "output", "parameters_schema", "examples", "unbatched", "trial",
            "policy", "max_batch_size", "max_queue_size"],
        "properties": {
            "name": {"type": "string"},
            "description": {"type": "string"},
            "input": value,
            "output": value,
            "parameters_schema": {"description": "JSON Schema of `parameters`; null if the task takes none."},
            "examples": {"type": "array", "items": {}},
            "unbatched": {
                "type": "boolean",
                "description": "Whether the tensors of an item have no batch dimension, so that a request is one item.",
            },
            "trial": {
                "type": "object",
                "description": "Whether the task has computed anything, while it was loaded or since.",
                "required": ["outcome", "reason"],
                "properties": {
                    "outcome": {"type": "string", "enum": ["succeeded", "failed", "untried"]},
                    "reason": {"type": ["string", "null"]},
                },
            },
            "policy": {"type": "string", "description": "When a batch is closed."},
            "learned": {"description": "What the batching policy has learned about the task, or null."},
            "max_batch_size": {"type": "integer", "minimum": 1},
            "max_batch_weight": {"type": ["integer", "null"]},
            "max_queue_size": {"type": "integer", "minimum": 1},
            "route": {"type": ["string", "null"], "description": "The short route of the task."},
        },
    })
}

fn model_schema(task: &Json) -> Json {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "name", "ready", "state",
            "model_version_status", "tasks"],
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string", "const": "model"},
            "created": {"type": "integer", "description": "Time when it was loaded, in Unix seconds; 0 if it is not."},
            "owned_by": {"type": "string"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "ready": {"type": "boolean"},
            "state": {"type": "string", "enum": STATES},
            "model_version_status": super::v1_routes::version_status(),
            "reason": text("Why it failed to load."),
            "last_reload_error": text("Why the last reload failed; the old generation keeps serving."),
            "generation": {"type": "integer", "description": "Number of times it was loaded."},
            "platform": {"type": "string"},
            "details": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Facts that the plugin reports, such as the runtime that it has chosen, and why.",
            },
            "plugin": {
                "type": "object",
                "required": ["name", "version", "description", "sdk_version"],
                "properties": {
                    "name": {"type": "string"},
                    "version": {"type": "string"},
                    "description": {"type": "string"},
                    "sdk_version": {"type": "string"},
                },
            },
            "default_task": {"type": "string"},
            "tasks": {"type": "array", "items": task},
        },
    })
}

/// Schemas of one task.
pub(super) struct TaskSchemas {
    /// An item.
    pub(super) item: Json,
    /// The parameters, or null.
    pub(super) parameters: Json,
    /// A request of the native routes.
    pub(super) request: Json,
    /// A reply of the native routes.
    pub(super) reply: Json,
    /// A reply in which every item failed.
    pub(super) all_failed: Json,
}

impl TaskSchemas {
    pub(super) fn add(
        components: &mut Components,
        model: &str,
        task: &TaskManifest,
        max_items: usize,
    ) -> Self {
        let base = format!("{model} {}", task.name);
        let item = value_schema(components, &format!("{base} input"), &task.input);
        let item = components.add(&format!("{base} item"), item);
        let output = value_schema(components, &format!("{base} output"), &task.output);
        let output = components.add(&format!("{base} result"), output);
        let parameters = parameters(components, &base, task);

        let request = |components: &mut Components, name: &str, member: &str, schema: Json| {
            let object = json!({
                "type": "object",
                "required": [member],
                "additionalProperties": false,
                "properties": {member: schema, "parameters": parameters},
            });
            components.add(&format!("{base} {name}"), object)
        };
        let items = json!({"type": "array", "minItems": 1, "maxItems": max_items, "items": item});
        let list = request(components, "list request", "inputs", items);
        let single = request(components, "single request", "input", item.clone());

        let reply =
            |components: &mut Components, name: &str, member: &str, schema: Json, error: Option<&Json>| {
                let mut required = vec!["model", "task", member, "inference_time"];
                let mut properties = json!({
                    "model": {"type": "string", "const": model},
                    "task": {"type": "string", "const": task.name},
                    "inference_time": {"type": "number", "description": "Seconds in the model."},
                });
                properties[member] = schema;
                if let Some(error) = error {
                    required.push("error");
                    properties["error"] = error.clone();
                }
                let object = json!({"type": "object", "required": required, "properties": properties});
                components.add(&format!("{base} {name}"), object)
            };
        let list_of = |items: Json| json!({"type": "array", "minItems": 1, "items": items});
        let error = json!({"$ref": super::components::reference("Error")});
        let detail = json!({"$ref": super::components::reference("ErrorDetail")});
        let outcome = components.add(&format!("{base} outcome"), json!({"anyOf": [output, error]}));
        let replies = json!({"oneOf": [
            reply(components, "list reply", "outputs", list_of(outcome), None),
            reply(components, "single reply", "output", output, None),
        ]});
        Self {
            request: components.add(&format!("{base} request"), json!({"oneOf": [list, single]})),
            reply: components.add(&format!("{base} reply"), replies),
            all_failed: reply(
                components,
                "failed reply",
                "outputs",
                list_of(error),
                Some(&detail),
            ),
            item,
            parameters,
        }
    }
}

/// What `parameters` of a request may be: null is the same as nothing.
fn parameters(components: &mut Components, base: &str, task: &TaskManifest) -> Json {
    if task.parameters_schema.is_null() {
        return json!({
            "type": ["object", "null"],
            "maxProperties": 0,
            "description": "The task takes no parameters.",
        });
    }
    let parameters = plugin_schema::add(components, &format!("{base} parameters"), &task.parameters_schema);
    json!({"anyOf": [parameters, {"type": "null"}]})
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
            Kind::Json => plugin_schema::add(components, name, &value.schema),
            Kind::Tensors => tensors_schema(&value.tensors),
        })
        .collect();
    match forms.len() {
        1 => forms.remove(0),
        _ => json!({ "anyOf": forms }),
    }
}

/// Base64 with or without padding, whose last character has no bits to spare, as a regular expression.
const BASE64: &str = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw](==)?|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=?)?";

fn bytes_schema(value: &ValueManifest) -> Json {
    let mut media_type = json!({"type": "string"});
    if !value.media_types.is_empty() {
        media_type["examples"] = json!(value.media_types);
        if value.media_types.iter().all(|pattern| !pattern.contains('*')) {
            media_type["enum"] = json!(value.media_types);
        }
    }
    let object = json!({
        "type": "object",
        "required": ["b64"],
        "additionalProperties": false,
        "properties": {
            // The pattern is what generated requests need: no generator knows `contentEncoding`.
            "b64": {"type": "string", "contentEncoding": "base64", "pattern": format!("^{BASE64}$")},
            "media_type": media_type,
        },
    });
    // A string is text or JSON for a task that takes these too.
    if value
        .kinds
        .iter()
        .any(|kind| matches!(kind, Kind::Text | Kind::Json))
    {
        return object;
    }
    let exact =
        !value.media_types.is_empty() && value.media_types.iter().all(|pattern| !pattern.contains('*'));
    let media_types = if exact {
        let escaped = value
            .media_types
            .iter()
            .map(|name| name.replace('.', "\\.").replace('+', "\\+"));
        escaped.collect::<Vec<_>>().join("|")
    } else {
        "[a-z]+/[a-z0-9.+-]+".to_owned()
    };
    json!({"anyOf": [object, {
        "type": "string",
        "description": "A data URI in base64.",
        "pattern": format!("^data:({media_types})?;base64,{BASE64}$"),
    }]})
}

fn tensors_schema(tensors: &[TensorManifest]) -> Json {
    let (mut properties, mut patterns) = (Map::new(), Map::new());
    for tensor in tensors {
        let mut schema = tensor_schema(tensor);
        let shape = match tensor.unranked {
            true => format!("{} of any shape", tensor.dtype),
            false => format!("{} {:?}", tensor.dtype, tensor.shape),
        };
        schema["description"] = match tensor.description.as_str() {
            "" => shape.into(),
            description => format!("{shape}. {description}").into(),
        };
        match tensor.sequence {
            true => patterns.insert(sequence_pattern(&tensor.name), schema),
            false => properties.insert(tensor.name.clone(), schema),
        };
    }
    let object = object_schema(properties, patterns);
    match tensors {
        [only] if !only.sequence => json!({"anyOf": [object, tensor_schema(only)]}),
        _ => object,
    }
}

/// An object with these members, all of them required, and with any of those whose names match a pattern.
fn object_schema(properties: Map<String, Json>, patterns: Map<String, Json>) -> Json {
    let names: Vec<&String> = properties.keys().collect();
    let mut object = json!({"type": "object", "required": names, "additionalProperties": false});
    object["properties"] = properties.into();
    if !patterns.is_empty() {
        object["patternProperties"] = patterns.into();
    }
    object
}

/// The names of the tensors of a sequence, as a regular expression.
fn sequence_pattern(name: &str) -> String {
    let mut pattern = "^".to_owned();
    for character in name.chars() {
        if character.is_ascii_punctuation() && !matches!(character, '_' | '-' | '/') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern + "\\.(0|[1-9][0-9]*)$"
}

fn tensor_schema(tensor: &TensorManifest) -> Json {
    let nested = nested_schema(tensor);
    if tensor.shape.len() < 2 {
        return nested;
    }
    // A schema cannot express which lengths fit a shape with an open dimension, so only nested lists are documented there.
    let flat = tensor.shape.iter().try_fold(1u64, |product, &dim| {
        product.checked_mul(u64::try_from(dim).ok()?)
    });
    match flat {
        Some(length) => {
            let flat = array_schema(element_schema(&tensor.dtype), Some(length));
            json!({"anyOf": [nested, flat]})
        }
        None => nested,
    }
}

/// The elements of one item of a tensor, as lists that are nested as its shape.
fn nested_schema(tensor: &TensorManifest) -> Json {
    if tensor.unranked {
        return json!({});
    }
    let dims = tensor.shape.iter().rev();
    dims.fold(element_schema(&tensor.dtype), |inner, &dim| {
        array_schema(inner, u64::try_from(dim).ok())
    })
}

fn array_schema(items: Json, length: Option<u64>) -> Json {
    match length {
        Some(length) => json!({"type": "array", "items": items, "minItems": length, "maxItems": length}),
        None => json!({"type": "array", "items": items}),
    }
}

/// The columns (`inputs`) of the V1 protocol: an object with the tensors of a batch, or its only tensor without a name. A
/// task that takes texts, bytes or JSON documents has one column, the list of `items`.
pub(super) fn columns_schema(task: &TaskManifest, item: &Json, max_items: usize) -> Json {
    let input = &task.input;
    let max_items = if task.unbatched { 1 } else { max_items };
    let column = |items: Json| json!({"type": "array", "minItems": 1, "maxItems": max_items, "items": items});
    let object = |columns: Map<String, Json>| object_schema(columns, Map::new());
    let mut forms = Vec::new();
    if input.kinds.contains(&Kind::Tensors) && task.unbatched {
        forms.push(tensors_schema(&input.tensors));
    } else if input.kinds.contains(&Kind::Tensors) {
        let columns = input.tensors.iter().map(|tensor| {
            let column = column(nested_schema(tensor));
            (tensor.name.clone(), column)
        });
        forms.push(object(columns.collect()));
        if let [only] = input.tensors.as_slice() {
            forms.push(column(nested_schema(only)));
        }
    } else {
        forms.push(column(item.clone()));
    }
    for (kind, name) in [(Kind::Text, TEXT), (Kind::Bytes, BYTES), (Kind::Json, JSON)] {
        if input.kinds.contains(&kind) && input.tensors.iter().all(|tensor| tensor.name != name) {
            let items = (name.to_owned(), column(item.clone()));
            forms.push(object(std::iter::once(items).collect()));
        }
    }
    let items = match task.unbatched {
        true => "a request is one item",
        false => "the first dimension counts the items",
    };
    let description = format!("The only input, or an object of all inputs; {items}.");
    json!({"description": description, "anyOf": forms})
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
