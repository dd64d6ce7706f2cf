//! The routes that rank documents and score pairs of texts.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::{Operation, Operations, examples, json_body, json_response};
use super::tei_routes::FAILURES;
use super::{Access, NamedTask, RERANK};

/// Adds `/rerank`, `/v1/rerank`, `/v2/rerank` and `/v1/score`, if a task is a reranker. Returns the schema of requests for
/// rankings.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
) -> Option<Json> {
    let NamedTask { name, task, .. } = tasks.iter().find(|named| named.task.reranker)?;
    let document = json!({"anyOf": [
        {"type": "string"},
        {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    ]});
    let documents = request_schema(name, "documents", document, "return_documents");
    let texts = request_schema(name, "texts", json!({"type": "string"}), "return_text");
    let request = json!({"anyOf": [
        components.add("RerankDocumentsRequest", documents),
        components.add("RerankTextsRequest", texts),
    ]});
    let reply = components.add("RerankReply", reply_schema());
    let example = task
        .examples
        .first()
        .map(|example| json!({"model": name, "query": example["query"], "documents": example["passages"]}));
    for (path, description) in [
        (
            "/rerank",
            "The clients of text-embeddings-inference send `texts`, all others `documents`.",
        ),
        ("/v1/rerank", ""),
        (
            "/v2/rerank",
            "Results contain the documents only if `return_documents` is true.",
        ),
    ] {
        operations.add(Operation {
            method: "post",
            path: path.to_owned(),
            id: format!("{path} rerank"),
            tag: RERANK,
            summary: "Rank documents by their relevance to a query".to_owned(),
            description: description.to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(&request, true, examples(example.clone()))),
            responses: vec![(200, json_response("The documents, most relevant first.", &reply))],
            failures: FAILURES,
            all_failed: None,
            access: Access::Client,
        });
    }
    add_score(operations, components, name, task.examples.first());
    Some(request)
}

fn add_score(operations: &mut Operations, components: &mut Components, model: &str, example: Option<&Json>) {
    let texts =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]});
    let request = components.add(
        "ScoreRequest",
        json!({
            "type": "object",
            "required": ["text_1", "text_2"],
            "properties": {
                "model": {"type": ["string", "null"], "examples": [model]},
                "text_1": texts,
                "text_2": texts,
            },
        }),
    );
    let score = json!({
        "type": "object",
        "required": ["index", "object", "score"],
        "properties": {
            "index": {"type": "integer"},
            "object": {"type": "string", "const": "score"},
            "score": {"type": "number"},
        },
    });
    let reply = components.add(
        "ScoreReply",
        json!({
            "type": "object",
            "required": ["id", "object", "created", "model", "data", "usage"],
            "properties": {
                "id": {"type": ["string", "null"]},
                "object": {"type": "string", "const": "list"},
                "created": {"type": "integer"},
                "model": {"type": "string"},
                "data": {"type": "array", "items": score},
                "usage": usage_schema(),
            },
        }),
    );
    let example = example
        .map(|example| json!({"model": model, "text_1": example["query"], "text_2": example["passages"]}));
    operations.add(Operation {
        method: "post",
        path: "/v1/score".to_owned(),
        id: "score".to_owned(),
        tag: RERANK,
        summary: "Score pairs of texts".to_owned(),
        description: "One text with several, or two lists one by one. Also at `/score`.".to_owned(),
        parameters: Vec::new(),
        body: Some(json_body(&request, true, examples(example))),
        responses: vec![(
            200,
            json_response("The scores in the order of the texts.", &reply),
        )],
        failures: RUN_FAILURES,
        all_failed: None,
        access: Access::Client,
    });
}

fn usage_schema() -> Json {
    json!({
        "type": "object",
        "required": ["prompt_tokens", "total_tokens"],
        "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
    })
}

/// A request with its texts in `member`, which are returned if `returned` is true.
fn request_schema(model: &str, member: &str, text: Json, returned: &str) -> Json {
    json!({
        "type": "object",
        "required": ["query", member],
        "properties": {
            "model": {
                "type": ["string", "null"],
                "examples": [model],
                "description": "Optional if only one model is a reranker.",
            },
            "query": {"type": "string"},
            member: {"type": "array", "minItems": 1, "items": text},
            "top_n": {"type": ["integer", "null"], "minimum": 1},
            returned: {"type": ["boolean", "null"]},
            "raw_scores": {
                "type": ["boolean", "null"],
                "description": "Scores of the network, without the sigmoid function.",
            },
            "truncate": {
                "type": ["boolean", "null"],
                "description": "Whether texts that are too long are truncated. False by default with `texts`.",
            },
            "truncation_direction": {"type": ["string", "null"], "enum": ["Left", "Right", "left", "right", null]},
        },
    })
}

fn reply_schema() -> Json {
    let index = json!({"type": "integer", "minimum": 0});
    json!({"anyOf": [
        {
            "type": "array",
            "description": "The reply to `texts`.",
            "items": {
                "type": "object",
                "required": ["index", "score"],
                "properties": {"index": index, "score": {"type": "number"}, "text": {"type": "string"}},
            },
        },
        {
            "type": "object",
            "description": "The reply to `documents`.",
            "required": ["id", "model", "results", "usage", "meta"],
            "properties": {
                "id": {"type": ["string", "null"]},
                "object": {"type": "string", "const": "list"},
                "model": {"type": "string"},
                "results": {"type": "array", "items": {
                    "type": "object",
                    "required": ["index", "relevance_score"],
                    "properties": {
                        "index": index,
                        "relevance_score": {"type": "number"},
                        "document": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
                    },
                }},
                "usage": usage_schema(),
                "meta": {"type": "object", "additionalProperties": true},
            },
        },
    ]})
}
