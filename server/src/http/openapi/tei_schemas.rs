//! The schemas of the requests and replies of text-embeddings-inference.

use serde_json::{Value as Json, json};

use crate::api::TaskRole;

/// A route with a body.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) role: TaskRole,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    /// The schema of the request, and an example.
    pub(super) request: (Json, Json),
    /// The description of the reply, and its schema.
    pub(super) reply: (&'static str, Json),
}

/// All routes. `dimensions` is the schema of that option.
pub(super) fn routes(dimensions: &Json) -> Vec<Route> {
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
            "dimensions": dimensions,
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
                        ("parameters", prediction_parameters()),
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

/// Requires that a request names one of these prompts, if there are any.
pub(super) fn require_prompt(schema: &mut Json, example: &mut Json, prompts: &[&str]) {
    let Some(first) = prompts.first() else { return };
    let prompt = json!({"type": "string", "enum": prompts, "description": "The task whose name this is."});
    let require = |object: &mut Json, member: &str| match object["required"].as_array_mut() {
        Some(required) => required.push(member.into()),
        None => object["required"] = json!([member]),
    };
    if schema["properties"]["parameters"].is_null() {
        schema["properties"]["prompt_name"] = prompt;
        require(schema, "prompt_name");
        example["prompt_name"] = (*first).into();
        return;
    }
    let parameters = &mut schema["properties"]["parameters"];
    parameters["type"] = "object".into();
    parameters["properties"]["prompt_name"] = prompt;
    require(parameters, "prompt_name");
    require(schema, "parameters");
    example["parameters"]["prompt_name"] = (*first).into();
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

/// What clients of Hugging Face's inference API can choose for a classifier.
fn prediction_parameters() -> Json {
    json!({
        "type": ["object", "null"],
        "properties": {
            "function_to_apply": {
                "type": ["string", "null"],
                "enum": ["none", null],
                "description": "`none` for the scores of the network.",
            },
            "top_k": {"type": ["integer", "null"], "minimum": 1, "description": "Maximum number of labels."},
        },
    })
}

/// The schema of `/info`.
pub(super) fn info_schema() -> Json {
    let nullable = |kind: &str| json!({"type": [kind, "null"]});
    let embedding = json!({
        "type": "object",
        "required": ["pooling"],
        "properties": {"pooling": {"type": "string"}},
    });
    let labels = json!({
        "type": "object",
        "required": ["id2label", "label2id"],
        "properties": {
            "id2label": {"type": "object", "additionalProperties": {"type": "string"}},
            "label2id": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        },
    });
    json!({
        "type": "object",
        "required": ["model_id", "model_type", "max_client_batch_size", "version"],
        "properties": {
            "model_id": {"type": "string"},
            "model_sha": nullable("string"),
            "model_dtype": {"type": "string"},
            "served_model_name": {"type": "string"},
            "model_type": {
                "type": "object",
                "properties": {"embedding": embedding, "classifier": labels, "reranker": labels},
                "minProperties": 1,
                "maxProperties": 1,
            },
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
    })
}
