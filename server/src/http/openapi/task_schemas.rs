//! JSON Schemas of the requests and replies of a task.

use plugin_abi::manifest::{Kind, TaskManifest, ValueManifest};
use serde_json::{Value as Json, json};

use super::components::Components;
use super::plugin_schema;
use super::tensor_schemas::tensors_schema;

/// Schemas of a task.
pub(super) struct TaskSchemas {
    /// An input item.
    pub(super) item: Json,
    /// The parameters, or null.
    pub(super) parameters: Json,
    /// A native request.
    pub(super) request: Json,
    /// A native reply.
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

        let reply = |components: &mut Components,
                     name: &str,
                     member: &str,
                     schema: Json,
                     error: Option<&Json>| {
            let mut required = vec!["model", "task", member, "inference_time"];
            let mut properties = json!({
                "model": {"type": "string", "const": model},
                "task": {"type": "string", "const": task.name},
                "inference_time": {"type": "number", "description": "Time spent running the model, in seconds."},
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

/// Schema of `parameters` in a request. Null means that there are none.
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

/// Schema of an input or output in the native JSON form.
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

/// Regular expression for base64 with or without padding, in which the unused bits of the last character are zero.
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
            // Request generators ignore `contentEncoding` and need the pattern.
            "b64": {"type": "string", "contentEncoding": "base64", "pattern": format!("^{BASE64}$")},
            "media_type": media_type,
        },
    });
    // If the task also takes text or JSON, a string is read as that and not as a data URI.
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
