//! The routes of KServe's V1 protocol and of TensorFlow Serving.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::OF_RUNNING;
use super::open_inference_routes::Addressed;
use super::operations::{
    Operation, Operations, examples, json_answer, json_body, path_parameter, path_segment,
};
use super::task_schemas::columns_schema;
use super::{Access, V1};
use crate::api::DEFAULT_SIGNATURE;

/// Adds the routes of these tasks.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[Addressed<'_>],
    max_items: usize,
) {
    let reply = reply_schema(components);
    let reply = components.add("PredictReply", reply);
    for addressed in tasks {
        operations.add(predict(components, addressed, &reply, max_items));
    }
    let names: Vec<String> = tasks.iter().map(|addressed| addressed.name.clone()).collect();
    add_descriptions(operations, components, &names);
}

fn predict(
    components: &mut Components,
    addressed: &Addressed<'_>,
    reply: &Json,
    max_items: usize,
) -> Operation<'static> {
    let name = addressed.short_name.unwrap_or(&addressed.name);
    let mut signatures = vec![json!(addressed.task.name), json!(""), Json::Null];
    if addressed.task.name != DEFAULT_SIGNATURE {
        signatures.push(json!(DEFAULT_SIGNATURE));
    }
    let mut request = |form: &str, member: &str, schema: Json| {
        let object = json!({
            "type": "object",
            "required": [member],
            "additionalProperties": false,
            "properties": {
                member: schema,
                "signature_name": {
                    "type": ["string", "null"],
                    "enum": signatures,
                    "description": "The task; `serving_default`, an empty name and null are the task of the path.",
                },
                "parameters": addressed.schemas.parameters,
            },
        });
        components.add(&format!("{} predict {form}", addressed.name), object)
    };
    let rows = json!({
        "type": "array", "minItems": 1, "maxItems": max_items, "items": addressed.schemas.item,
        "description": "Items.",
    });
    let columns = columns_schema(addressed.task, &addressed.schemas.item, max_items);
    let rows = request("rows", "instances", rows);
    let columns = request("columns", "inputs", columns);
    let example = addressed.task.examples.first();
    let example = example.map(|example| json!({"instances": [example]}));
    Operation {
        method: "post",
        path: format!("/v1/models/{}:predict", path_segment(name)),
        id: format!("v1 predict {name}"),
        tag: V1,
        summary: format!("Run `{}`", addressed.name),
        description: "Items are rows (`instances`) or columns (`inputs`). The only output of a task stands without its \
                      name. If one item fails, the whole request fails."
            .to_owned(),
        parameters: Vec::new(),
        body: Some(json_body(&json!({"oneOf": [rows, columns]}), true, examples(example))),
        answers: vec![(
            200,
            json_answer("The outputs: `predictions` for `instances`, `outputs` for `inputs`.", reply),
        )],
        failures: OF_RUNNING,
        all_failed: None,
        access: Access::Client,
    }
}

fn reply_schema(components: &mut Components) -> Json {
    let list = json!({"type": "array", "items": {}});
    let outputs = json!({
        "description": "A list or an object; of an unbatched task whose only output is a scalar, that scalar.",
        "anyOf": [list, {"type": "object"}, {"type": ["number", "boolean", "string"]}],
    });
    // The forms are components, since generators do not find names for classes that a union has in place.
    let mut form = |name: &str, member: &str, schema: Json| {
        let object = json!({"type": "object", "required": [member], "properties": {member: schema}});
        components.add(name, object)
    };
    let rows = form("PredictReplyRows", "predictions", list);
    let columns = form("PredictReplyColumns", "outputs", outputs);
    json!({"oneOf": [rows, columns]})
}

/// The routes that describe models as TensorFlow Serving does.
fn add_descriptions(operations: &mut Operations, components: &mut Components, names: &[String]) {
    let status = json!({
        "type": "object",
        "required": ["model_version_status"],
        "properties": {"model_version_status": version_status()},
    });
    let text = json!({"type": "string"});
    let metadata = json!({
        "type": "object",
        "required": ["model_spec", "metadata"],
        "properties": {
            "model_spec": {
                "type": "object",
                "required": ["name", "signature_name", "version"],
                "properties": {"name": text, "signature_name": text, "version": text},
            },
            "metadata": {
                "type": "object",
                "required": ["signature_def"],
                "properties": {"signature_def": {"type": "object"}},
            },
        },
    });
    let status = components.add("ModelVersionStatus", status);
    let metadata = components.add("TensorFlowModelMetadata", metadata);
    let version = json!({"name": "version", "in": "path", "required": true,
        "schema": {"type": "string", "const": "1", "examples": ["1"]}});
    let mut add = |path: &str, id: &str, summary: &str, schema: &Json, more: Option<Json>, failures| {
        operations.add(Operation {
            method: "get",
            path: path.to_owned(),
            id: id.to_owned(),
            tag: V1,
            summary: summary.to_owned(),
            description: String::new(),
            parameters: std::iter::once(path_parameter("model", names))
                .chain(more)
                .collect(),
            body: None,
            answers: vec![(200, json_answer(summary, schema))],
            failures,
            all_failed: None,
            access: Access::Client,
        });
    };
    let summary = "Signatures of a model: one for each task";
    add(
        "/v1/models/{model}/metadata",
        "v1 metadata",
        summary,
        &metadata,
        None,
        &[404, 406, 503],
    );
    let (path, summary) = (
        "/v1/models/{model}/versions/{version}",
        "State of a version of a model",
    );
    add(path, "v1 version", summary, &status, Some(version), &[404, 406]);
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
                "state": {"type": "string", "enum": ["LOADING", "AVAILABLE", "END"]},
                "status": {
                    "type": "object",
                    "required": ["error_code", "error_message"],
                    "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                },
            },
        },
    })
}
