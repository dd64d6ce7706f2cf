//! The routes of the Open Inference Protocol, and of OpenAI's embeddings.

use std::collections::BTreeSet;

use plugin_abi::manifest::{Kind, TaskManifest};
use serde_json::{Map, Value as Json, json};

use super::components::Components;
use super::native_routes::{OF_RUNNING, binary};
use super::operations::{
    Operation, Operations, examples, json_answer, json_body, path_parameter, path_segment,
};
use super::task_schemas::TaskSchemas;
use super::{Access, OPEN_INFERENCE, OPENAI};
use crate::api::tensors::{self, BYTES, JSON, TEXT};
use crate::codec::decode_example;
use crate::http::native::reply::write_tensor;
use crate::values::{DType, Tensor, Value};

/// A task as these protocols know it.
pub(super) struct Addressed<'a> {
    /// `model.task`
    pub(super) name: String,
    /// `model`, if this is its default task.
    pub(super) short_name: Option<&'a str>,
    pub(super) task: &'a TaskManifest,
    pub(super) schemas: &'a TaskSchemas,
}

/// Adds `/v1/embeddings`, if a task produces embeddings.
pub(super) fn add_openai(operations: &mut Operations, components: &mut Components, tasks: &[Addressed<'_>]) {
    let Some(Addressed { name, task, .. }) = tasks.iter().find(|addressed| addressed.task.embedding) else {
        return;
    };
    let request = json!({
        "type": "object",
        "required": ["model", "input"],
        "properties": {
            "model": {"type": "string", "examples": [name]},
            "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
            "encoding_format": {"type": ["string", "null"], "enum": ["float", "base64", null]},
            "dimensions": dimensions_schema(tasks),
            "user": {"description": "Accepted and ignored."},
        },
    });
    let vector = json!({"anyOf": [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "description": "Base64 of little-endian 32 bit floats."},
    ]});
    let reply = json!({
        "type": "object",
        "required": ["object", "data", "model", "usage"],
        "properties": {
            "object": {"type": "string", "const": "list"},
            "data": {"type": "array", "items": {
                "type": "object",
                "required": ["object", "index", "embedding"],
                "properties": {
                    "object": {"type": "string", "const": "embedding"},
                    "index": {"type": "integer"},
                    "embedding": vector,
                },
            }},
            "model": {"type": "string"},
            "usage": {
                "type": "object",
                "required": ["prompt_tokens", "total_tokens"],
                "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
            },
        },
    });
    let (request, reply) = (
        components.add("EmbeddingsRequest", request),
        components.add("EmbeddingsReply", reply),
    );
    let example = task.examples.first().filter(|example| example.is_string());
    let example = example.map(|example| json!({"model": name, "input": [example]}));
    operations.add(Operation {
        method: "post",
        path: "/v1/embeddings".to_owned(),
        id: "embeddings".to_owned(),
        tag: OPENAI,
        summary: "Embed texts".to_owned(),
        description: String::new(),
        parameters: Vec::new(),
        body: Some(json_body(&request, true, examples(example))),
        answers: vec![(200, json_answer("The embeddings.", &reply))],
        failures: OF_RUNNING,
        all_failed: None,
        access: Access::Client,
    });
}

/// Schema of `dimensions`: the declared sizes if no task can change the size of its embeddings, otherwise any size.
fn dimensions_schema(tasks: &[Addressed<'_>]) -> Json {
    let fixed = |task: &TaskManifest| {
        if !task.parameters_schema["properties"]["dimensions"].is_null() {
            return None;
        }
        let size = task.output.tensors.first()?.shape.first()?;
        u64::try_from(*size).ok()
    };
    let embeddings = tasks
        .iter()
        .map(|addressed| addressed.task)
        .filter(|task| task.embedding);
    match embeddings.map(fixed).collect::<Option<BTreeSet<u64>>>() {
        Some(sizes) => {
            let sizes = sizes.into_iter().map(Json::from).chain([Json::Null]);
            json!({"type": ["integer", "null"], "enum": sizes.collect::<Vec<_>>()})
        }
        None => json!({"type": ["integer", "null"], "minimum": 1}),
    }
}

/// Body of a request to the model repository, which has `member` and may name the only repository.
fn repository_request(member: &str, schema: &Json) -> Json {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            member: schema,
            "repository_name": {
                "type": "string", "maxLength": 0, "description": "Empty: the configuration is the only repository.",
            },
        },
    })
}

/// Adds the routes of the Open Inference Protocol.
pub(super) fn add_open_inference(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[Addressed<'_>],
    models: &[String],
) {
    let request = components.add("OpenInferenceRequest", request_schema());
    let reply = components.add("OpenInferenceReply", reply_schema());
    for addressed in tasks {
        let id = format!("v2 infer {}", addressed.name);
        operations.add(infer(addressed, &id, &request, &reply));
    }
    let names: Vec<String> = tasks.iter().map(|addressed| addressed.name.clone()).collect();
    add_questions(operations, components, &names);
    add_repository(operations, components, models);
}

fn infer<'a>(addressed: &Addressed<'_>, id: &'a str, request: &Json, reply: &Json) -> Operation<'a> {
    let Addressed { name, task, .. } = addressed;
    let items = match task.unbatched {
        true => "A request is one item.",
        false => "The first dimension counts items.",
    };
    let mut success = json_answer("The outputs.", reply);
    success["content"]["application/octet-stream"] = json!({"schema": binary()});
    Operation {
        method: "post",
        path: format!("/v2/models/{}/infer", path_segment(name)),
        id: id.to_owned(),
        tag: OPEN_INFERENCE,
        summary: format!("Run `{name}`"),
        description: format!(
            "Inputs: {}. Outputs: {}. {items} With the header `Inference-Header-Content-Length`, binary tensors \
             follow the JSON.",
            tensors::listed(&tensors::inputs(task)),
            tensors::listed(&tensors::outputs(task))
        ),
        parameters: Vec::new(),
        body: Some(json_body(request, true, examples(infer_example(task)))),
        answers: vec![(200, success)],
        failures: OF_RUNNING,
        all_failed: None,
        access: Access::Client,
    }
}

/// The routes that describe the server and its models.
fn add_questions(operations: &mut Operations, components: &mut Components, names: &[String]) {
    let mut add = |path: &str, id: &str, summary: &str, schema: &Json, access: Access| {
        let of_model = path.contains("{model}");
        let mut answers = vec![(200, json_answer(summary, schema))];
        if path == "/v2/health/ready" {
            answers.push((
                503,
                json_answer("A model is not ready, or the server is shutting down.", schema),
            ));
        }
        operations.add(Operation {
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
            answers,
            failures: if of_model { &[404, 406, 503] } else { &[406] },
            all_failed: None,
            access,
        });
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
        "Name, version and extensions of the server",
        &server,
        Access::Client,
    );
    add(
        "/v2/health/live",
        "v2 live",
        "Whether the process is alive",
        &live,
        Access::Open,
    );
    add(
        "/v2/health/ready",
        "v2 ready",
        "Whether every model is ready",
        &ready,
        Access::Open,
    );
    add(
        "/v2/models/stats",
        "v2 all statistics",
        "Statistics of all models",
        &statistics,
        Access::Client,
    );
    add(
        "/v2/models/{model}",
        "v2 metadata",
        "Inputs and outputs of a model",
        &metadata,
        Access::Client,
    );
    add(
        "/v2/models/{model}/ready",
        "v2 model ready",
        "Whether a model is ready",
        &model_ready,
        Access::Client,
    );
    add(
        "/v2/models/{model}/config",
        "v2 config",
        "Configuration of a model, as Triton has it",
        &config,
        Access::Client,
    );
    add(
        "/v2/models/{model}/stats",
        "v2 statistics",
        "Statistics of a model",
        &statistics,
        Access::Client,
    );
}

/// The routes that list models, and load and unload them.
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
    let ready = json!({"type": "boolean", "description": "Whether to list only models that are ready."});
    let asked = repository_request("ready", &ready);
    operations.add(Operation {
        method: "post",
        path: "/v2/repository/index".to_owned(),
        id: "v2 index".to_owned(),
        tag: OPEN_INFERENCE,
        summary: "List the models".to_owned(),
        description: String::new(),
        parameters: Vec::new(),
        body: Some(json_body(&asked, false, Map::new())),
        answers: vec![(200, json_answer("The models.", &index))],
        failures: &[400, 406, 408, 413, 415],
        all_failed: None,
        access: Access::Client,
    });
    let no_parameters = json!({"type": ["object", "null"], "maxProperties": 0});
    let unload_parameters = json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {"unload_dependents": {
            "type": "boolean", "description": "Accepted and ignored: no model depends on another.",
        }},
    });
    for (verb, summary, parameters) in [
        (
            "load",
            "Load a model as the configuration has it now",
            no_parameters,
        ),
        ("unload", "Take a model out of service", unload_parameters),
    ] {
        let done = json!({"type": "object"});
        operations.add(Operation {
            method: "post",
            path: format!("/v2/repository/models/{{model}}/{verb}"),
            id: format!("v2 {verb}"),
            tag: OPEN_INFERENCE,
            summary: summary.to_owned(),
            description: "Requires the admin key: `admin_key` of the configuration.".to_owned(),
            parameters: vec![path_parameter("model", models)],
            body: Some(json_body(
                &repository_request("parameters", &parameters),
                false,
                Map::new(),
            )),
            answers: vec![(200, json_answer("Done.", &done))],
            failures: &[400, 404, 406, 408, 413, 415, 500, 503],
            all_failed: None,
            access: Access::Admin,
        });
    }
}

/// A whole number that clients may also send as text.
fn number_or_text(description: &str) -> Json {
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
            "data": {"type": "array", "items": {}, "description": "Elements, flat or nested as the shape says."},
        },
    });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": {"type": ["object", "null"], "properties": {
                "timeout": number_or_text("Microseconds."),
                "priority": number_or_text("1 is the highest."),
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

/// The first example of a task as a request; `None` if it has none, or one that JSON cannot express.
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

/// A tensor of an item as a request has it: `one_item` is the batch dimension, if there is one.
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
