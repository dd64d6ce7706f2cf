//! The routes of the Open Inference Protocol.

use plugin_abi::manifest::{Kind, TaskManifest};
use serde_json::{Map, Value as Json, json};

use super::components::Components;
use super::native_routes::{RUN_FAILURES, binary};
use super::operations::{
    Operation, Operations, examples, json_body, json_response, path_parameter, path_segment,
};
use super::{Access, NamedTask, OPEN_INFERENCE};
use crate::api::VERSION;
use crate::api::tensors::{self, BYTES, JSON, TEXT};
use crate::codec::{decode_example, write_tensor};
use crate::values::{DType, Tensor, Value};

/// Schema of a request to the model repository, with one specific member.
fn repository_request(member: &str, schema: &Json) -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            member: schema,
            "repository_name": {
                "type": "string", "maxLength": 0, "description": "Must be empty: the configuration is the only repository.",
            },
        },
    })
}

/// Adds the routes of the Open Inference Protocol.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    models: &[String],
) {
    let request = components.add("OpenInferenceRequest", request_schema());
    let reply = components.add("OpenInferenceReply", reply_schema());
    for named in tasks {
        let id = format!("v2 infer {}", named.name);
        let operation = infer(named, &id, &request, &reply);
        let name = path_segment(&named.name);
        operations.add_alias(operation.at(format!("/v2/models/{name}/versions/{VERSION}/infer")));
        operations.add(operation);
    }
    let names: Vec<String> = tasks.iter().map(|named| named.name.clone()).collect();
    add_metadata(operations, components, &names);
    add_repository(operations, components, models);
}

fn infer<'a>(named: &NamedTask<'_>, id: &'a str, request: &Json, reply: &Json) -> Operation<'a> {
    let NamedTask { name, task, .. } = named;
    let items = match task.unbatched {
        true => "Each request is one item.",
        false => "The first dimension is the batch dimension.",
    };
    let mut success = json_response("Outputs.", reply);
    success["content"]["application/octet-stream"] = json!({"schema": binary()});
    Operation {
        method: "post",
        path: format!("/v2/models/{}/infer", path_segment(name)),
        id: id.to_owned(),
        tag: OPEN_INFERENCE,
        summary: format!("Run `{name}`"),
        description: format!(
            "Inputs: {}. Outputs: {}. {items} Binary tensors follow the JSON if the header \
            `Inference-Header-Content-Length` states the length of the JSON.",
            tensors::list_specs(&tensors::inputs(task)),
            tensors::list_specs(&tensors::outputs(task))
        ),
        parameters: Vec::new(),
        body: Some(json_body(request, true, examples(infer_example(task)))),
        responses: vec![(200, success)],
        failures: RUN_FAILURES,
        all_failed: None,
        access: Access::Client,
    }
}

/// Adds the routes that describe the server and its models.
fn add_metadata(operations: &mut Operations, components: &mut Components, names: &[String]) {
    let mut add = |path: &str, id: &str, summary: &str, schema: &Json, access: Access| {
        let of_model = path.contains("{model}");
        let mut responses = vec![(200, json_response(summary, schema))];
        if path == "/v2/health/ready" {
            responses.push((
                503,
                json_response("A model is not ready, or the server is shutting down.", schema),
            ));
        }
        let operation = Operation {
            method: "get",
            path: path.to_owned(),
            id: id.to_owned(),
            tag: OPEN_INFERENCE,
            summary: summary.to_owned(),
            description: String::new(),
            parameters: if of_model {
                vec![path_parameter("model", names)]
            } else {
                Vec::new()
            },
            body: None,
            responses,
            failures: if of_model { &[404, 406, 503] } else { &[406] },
            all_failed: None,
            access,
        };
        if of_model {
            operations.add_alias(operation.at_version());
        } else if path == "/v2" {
            operations.add_alias(operation.at("/v2/".to_owned()));
        }
        operations.add(operation);
    };
    let object = |required: Json, properties: Json| json!({"type": "object", "required": required, "properties": properties});
    let text = json!({"type": "string"});
    let flag = json!({"type": "boolean"});
    let texts = json!({"type": "array", "items": text});
    let tensor = object(
        json!(["name", "datatype", "shape"]),
        json!({"name": text, "datatype": text, "shape": {"type": "array", "items": {"type": "integer"}}}),
    );
    let tensor = components.add("OpenInferenceTensorMetadata", tensor);
    let tensors = json!({"type": "array", "items": tensor});
    let metadata = object(
        json!(["name", "versions", "platform", "inputs", "outputs"]),
        json!({"name": text, "versions": texts, "platform": text, "inputs": tensors, "outputs": tensors}),
    );
    let metadata = components.add("OpenInferenceModelMetadata", metadata);
    let server = object(
        json!(["name", "version", "extensions"]),
        json!({"name": text, "version": text, "extensions": texts}),
    );
    let server = components.add("OpenInferenceServerMetadata", server);
    let live = components.add(
        "OpenInferenceLive",
        object(json!(["live"]), json!({"live": flag})),
    );
    let ready = object(json!(["live", "ready"]), json!({"live": flag, "ready": flag}));
    let ready = components.add("OpenInferenceReady", ready);
    let model_ready = object(json!(["name", "ready"]), json!({"name": text, "ready": flag}));
    let model_ready = components.add("OpenInferenceModelReady", model_ready);
    let config = object(
        json!(["name", "max_batch_size"]),
        json!({"name": text, "max_batch_size": {"type": "integer"}}),
    );
    let config = components.add("OpenInferenceModelConfig", config);
    let statistics = json!({"type": "array", "items": object(json!(["name", "version"]), json!({"name": text, "version": text}))});
    let statistics = object(json!(["model_stats"]), json!({"model_stats": statistics}));
    let statistics = components.add("OpenInferenceStatistics", statistics);

    add(
        "/v2",
        "v2 server",
        "Get the name, version and extensions of the server",
        &server,
        Access::Client,
    );
    add(
        "/v2/health/live",
        "v2 live",
        "Check liveness",
        &live,
        Access::Open,
    );
    add(
        "/v2/health/ready",
        "v2 ready",
        "Check readiness of all models",
        &ready,
        Access::Open,
    );
    add(
        "/v2/models/stats",
        "v2 all statistics",
        "Get statistics of all models",
        &statistics,
        Access::Client,
    );
    add(
        "/v2/models/{model}",
        "v2 metadata",
        "Get the inputs and outputs of a model",
        &metadata,
        Access::Client,
    );
    add(
        "/v2/models/{model}/ready",
        "v2 model ready",
        "Check readiness of a model",
        &model_ready,
        Access::Client,
    );
    add(
        "/v2/models/{model}/config",
        "v2 config",
        "Get the configuration of a model in Triton's format",
        &config,
        Access::Client,
    );
    add(
        "/v2/models/{model}/stats",
        "v2 statistics",
        "Get statistics of a model",
        &statistics,
        Access::Client,
    );
}

/// Adds the routes that list, load and unload models.
fn add_repository(operations: &mut Operations, components: &mut Components, models: &[String]) {
    let entry = json!({
        "type": "object",
        "required": ["name", "version", "state", "reason"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "state": {"type": "string", "enum": ["READY", "LOADING", "UNAVAILABLE"]},
            "reason": {"type": "string"},
        },
    });
    let entry = components.add("OpenInferenceIndexEntry", entry);
    let index = json!({"type": "array", "items": entry});
    let ready = json!({"type": "boolean", "description": "Whether to list only ready models."});
    let request = repository_request("ready", &ready);
    operations.add(Operation {
        method: "post",
        path: "/v2/repository/index".to_owned(),
        id: "v2 index".to_owned(),
        tag: OPEN_INFERENCE,
        summary: "List the models".to_owned(),
        description: String::new(),
        parameters: Vec::new(),
        body: Some(json_body(&request, false, Map::new())),
        responses: vec![(200, json_response("Name and state of each model.", &index))],
        failures: &[400, 406, 408, 413, 415],
        all_failed: None,
        access: Access::Client,
    });
    let no_parameters = json!({"type": ["object", "null"], "maxProperties": 0});
    let unload_parameters = json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {"unload_dependents": {
            "type": "boolean", "description": "Ignored, since no model depends on another.",
        }},
    });
    for (verb, summary, parameters) in [
        (
            "load",
            "Load a model with its current configuration",
            no_parameters,
        ),
        ("unload", "Unload a model", unload_parameters),
    ] {
        let done = json!({"type": "object"});
        operations.add(Operation {
            method: "post",
            path: format!("/v2/repository/models/{{model}}/{verb}"),
            id: format!("v2 {verb}"),
            tag: OPEN_INFERENCE,
            summary: summary.to_owned(),
            description: "Requires the configured `admin_key`.".to_owned(),
            parameters: vec![path_parameter("model", models)],
            body: Some(json_body(
                &repository_request("parameters", &parameters),
                false,
                Map::new(),
            )),
            responses: vec![(200, json_response("The operation succeeded.", &done))],
            failures: &[400, 404, 406, 408, 413, 415, 500, 503],
            all_failed: None,
            access: Access::Admin,
        });
    }
}

/// Schema of a whole number, which clients can also send as a string.
fn number_or_string(description: &str) -> Json {
    json!({
        "type": ["integer", "string", "null"],
        "minimum": 0,
        "maximum": u64::MAX,
        "pattern": "^[0-9]{1,18}$",
        "description": description,
    })
}

fn request_schema() -> Json {
    let datatypes: Vec<&str> = DType::all().map(DType::name).collect();
    let open = json!({"type": ["object", "null"]});
    let tensor = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string", "enum": datatypes},
            "parameters": open,
            "data": {"type": "array", "items": {}, "description": "Elements, as a flat array or nested according to the shape."},
        },
    });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"], "properties": {
                "timeout": number_or_string("Request timeout in microseconds."),
                "priority": number_or_string("Priority; 1 is the highest."),
                "binary_data_output": {"type": ["boolean", "null"]},
            }},
            "inputs": {"type": "array", "minItems": 1, "items": tensor},
            "outputs": {"type": ["array", "null"], "items": {
                "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "parameters": open},
            }},
        },
    })
}

fn reply_schema() -> Json {
    json!({
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string", "const": "1"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array", "items": {}},
                    "parameters": {"type": "object"},
                },
            }},
        },
    })
}

/// Converts the first example of a task to a request; `None` if there is none, or JSON cannot express it.
fn infer_example(task: &TaskManifest) -> Option<Json> {
    let example = task.examples.first()?;
    let one_item: &[u64] = if task.unbatched { &[] } else { &[1] };
    let element = |name: &str, data: &[u8]| {
        let text = std::str::from_utf8(data).ok()?;
        let shape = [one_item, &[1]].concat();
        Some(json!({"name": name, "shape": shape, "datatype": "BYTES", "data": [text]}))
    };
    let inputs = match decode_example(task, example).ok()?.value {
        Value::Text(text) => vec![element(TEXT, &text)?],
        Value::Json(document) => vec![element(JSON, &document)?],
        Value::Bytes { .. } if task.input.kinds.contains(&Kind::Bytes) => {
            let mut input = element(BYTES, example["b64"].as_str()?.as_bytes())?;
            input["parameters"] = json!({"content_type": "base64"});
            vec![input]
        }
        Value::Bytes { .. } => return None,
        Value::Tensors(tensors) => {
            let examples = tensors.iter().map(|tensor| tensor_example(tensor, one_item));
            examples.collect::<Option<_>>()?
        }
    };
    Some(json!({ "inputs": inputs }))
}

/// Converts a tensor of an item to an input. `one_item` is the batch dimension, if there is one.
fn tensor_example(tensor: &Tensor, one_item: &[u64]) -> Option<Json> {
    let shape = [one_item, tensor.shape()].concat();
    let elements = tensor.elements() as u64;
    let flat = Tensor::new(
        tensor.name(),
        tensor.dtype(),
        vec![elements],
        tensor.data().clone(),
    )
    .ok()?;
    let mut data = Vec::new();
    write_tensor(&mut data, &flat).ok()?;
    let data: Json = serde_json::from_slice(&data).ok()?;
    Some(json!({"name": tensor.name(), "shape": shape, "datatype": tensor.dtype().name(), "data": data}))
}
