//! The routes of KServe's V1 and TensorFlow Serving's protocol.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::{
    Operation, Operations, examples, json_body, json_response, path_parameter, path_segment,
    version_parameter,
};
use super::tensor_schemas::columns_schema;
use super::{Access, NamedTask, V1};
use crate::api::{DEFAULT_SIGNATURE, VERSION};

/// Adds the routes of all tasks, and those that describe models.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    max_items: usize,
) {
    let reply = reply_schema(components);
    let reply = components.add("PredictReply", reply);
    for named in tasks {
        let operation = predict(components, named, &reply, max_items);
        let name = path_segment(named.shortest_name());
        operations.add_alias(operation.at(format!("/v1/models/{name}/versions/{VERSION}:predict")));
        operations.add(operation);
    }
    let names: Vec<String> = tasks.iter().map(|named| named.name.clone()).collect();
    add_descriptions(operations, components, &names);
}

fn predict(
    components: &mut Components,
    named: &NamedTask<'_>,
    reply: &Json,
    max_items: usize,
) -> Operation<'static> {
    let name = named.shortest_name();
    let mut signatures = vec![json!(named.task.name), json!(""), Json::Null];
    if named.task.name != DEFAULT_SIGNATURE {
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
                    "description": "Name of the task. `serving_default`, an empty name and null select the task of the path.",
                },
                "parameters": named.schemas.parameters,
            },
        });
        components.add(&format!("{} predict {form}", named.name), object)
    };
    let rows = json!({
        "type": "array", "minItems": 1, "maxItems": max_items, "items": named.schemas.item,
        "description": "Items of the request.",
    });
    let columns = columns_schema(named.task, &named.schemas.item, max_items);
    let rows = request("rows", "instances", rows);
    let columns = request("columns", "inputs", columns);
    let example = named.task.examples.first();
    let example = example.map(|example| json!({"instances": [example]}));
    Operation {
        method: "post",
        path: format!("/v1/models/{}:predict", path_segment(name)),
        id: format!("v1 predict {name}"),
        tag: V1,
        summary: format!("Run `{}`", named.name),
        description: "Items are rows (`instances`) or columns (`inputs`). If the task has only one output, its name is \
        omitted. If one item fails, the whole request fails."
            .to_owned(),
        parameters: Vec::new(),
        body: Some(json_body(&json!({"oneOf": [rows, columns]}), true, examples(example))),
        responses: vec![(
            200,
            json_response("`predictions` for `instances`, or `outputs` for `inputs`.", reply),
        )],
        failures: RUN_FAILURES,
        all_failed: None,
        access: Access::Client,
    }
}

fn reply_schema(components: &mut Components) -> Json {
    let list = json!({"type": "array", "items": {}});
    let outputs = json!({
        "description": "An array or an object, or a scalar if the only output of an unbatched task is a scalar.",
        "anyOf": [list, {"type": "object"}, {"type": ["number", "boolean", "string"]}],
    });
    // The forms are components, because generators cannot name classes of inline union members.
    let mut form = |name: &str, member: &str, schema: Json| {
        let object = json!({"type": "object", "required": [member], "properties": {member: schema}});
        components.add(name, object)
    };
    let rows = form("PredictReplyRows", "predictions", list);
    let columns = form("PredictReplyColumns", "outputs", outputs);
    json!({"oneOf": [rows, columns]})
}

/// Adds the routes that describe models in TensorFlow Serving's format.
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
    let describe = |path: &str, id: &str, summary: &str, schema: &Json, failures| Operation {
        method: "get",
        path: path.to_owned(),
        id: id.to_owned(),
        tag: V1,
        summary: summary.to_owned(),
        description: String::new(),
        parameters: vec![path_parameter("model", names)],
        body: None,
        responses: vec![(200, json_response(summary, schema))],
        failures,
        all_failed: None,
        access: Access::Client,
    };
    let metadata = describe(
        "/v1/models/{model}/metadata",
        "v1 metadata",
        "Get the signatures of a model, one per task",
        &metadata,
        &[404, 406, 503],
    );
    operations.add_alias(metadata.at_version());
    operations.add(metadata);
    let mut version = describe(
        "/v1/models/{model}/versions/{version}",
        "v1 version",
        "Get the state of a model version",
        &status,
        &[404, 406],
    );
    version.parameters.push(version_parameter());
    operations.add(version);
}

/// Schema of the state of a model in TensorFlow Serving's format: an array with its only version.
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
