//! The route of OpenAI's embeddings.

use std::collections::BTreeSet;

use plugin_abi::manifest::TaskManifest;
use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::{Operation, Operations, examples, json_body, json_response};
use super::{Access, NamedTask, OPENAI};

/// Adds `/v1/embeddings`, if a task produces embeddings.
pub(super) fn add(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let Some(NamedTask { name, task, .. }) = tasks.iter().find(|named| named.task.embedding) else {
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
            "user": {"description": "Ignored."},
        },
    });
    let vector = json!({"anyOf": [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "description": "Little-endian 32-bit floats in base64."},
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
        description: "Also at the paths of Azure: `/openai/v1/embeddings`, and \
            `/openai/deployments/{model}/embeddings`, whose path names the model."
            .to_owned(),
        parameters: Vec::new(),
        body: Some(json_body(&request, true, examples(example))),
        responses: vec![(
            200,
            json_response("Embeddings in the order of the inputs.", &reply),
        )],
        failures: RUN_FAILURES,
        all_failed: None,
        access: Access::Client,
    });
}

/// Schema of `dimensions`: the declared sizes if all embeddings have a fixed size, otherwise any size.
fn dimensions_schema(tasks: &[NamedTask<'_>]) -> Json {
    let fixed = |task: &TaskManifest| {
        if !task.parameters_schema["properties"]["dimensions"].is_null() {
            return None;
        }
        let size = task.output.tensors.first()?.shape.first()?;
        u64::try_from(*size).ok()
    };
    let embeddings = tasks.iter().map(|named| named.task).filter(|task| task.embedding);
    match embeddings.map(fixed).collect::<Option<BTreeSet<u64>>>() {
        Some(sizes) => {
            let sizes = sizes.into_iter().map(Json::from).chain([Json::Null]);
            json!({"type": ["integer", "null"], "enum": sizes.collect::<Vec<_>>()})
        }
        None => json!({"type": ["integer", "null"], "minimum": 1}),
    }
}
