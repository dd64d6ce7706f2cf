//! The routes that existing clients know: the Open Inference Protocol, OpenAI's embeddings, and KServe's V1.
//!
//! What their protocols say once and for all is a schema here; what differs from task to task is an example.

use plugin_abi::manifest::{Kind, TaskManifest};
use serde_json::{Map, Value as Json, json};

use super::super::encode::write_tensor;
use super::super::item::decode_example;
use super::DocumentedModel;
use super::schemas::Components;
use crate::api::Code;
use crate::api::tensors::{self, BYTES, JSON, TEXT};
use crate::protocol::{Tensor, Value};

/// Headings of the routes below.
pub(super) fn tags() -> [Json; 3] {
    [
        json!({"name": V1, "description":
            "KServe's V1 and TensorFlow Serving's protocol. A model is called `model.task`, or `model` for its default \
             task. Every route with a model has a twin with `/versions/1` after the model's name."}),
        json!({"name": OPEN_INFERENCE, "description":
            "KServe's V2 and Triton's protocol. A model is called `model.task`, or `model` for its default task. \
             Every route with a model has a twin with `/versions/1` behind its name."}),
        json!({"name": OPENAI, "description": "Embeddings, as OpenAI's clients ask for them."}),
    ]
}

const OPEN_INFERENCE: &str = "Open Inference Protocol";
const OPENAI: &str = "OpenAI";
const V1: &str = "KServe V1 and TensorFlow Serving";

/// Statuses of requests that run a model.
const OF_RUNNING: [u16; 12] = [400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504];
/// Statuses of questions about a model.
const OF_ASKING: [u16; 4] = [401, 404, 406, 503];
/// Statuses of what takes a body that may be empty.
const OF_LISTING: [u16; 7] = [400, 401, 406, 408, 413, 415, 503];
/// Statuses of loading and unloading.
const OF_ORDERS: [u16; 10] = [400, 401, 403, 404, 406, 408, 413, 415, 500, 503];

/// The paths, with their operations.
pub(super) fn paths(models: &[DocumentedModel<'_>], components: &mut Components) -> Map<String, Json> {
    let schemas = Schemas::add(components);
    let mut paths = Map::new();
    let names: Vec<String> = models.iter().map(|model| model.name.to_owned()).collect();
    for model in models {
        for (index, task) in model.manifest.tasks.iter().enumerate() {
            let name = format!("{}.{}", model.name, task.name);
            paths.insert(format!("/v2/models/{name}/infer"), schemas.infer(&name, task));
            let called = if model.default_task == Some(index) {
                model.name
            } else {
                &name
            };
            let path = format!("/v1/models/{called}:predict");
            paths.insert(path, schemas.predict_v1(called, task));
        }
    }
    let tasks = models.iter().flat_map(|model| {
        let tasks = model.manifest.tasks.iter();
        tasks.map(move |task| (format!("{}.{}", model.name, task.name), task))
    });
    let tasks: Vec<(String, &TaskManifest)> = tasks.collect();
    schemas.add_questions(&mut paths, &names, &tasks);
    schemas.add_descriptions_v1(&mut paths, &tasks);
    if let Some((name, task)) = tasks.iter().find(|(_, task)| task.embedding) {
        paths.insert("/v1/embeddings".to_owned(), schemas.embeddings(name, task));
    }
    paths
}

/// References to the schemas that all routes share.
struct Schemas {
    error: Json,
    openai_error: Json,
    request: Json,
    reply: Json,
    rows_or_columns: Json,
    predictions_or_outputs: Json,
    version_status: Json,
    model_metadata: Json,
}

impl Schemas {
    fn add(components: &mut Components) -> Self {
        let mut add = |name: &str, schema: Json| json!({"$ref": components.add(name, schema)});
        Self {
            error: add(
                "OpenInferenceError",
                json!({
                    "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
                }),
            ),
            openai_error: add(
                "OpenAIError",
                json!({
                    "type": "object", "required": ["error"], "properties": {"error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"enum": Code::ALL.map(Code::name)},
                        },
                    }},
                }),
            ),
            request: add("OpenInferenceRequest", request_schema()),
            reply: add("OpenInferenceReply", reply_schema()),
            rows_or_columns: add("PredictRequest", predict_request_schema()),
            predictions_or_outputs: add("PredictReply", predict_reply_schema()),
            version_status: add("ModelVersionStatus", version_status_schema()),
            model_metadata: add("TensorFlowModelMetadata", model_metadata_schema()),
        }
    }

    /// The answers to an operation, of which these are failures.
    fn responses(&self, success: Json, failures: &[u16], error: &Json) -> Json {
        let mut responses = json!({ "200": success });
        for status in failures {
            let meaning = Code::ALL
                .into_iter()
                .find(|code| code.status() == *status)
                .map_or("", Code::name);
            responses[status.to_string()] =
                json!({"description": meaning, "content": {"application/json": {"schema": error}}});
        }
        responses
    }

    fn infer(&self, name: &str, task: &TaskManifest) -> Json {
        let listed = |specs: Vec<tensors::Spec<'_>>| -> String {
            let one = |spec: &tensors::Spec<'_>| format!("`{}` {} {:?}", spec.name, spec.dtype, spec.shape());
            specs.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let description = format!(
            "Takes {}; gives {}. The first dimension counts items. With the header `Inference-Header-Content-Length`, \
             tensors may follow the JSON as they are.",
            listed(tensors::inputs(task)),
            listed(tensors::outputs(task))
        );
        let mut content = json!({"schema": self.request});
        if let Some(example) = infer_example(task) {
            content["examples"] = json!({"example 1": {"value": example}});
        }
        let success = json!({
            "description": "The outputs.",
            "content": {
                "application/json": {"schema": self.reply},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        });
        json!({"post": {
            "tags": [OPEN_INFERENCE],
            "operationId": format!("v2.infer.{name}"),
            "summary": format!("Run `{name}`"),
            "description": description,
            "requestBody": {"required": true, "content": {"application/json": content}},
            "responses": self.responses(success, &OF_RUNNING, &self.error),
        }})
    }

    fn predict_v1(&self, model: &str, task: &TaskManifest) -> Json {
        let mut content = json!({"schema": self.rows_or_columns});
        if let Some(example) = task.examples.first() {
            content["examples"] = json!({"example 1": {"value": {"instances": [example]}}});
        }
        let success = json!({
            "description": "The outputs: `predictions` for `instances`, `outputs` for `inputs`.",
            "content": {"application/json": {"schema": self.predictions_or_outputs}},
        });
        json!({"post": {
            "tags": [V1],
            "operationId": format!("v1.predict.{model}"),
            "summary": format!("Run `{}` of `{model}`", task.name),
            "description": "Items are rows (`instances`) or columns (`inputs`). The only output of a task stands without \
                its name. If one item fails, the request fails.",
            "requestBody": {"required": true, "content": {"application/json": content}},
            "responses": self.responses(success, &OF_RUNNING, &self.error),
        }})
    }

    /// The routes that describe models as TensorFlow Serving does.
    fn add_descriptions_v1(&self, paths: &mut Map<String, Json>, tasks: &[(String, &TaskManifest)]) {
        let names: Vec<&String> = tasks.iter().map(|(name, _)| name).collect();
        let model = json!({"name": "model", "in": "path", "required": true,
            "schema": {"type": "string", "examples": names}});
        let version = json!({"name": "version", "in": "path", "required": true, "schema": {"const": "1", "type": "string"}});
        for (path, id, summary, schema, failures) in [
            (
                "/v1/models/{model}/metadata",
                "v1.metadata",
                "Signatures of a model: a signature for each task",
                &self.model_metadata,
                &OF_ASKING[..],
            ),
            (
                "/v1/models/{model}/versions/{version}",
                "v1.version",
                "State of a version of a model",
                &self.version_status,
                &[401, 404, 406],
            ),
        ] {
            let success =
                json!({"description": summary, "content": {"application/json": {"schema": schema}}});
            let mut parameters = vec![model.clone()];
            if path.contains("{version}") {
                parameters.push(version.clone());
            }
            paths.insert(
                path.to_owned(),
                json!({"get": {
                    "tags": [V1],
                    "operationId": id,
                    "summary": summary,
                    "parameters": parameters,
                    "responses": self.responses(success, failures, &self.error),
                }}),
            );
        }
    }

    fn embeddings(&self, name: &str, task: &TaskManifest) -> Json {
        let mut content = json!({"schema": {
            "type": "object",
            "required": ["model", "input"],
            "properties": {
                "model": {"type": "string", "examples": [name]},
                "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
                "encoding_format": {"enum": ["float", "base64"]},
                "dimensions": {"type": "integer", "minimum": 1},
                "user": {"type": "string"},
            },
        }});
        if let Some(example) = task.examples.first().filter(|example| example.is_string()) {
            content["examples"] = json!({"example 1": {"value": {"model": name, "input": [example]}}});
        }
        let vector = json!({"anyOf": [
            {"type": "array", "items": {"type": "number"}},
            {"type": "string", "description": "Base64 of little-endian 32 bit floats."},
        ]});
        let success = json!({"description": "The embeddings.", "content": {"application/json": {"schema": {
            "type": "object",
            "required": ["object", "data", "model", "usage"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": {
                    "type": "object",
                    "required": ["object", "index", "embedding"],
                    "properties": {
                        "object": {"const": "embedding"}, "index": {"type": "integer"}, "embedding": vector,
                    },
                }},
                "model": {"type": "string"},
                "usage": {"type": "object", "properties": {
                    "prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"},
                }},
            },
        }}}});
        json!({"post": {
            "tags": [OPENAI],
            "operationId": "v1.embeddings",
            "summary": "Embed texts",
            "requestBody": {"required": true, "content": {"application/json": content}},
            "responses": self.responses(success, &OF_RUNNING, &self.openai_error),
        }})
    }

    /// The routes that tell of the server and its models, or change what is loaded.
    fn add_questions(
        &self,
        paths: &mut Map<String, Json>,
        models: &[String],
        tasks: &[(String, &TaskManifest)],
    ) {
        let parameter = |names: Vec<&String>| {
            json!([{"name": "model", "in": "path", "required": true,
                "schema": {"type": "string", "examples": names}}])
        };
        let task_names = || tasks.iter().map(|(name, _)| name).collect::<Vec<_>>();
        let object = |description: &str| json!({"description": description, "content": {"application/json": {"schema": {"type": "object"}}}});
        let mut get = |path: &str, summary: &str, about_a_model: bool, failures: &[u16], error: &Json| {
            let mut operation = json!({
                "tags": [OPEN_INFERENCE],
                "operationId": format!("v2{}", path.trim_start_matches("/v2").replace('/', ".").replace(['{', '}'], "")),
                "summary": summary,
                "responses": self.responses(object(summary), failures, error),
            });
            if about_a_model {
                operation["parameters"] = parameter(task_names());
            }
            paths.insert(path.to_owned(), json!({ "get": operation }));
        };
        let unready = json!({"type": "object"});
        get(
            "/v2",
            "Name, version and extensions of the server",
            false,
            &[401, 406],
            &self.error,
        );
        get(
            "/v2/health/live",
            "Whether the process lives",
            false,
            &[406],
            &self.error,
        );
        get(
            "/v2/health/ready",
            "Whether every model serves",
            false,
            &[406, 503],
            &unready,
        );
        get(
            "/v2/models/stats",
            "What all models have done",
            false,
            &[401, 406],
            &self.error,
        );
        get(
            "/v2/models/{model}",
            "Tensors that a model takes and gives",
            true,
            &OF_ASKING,
            &self.error,
        );
        get(
            "/v2/models/{model}/ready",
            "Whether a model serves",
            true,
            &OF_ASKING,
            &self.error,
        );
        get(
            "/v2/models/{model}/config",
            "How a model is run",
            true,
            &OF_ASKING,
            &self.error,
        );
        get(
            "/v2/models/{model}/stats",
            "What a model has done",
            true,
            &OF_ASKING,
            &self.error,
        );
        let body = json!({"content": {"application/json": {"schema": {"type": "object"}}}});
        let index = json!({"description": "The models.", "content": {"application/json": {"schema": {
            "type": "array", "items": {"type": "object", "required": ["name", "version", "state", "reason"]},
        }}}});
        paths.insert(
            "/v2/repository/index".to_owned(),
            json!({"post": {
                "tags": [OPEN_INFERENCE],
                "operationId": "v2.repository.index",
                "summary": "List the models",
                "requestBody": {"content": {"application/json": {"schema": {
                    "type": "object", "properties": {"ready": {"type": "boolean"}},
                }}}},
                "responses": self.responses(index, &OF_LISTING, &self.error),
            }}),
        );
        for (order, summary) in [
            ("load", "Load a model as the configuration has it now"),
            ("unload", "Take a model out of service"),
        ] {
            paths.insert(
                format!("/v2/repository/models/{{model}}/{order}"),
                json!({"post": {
                    "tags": [OPEN_INFERENCE],
                    "operationId": format!("v2.repository.{order}"),
                    "summary": summary,
                    "description": "Needs `authorization: Bearer` with `admin_key` of the configuration.",
                    "parameters": parameter(models.iter().collect()),
                    "requestBody": body,
                    "responses": self.responses(object("Done."), &OF_ORDERS, &self.error),
                }}),
            );
        }
    }
}

/// Rows or columns of any task; what an item is, the native route of the task describes.
fn predict_request_schema() -> Json {
    let request = |member: &str, schema: Json| {
        json!({
            "type": "object",
            "required": [member],
            "additionalProperties": false,
            "properties": {
                member: schema,
                "signature_name": {"type": "string", "description": "A task, or `serving_default` for the default task."},
                "parameters": {"type": "object"},
            },
        })
    };
    let rows = json!({"type": "array", "minItems": 1, "items": {}, "description": "Items."});
    let columns = json!({
        "description": "The only input, or an object of all inputs; the first dimension counts the items.",
        "anyOf": [{"type": "array", "minItems": 1, "items": {}}, {"type": "object"}],
    });
    json!({"oneOf": [request("instances", rows), request("inputs", columns)]})
}

fn predict_reply_schema() -> Json {
    let predictions = json!({"type": "array", "items": {}});
    let outputs = json!({"anyOf": [{"type": "array", "items": {}}, {"type": "object"}]});
    json!({"oneOf": [
        {"type": "object", "required": ["predictions"], "properties": {"predictions": predictions}},
        {"type": "object", "required": ["outputs"], "properties": {"outputs": outputs}},
    ]})
}

fn version_status_schema() -> Json {
    json!({
        "type": "object",
        "required": ["model_version_status"],
        "properties": {"model_version_status": super::schemas::version_status()},
    })
}

fn model_metadata_schema() -> Json {
    json!({
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {
            "model_spec": {
                "type": "object",
                "required": ["name", "signature_name", "version"],
                "properties": {
                    "name": {"type": "string"},
                    "signature_name": {"type": "string"},
                    "version": {"type": "string"},
                },
            },
            "metadata": {"type": "object", "required": ["signature_def"], "properties": {"signature_def": {"type": "object"}}},
        },
    })
}

fn request_schema() -> Json {
    let tensor = json!({
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"enum": crate::protocol::DType::all().map(crate::protocol::DType::name).collect::<Vec<_>>()},
            "parameters": {"type": "object"},
            "data": {"type": "array", "description": "Elements, flat or nested as the shape says."},
        },
    });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds."},
                "priority": {"type": "integer", "minimum": 0, "description": "1 is the highest."},
                "binary_data_output": {"type": "boolean"},
            }},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": {
                "type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
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
            "model_version": {"const": "1"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array"},
                    "parameters": {"type": "object"},
                },
            }},
        },
    })
}

/// The first example of a task as a request; `None` if it has none, or one that JSON cannot express.
fn infer_example(task: &TaskManifest) -> Option<Json> {
    let example = task.examples.first()?;
    let element = |name: &str, data: &[u8]| {
        let text = std::str::from_utf8(data).ok()?;
        Some(json!({"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}))
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
        Value::Tensors(tensors) => tensors.iter().map(tensor_example).collect::<Option<_>>()?,
    };
    Some(json!({ "inputs": inputs }))
}

fn tensor_example(tensor: &Tensor) -> Option<Json> {
    let shape: Vec<u64> = [1].into_iter().chain(tensor.shape().iter().copied()).collect();
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
