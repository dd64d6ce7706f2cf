//! The routes of text-embeddings-inference, except for `/rerank`.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::embeddings_route::dimensions_schema;
use super::operations::{Operation, Operations, examples, json_body, json_response, path_parameter};
use super::{Access, NamedTask, TEI, is_name_optional};
use crate::api::TaskRole;

/// Error statuses of these routes: those of every task, and that of a model without a task for the route.
const FAILURES: &[u16] = &[400, 404, 406, 408, 413, 415, 422, 424, 429, 500, 503, 504];

/// A route with a body.
struct Route<'a> {
    path: &'static str,
    role: TaskRole,
    summary: &'static str,
    description: &'a str,
    /// The schema of the request, and an example.
    request: (Json, Json),
    /// The description of the reply, and its schema.
    reply: (&'static str, Json),
}

/// Adds each route that a task can answer.
pub(super) fn add(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let has = |role: TaskRole| tasks.iter().any(|named| role.is_of(named.task));
    // The requests that the model itself accepts: those of the first role that it has.
    let mut requests = Vec::new();
    let first = ROOT_ROLES.into_iter().find(|role| has(*role));
    for route in routes(tasks).into_iter().filter(|route| has(route.role)) {
        let id = route.path.trim_start_matches('/');
        let name = |suffix: &str| {
            let words = id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            format!("Tei{}{suffix}", words.collect::<String>())
        };
        let (request, reply) = (
            components.add(&name("Request"), route.request.0),
            components.add(&name("Reply"), route.reply.1),
        );
        if Some(route.role) == first {
            requests.push(request.clone());
        }
        let (path, parameters) = address(tasks, route.role, route.path);
        operations.add(Operation {
            method: "post",
            path,
            id: format!("tei {id}"),
            tag: TEI,
            summary: route.summary.to_owned(),
            description: route.description.to_owned(),
            parameters,
            body: Some(json_body(&request, true, examples([route.request.1]))),
            responses: vec![(200, json_response(route.reply.0, &reply))],
            failures: FAILURES,
            all_failed: None,
            access: Access::Client,
        });
    }
    if let Some(role) = first {
        add_root(operations, components, requests, address(tasks, role, "/"));
    }
    if let Some(role) = first.or(has(TaskRole::Reranker).then_some(TaskRole::Reranker)) {
        add_info(operations, components, address(tasks, role, "/info"));
    }
}

/// The roles that `/` runs, in this order.
const ROOT_ROLES: [TaskRole; 3] = [
    TaskRole::Embedding,
    TaskRole::SparseEmbedding,
    TaskRole::Classifier,
];

/// The path of a route, and its parameters: with the name of the model, if several can answer.
fn address(tasks: &[NamedTask<'_>], role: TaskRole, path: &str) -> (String, Vec<Json>) {
    if is_name_optional(tasks, role) {
        return (path.to_owned(), Vec::new());
    }
    let names = tasks.iter().filter(|named| role.is_of(named.task));
    let names: Vec<String> = names.map(|named| named.name.clone()).collect();
    let path = format!("/{{model}}{}", path.trim_end_matches('/'));
    (path, vec![path_parameter("model", &names)])
}

fn routes(tasks: &[NamedTask<'_>]) -> Vec<Route<'static>> {
    let numbers = json!({"type": "array", "items": {"type": "number"}});
    let list = |items: &Json| json!({"type": "array", "items": items});
    let ids = json!({"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": u32::MAX}});
    let text_or_ids = json!({"anyOf": [{"type": "string"}, ids]});
    let inputs = json!({"anyOf": [
        {"type": "string"},
        ids,
        {"type": "array", "minItems": 1, "items": text_or_ids},
    ]});
    let texts =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]});
    let (dense, plain) = (
        json!({
            "normalize": {"type": ["boolean", "null"], "default": true, "description": "Scale vectors to length 1."},
            "dimensions": dimensions_schema(tasks),
        }),
        json!({}),
    );
    let embed = |path, role, summary, more: &Json, reply| Route {
        path,
        role,
        summary,
        description: "",
        request: (
            request(
                &["inputs"],
                &[("inputs", inputs.clone())],
                &[&text_options(true), more],
            ),
            json!({"inputs": ["to be", "or not to be"]}),
        ),
        reply,
    };
    let pair = json!({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}});
    let prediction = json!({
        "type": "object",
        "required": ["score", "label"],
        "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
    });
    let predictions = list(&prediction);
    let element = json!({
        "type": "object",
        "required": ["index", "value"],
        "properties": {"index": {"type": "integer", "minimum": 0}, "value": {"type": "number"}},
    });
    let token = json!({
        "type": "object",
        "required": ["id", "text", "special"],
        "properties": {
            "id": {"type": "integer", "minimum": 0},
            "text": {"type": "string"},
            "special": {"type": "boolean"},
            "start": {"type": ["integer", "null"], "minimum": 0},
            "stop": {"type": ["integer", "null"], "minimum": 0},
        },
    });
    let parameters = json!({"type": ["object", "null"], "properties": text_options(true)});
    let sentences = json!({
        "type": "object",
        "required": ["source_sentence", "sentences"],
        "properties": {
            "source_sentence": {"type": "string"},
            "sentences": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        },
    });
    vec![
        embed(
            "/embed",
            TaskRole::Embedding,
            "Embed texts",
            &dense,
            ("The embeddings in the order of the inputs.", list(&numbers)),
        ),
        embed(
            "/embed_all",
            TaskRole::TokenEmbeddings,
            "Embed the tokens of texts",
            &plain,
            ("The vectors of the tokens of each input.", list(&list(&numbers))),
        ),
        embed(
            "/embed_sparse",
            TaskRole::SparseEmbedding,
            "Compute sparse embeddings of texts",
            &plain,
            (
                "The elements that are not zero, of each input.",
                list(&list(&element)),
            ),
        ),
        Route {
            path: "/similarity",
            role: TaskRole::Embedding,
            summary: "Compare sentences with a source sentence",
            description: "",
            request: (
                request(
                    &["inputs"],
                    &[("inputs", sentences), ("parameters", parameters)],
                    &[],
                ),
                json!({"inputs": {"source_sentence": "to be", "sentences": ["to be", "not to be"]}}),
            ),
            reply: (
                "The cosine of each sentence and the source sentence.",
                numbers.clone(),
            ),
        },
        Route {
            path: "/predict",
            role: TaskRole::Classifier,
            summary: "Score the labels of a classifier",
            description: "An array of two strings is a pair of texts.",
            request: (
                request(
                    &["inputs"],
                    &[
                        (
                            "inputs",
                            json!({"anyOf": [
                                {"type": "string"},
                                {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "string"}},
                                {"type": "array", "minItems": 1, "items": pair},
                            ]}),
                        ),
                        (
                            "raw_scores",
                            json!({"type": ["boolean", "null"], "default": false}),
                        ),
                    ],
                    &[&text_options(false)],
                ),
                json!({"inputs": "to be"}),
            ),
            reply: (
                "The labels, highest score first; of each text, for several.",
                json!({"anyOf": [predictions, list(&predictions)]}),
            ),
        },
        Route {
            path: "/tokenize",
            role: TaskRole::Tokenizer,
            summary: "Split texts into tokens",
            description: "",
            request: (
                request(
                    &["inputs"],
                    &[
                        ("inputs", texts),
                        (
                            "add_special_tokens",
                            json!({"type": ["boolean", "null"], "default": true}),
                        ),
                        ("prompt_name", json!({"type": ["string", "null"]})),
                    ],
                    &[],
                ),
                json!({"inputs": ["to be"]}),
            ),
            reply: ("The tokens of each text.", list(&list(&token))),
        },
        Route {
            path: "/decode",
            role: TaskRole::Detokenizer,
            summary: "Convert token ids to texts",
            description: "",
            request: (
                request(
                    &["ids"],
                    &[
                        (
                            "ids",
                            json!({"anyOf": [ids, {"type": "array", "minItems": 1, "items": ids}]}),
                        ),
                        (
                            "skip_special_tokens",
                            json!({"type": ["boolean", "null"], "default": true}),
                        ),
                    ],
                    &[],
                ),
                json!({"ids": [2, 2]}),
            ),
            reply: ("The text of each list of ids.", list(&json!({"type": "string"}))),
        },
    ]
}

/// The schema of a request with these members, and those of further objects.
fn request(required: &[&str], members: &[(&str, Json)], more: &[&Json]) -> Json {
    let mut properties = json!({});
    for (name, schema) in members {
        properties[*name] = schema.clone();
    }
    for (name, schema) in more.iter().filter_map(|more| more.as_object()).flatten() {
        properties[name] = schema.clone();
    }
    json!({"type": "object", "required": required, "properties": properties})
}

/// What clients can choose for texts.
fn text_options(prompts: bool) -> Json {
    let mut options = json!({
        "truncate": {
            "type": ["boolean", "null"],
            "default": false,
            "description": "Whether texts that are too long are truncated or rejected.",
        },
        "truncation_direction": {"type": ["string", "null"], "enum": ["Left", "Right", "left", "right", null]},
    });
    if prompts {
        options["prompt_name"] = json!({
            "type": ["string", "null"],
            "description": "The task or prompt of the model whose name this is.",
        });
    }
    options
}

fn add_root(
    operations: &mut Operations,
    components: &mut Components,
    requests: Vec<Json>,
    (path, parameters): (String, Vec<Json>),
) {
    let request = components.add("TeiRequest", json!({"anyOf": requests}));
    let reply = components.add(
        "TeiReply",
        json!({"type": "array", "items": {}, "description": "The reply of that route."}),
    );
    operations.add(Operation {
        method: "post",
        path,
        id: "tei".to_owned(),
        tag: TEI,
        summary: "Run the model".to_owned(),
        description: "Embeds, compares, classifies or ranks texts, depending on the request and the model."
            .to_owned(),
        parameters,
        body: Some(json_body(&request, true, examples([]))),
        responses: vec![(200, json_response("The reply of that route.", &reply))],
        failures: FAILURES,
        all_failed: None,
        access: Access::Client,
    });
}

fn add_info(
    operations: &mut Operations,
    components: &mut Components,
    (path, parameters): (String, Vec<Json>),
) {
    let nullable = |kind: &str| json!({"type": [kind, "null"]});
    let info = components.add(
        "TeiInfo",
        json!({
            "type": "object",
            "required": ["model_id", "model_type", "max_client_batch_size", "version"],
            "properties": {
                "model_id": {"type": "string"},
                "model_sha": nullable("string"),
                "model_dtype": {"type": "string"},
                "served_model_name": {"type": "string"},
                "model_type": {"type": "object", "additionalProperties": true},
                "max_concurrent_requests": {"type": "integer"},
                "max_input_length": nullable("integer"),
                "max_batch_tokens": nullable("integer"),
                "max_batch_requests": nullable("integer"),
                "max_client_batch_size": {"type": "integer"},
                "auto_truncate": {"type": "boolean"},
                "tokenization_workers": {"type": "integer"},
                "version": {"type": "string"},
                "sha": nullable("string"),
                "docker_label": nullable("string"),
            },
        }),
    );
    operations.add(Operation {
        method: "get",
        path,
        id: "tei info".to_owned(),
        tag: TEI,
        summary: "Describe the model".to_owned(),
        description: "`/{model}/health` reports whether the model is ready.".to_owned(),
        parameters,
        body: None,
        responses: vec![(200, json_response("The model.", &info))],
        failures: &[404, 406, 424, 503],
        all_failed: None,
        access: Access::Client,
    });
}

#[cfg(test)]
mod tests {
    use super::super::native_routes::RUN_FAILURES;
    use super::*;

    #[test]
    fn the_failures_are_those_of_every_task_and_one_more() {
        let more: Vec<u16> = FAILURES
            .iter()
            .copied()
            .filter(|status| !RUN_FAILURES.contains(status))
            .collect();
        assert_eq!(more, [424]);
        assert_eq!(FAILURES.len(), RUN_FAILURES.len() + 1);
    }
}
