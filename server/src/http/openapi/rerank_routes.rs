//! The routes that rank documents and score pairs of texts.

use serde_json::{Value as Json, json};

use super::body_routes::{BodyRoute, ModelName, Request, list_schema, usage_schema};
use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::Operations;
use super::tei_routes::FAILURES;
use super::{NamedTask, RERANK, addresses};
use crate::api::TaskRole;
use crate::routes;

/// Adds the routes, if a task is a reranker. Returns the requests for rankings by the prefix of their path.
pub(super) fn add(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
) -> Vec<Request> {
    let Some(first) = addresses::with_role(tasks, TaskRole::Reranker).next() else {
        return Vec::new();
    };
    let example = first.task.examples.first();
    add_score(operations, components, tasks, example);
    let route = BodyRoute {
        route: routes::RERANK,
        role: TaskRole::Reranker,
        tag: RERANK,
        summary: "Rank documents by their relevance to a query",
        paths: &[
            (
                "/rerank",
                "rerank",
                "The clients of text-embeddings-inference send `texts`, all others `documents`.",
            ),
            ("/v1/rerank", "v1 rerank", ""),
            (
                "/v2/rerank",
                "v2 rerank",
                "Results contain the documents only if `return_documents` is true.",
            ),
        ],
        example: example.map(|example| json!({"query": example["query"], "documents": example["passages"]})),
        reply: (
            "The documents, most relevant first.",
            components.add("RerankReply", ranking_schema()),
        ),
        failures: FAILURES,
    };
    route.add(operations, components, tasks, |components, model, _| {
        let document = json!({"anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
        ]});
        let documents = request_schema(model, "documents", document, "return_documents");
        let texts = request_schema(model, "texts", json!({"type": "string"}), "return_text");
        json!({"anyOf": [
            components.share("RerankDocumentsRequest", documents),
            components.share("RerankTextsRequest", texts),
        ]})
    })
}

fn add_score(
    operations: &mut Operations,
    components: &mut Components,
    tasks: &[NamedTask<'_>],
    example: Option<&Json>,
) {
    let mut reply = list_schema("score", "score", &json!({"type": "number"}));
    reply["properties"]["id"] = json!({"type": ["string", "null"]});
    reply["properties"]["created"] = json!({"type": "integer"});
    let route = BodyRoute {
        route: routes::SCORE,
        role: TaskRole::Reranker,
        tag: RERANK,
        summary: "Score pairs of texts",
        paths: &[(
            "/v1/score",
            "score",
            "One text with several, or two lists one by one.",
        )],
        example: example.map(|example| json!({"text_1": example["query"], "text_2": example["passages"]})),
        reply: (
            "The scores in the order of the texts.",
            components.add("ScoreReply", reply),
        ),
        failures: RUN_FAILURES,
    };
    route.add(operations, components, tasks, |components, model, _| {
        let texts = json!({"anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": "string"}},
        ]});
        let mut request = json!({
            "type": "object",
            "required": ["text_1", "text_2"],
            "properties": {
                "text_1": described(&texts, "`queries` in newer clients."),
                "text_2": described(&texts, "`documents` or `items` in newer clients."),
                "use_activation": {
                    "type": ["boolean", "null"],
                    "description": "Whether scores are the sigmoid function of those of the network.",
                },
                "truncation_side": {"type": ["string", "null"], "enum": ["left", "right", null]},
            },
        });
        model.add_to(&mut request);
        components.share("ScoreRequest", request)
    });
}

fn described(schema: &Json, description: &str) -> Json {
    let mut schema = schema.clone();
    schema["description"] = description.into();
    schema
}

/// A request with its texts in `member`, which are returned if `returned` is true.
fn request_schema(model: ModelName<'_>, member: &str, text: Json, returned: &str) -> Json {
    let mut request = json!({
        "type": "object",
        "required": ["query", member],
        "properties": {
            "query": {"type": "string"},
            member: {"type": "array", "minItems": 1, "items": text},
            "top_n": {"type": ["integer", "null"], "minimum": 1},
            returned: {"type": ["boolean", "null"]},
            "raw_scores": {
                "type": ["boolean", "null"],
                "description": "Scores of the network, without the sigmoid function; the opposite of `use_activation` in vLLM's \
                    protocol.",
            },
            "truncate": {
                "type": ["boolean", "null"],
                "description": "Whether texts that are too long are truncated. False by default with `texts`.",
            },
            "truncation_direction": {"type": ["string", "null"], "enum": ["Left", "Right", "left", "right", null]},
        },
    });
    model.add_to(&mut request);
    request
}

fn ranking_schema() -> Json {
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
