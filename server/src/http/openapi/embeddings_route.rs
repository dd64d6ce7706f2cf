//! The routes of OpenAI's and Cohere's embeddings.

use std::collections::BTreeSet;

use plugin_abi::manifest::TaskManifest;
use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::{Operation, Operations, examples, json_body, json_response};
use super::{Access, COHERE, NamedTask, OPENAI, is_name_optional};
use crate::api::TaskRole;
use crate::http::embeddings::cohere::{PASSAGE_TASKS, QUERY_TASKS};

/// Adds `/v1/embeddings`, `/v1/embed` and `/v2/embed`, if a task produces embeddings.
pub(super) fn add(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let Some(NamedTask { name, task, .. }) = tasks.iter().find(|named| named.task.embedding) else {
        return;
    };
    let is_optional = is_name_optional(tasks, TaskRole::Embedding);
    let ids = json!({"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 100_255}});
    let request = json!({
        "type": "object",
        "required": required("input", is_optional),
        "properties": {
            "model": model_schema(name, is_optional),
            "input": {
                "anyOf": [
                    {"type": "string"},
                    ids,
                    {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, ids]}},
                ],
                "description": "Texts, or token ids of the vocabulary that `token_ids` in [models.embeddings] names.",
            },
            "encoding_format": {"type": ["string", "null"], "enum": ["float", "base64", null]},
            "dimensions": dimensions_schema(tasks.iter()),
            "truncate": {
                "type": ["boolean", "null"],
                "description": "Whether texts that are too long are truncated or rejected, as in Jina's protocol.",
            },
            "normalize": {
                "type": ["boolean", "null"],
                "description": "Whether embeddings are scaled to length 1, as in vLLM's protocol; `normalized` in Jina's.",
            },
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
        description: "Also at `/embeddings`, at the paths of Azure (`/openai/v1/embeddings`, and \
            `/openai/deployments/{model}/embeddings`, whose path names the model), and below the name of each model."
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
    add_cohere(operations, components, tasks, name);
}

/// The required members of a request.
fn required(member: &str, is_name_optional: bool) -> Vec<&str> {
    match is_name_optional {
        true => vec![member],
        false => vec!["model", member],
    }
}

fn model_schema(example: &str, is_optional: bool) -> Json {
    match is_optional {
        true => json!({"type": ["string", "null"], "examples": [example]}),
        false => json!({"type": "string", "minLength": 1, "examples": [example]}),
    }
}

fn add_cohere(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    model: &str,
) {
    let part = json!({
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"type": "string", "const": "text"}, "text": {"type": "string"}},
    });
    let content = json!({
        "type": "object",
        "required": ["content"],
        "properties": {"content": {"type": "array", "minItems": 1, "maxItems": 1, "items": part}},
    });
    let is_optional = is_name_optional(tasks, TaskRole::Embedding);
    let properties = json!({
        "model": model_schema(model, is_optional),
        "input_type": {
            "type": ["string", "null"],
            "enum": ["search_query", "search_document", "classification", "clustering", null],
            "description": "Selects a task or a prompt of the model, as [models.embeddings] says.",
        },
        "embedding_types": {
            "type": ["array", "null"],
            "items": {"type": "string", "enum": ["float", "base64", "binary", "ubinary"]},
            "description": "Binary embeddings require a multiple of 8 dimensions.",
        },
        "truncate": {"type": ["string", "null"], "enum": ["NONE", "START", "END", null], "default": "END"},
        "output_dimension": dimensions_schema(tasks.iter()),
    });
    let of = |member: &str, schema: Json| {
        let mut properties = properties.clone();
        properties[member] = schema;
        json!({"type": "object", "required": required(member, is_optional), "properties": properties})
    };
    let members = [
        (
            "texts",
            "CohereTextsRequest",
            json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
        ),
        (
            "inputs",
            "CohereInputsRequest",
            json!({"type": "array", "minItems": 1, "items": content}),
        ),
    ];
    let mut requests = Vec::new();
    let types = input_types_of_only_model(tasks).filter(|_| !is_optional);
    for (member, name, schema) in members {
        let request = of(member, schema);
        requests.push(components.add(name, request.clone()));
        if let Some(types) = &types {
            requests.push(components.add(name, of_input_type(member, request, types)));
        }
    }
    let request = json!({ "anyOf": requests });
    let numbers = json!({"type": "array", "items": {"type": "array", "items": {"type": "number"}}});
    let by_type = json!({
        "type": "object",
        "properties": {
            "float": numbers,
            "binary": numbers,
            "ubinary": numbers,
            "base64": {"type": "array", "items": {"type": "string"}},
        },
    });
    let reply = components.add(
        "CohereEmbedReply",
        json!({
            "type": "object",
            "required": ["id", "response_type", "embeddings", "texts", "meta"],
            "properties": {
                "id": {"type": "string"},
                "response_type": {"type": "string", "enum": ["embeddings_floats", "embeddings_by_type"]},
                "embeddings": {"anyOf": [numbers, by_type]},
                "texts": {"type": "array", "items": {"type": "string"}},
                "meta": {"type": "object", "additionalProperties": true},
            },
        }),
    );
    for (path, description) in [
        (
            "/v1/embed",
            "Without `embedding_types`, `embeddings` is a list of lists of numbers.",
        ),
        (
            "/v2/embed",
            "`embeddings` is an object with a list for each of `embedding_types`.",
        ),
    ] {
        operations.add(Operation {
            method: "post",
            path: path.to_owned(),
            id: format!("{path} cohere"),
            tag: COHERE,
            summary: "Embed texts".to_owned(),
            description: description.to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(
                &request,
                true,
                examples([json!({"model": model, "input_type": "search_query", "texts": ["to be"]})]),
            )),
            responses: vec![(
                200,
                json_response("Embeddings in the order of the texts.", &reply),
            )],
            failures: RUN_FAILURES,
            all_failed: None,
            access: Access::Client,
        });
    }
}

/// The types of inputs that select a task, if only one model has tasks for embeddings.
fn input_types_of_only_model(tasks: &[NamedTask<'_>]) -> Option<Vec<&'static str>> {
    let embeddings = || tasks.iter().filter(|named| named.task.embedding);
    let model = embeddings().next()?.model;
    let has = |names: &[&str]| embeddings().any(|named| names.contains(&named.task.name.as_str()));
    let types = [("search_query", QUERY_TASKS), ("search_document", PASSAGE_TASKS)];
    let types: Vec<&str> = types
        .into_iter()
        .filter(|(_, names)| has(names))
        .map(|(name, _)| name)
        .collect();
    let is_only = embeddings().all(|named| named.model == model);
    (is_only && !types.is_empty()).then_some(types)
}

/// A request whose type of inputs stands for the name of the model.
fn of_input_type(member: &str, mut request: Json, types: &[&str]) -> Json {
    request["required"] = json!(["input_type", member]);
    request["properties"]["model"] = json!({"type": ["string", "null"]});
    request["properties"]["input_type"] = json!({"type": "string", "enum": types});
    request
}

/// Schema of `dimensions`: the declared sizes if all embeddings have a fixed size, otherwise any size up to the smallest.
pub(super) fn dimensions_schema<'a>(tasks: impl Iterator<Item = &'a NamedTask<'a>> + Clone) -> Json {
    let fixed = |task: &TaskManifest| {
        if !task.parameters_schema["properties"]["dimensions"].is_null() {
            return None;
        }
        let size = task.output.tensors.first()?.shape.first()?;
        u64::try_from(*size).ok()
    };
    let embeddings = tasks.filter(|named| named.task.embedding);
    if embeddings.clone().any(|named| named.truncates_embeddings) {
        let smallest = embeddings.filter_map(|named| fixed(named.task)).min();
        return json!({"type": ["integer", "null"], "minimum": 1, "maximum": smallest.unwrap_or(1)});
    }
    match embeddings
        .map(|named| fixed(named.task))
        .collect::<Option<BTreeSet<u64>>>()
    {
        Some(sizes) => {
            let sizes = sizes.into_iter().map(Json::from).chain([Json::Null]);
            json!({"type": ["integer", "null"], "enum": sizes.collect::<Vec<_>>()})
        }
        None => json!({"type": ["integer", "null"], "minimum": 1}),
    }
}
