//! JSON Schemas of replies about the server and its models.

use serde_json::{Map, Value as Json, json};

use super::components::Components;

/// States of a model in `/v1/models` and `/health`.
const STATES: [&str; 7] = [
    "loading",
    "untried",
    "ready",
    "recovering",
    "crash loop",
    "failed",
    "unloaded",
];

/// Schemas of replies about the server and its models.
pub(super) struct ServerSchemas {
    pub(super) model: Json,
    pub(super) models: Json,
    pub(super) health: Json,
    pub(super) live: Json,
    pub(super) ready: Json,
    pub(super) root: Json,
    pub(super) openapi: Json,
}

impl ServerSchemas {
    pub(super) fn add(components: &mut Components) -> Self {
        let value = components.add("ModelValue", model_value());
        let explanation = components.add("Explanation", explanation());
        let figures = components.add("Figures", figures());
        let task = components.add("ModelTask", model_task(&value, &explanation, &figures));
        let model = components.add("Model", model_schema(&task, &explanation, &figures));
        let models = components.add(
            "ModelList",
            json!({
                "type": "object",
                "required": ["object", "data", "models"],
                "properties": {
                    "object": {"type": "string", "const": "list"},
                    "data": {"type": "array", "items": model},
                    "models": {"type": "array", "items": model, "description": "Same as `data`, for clients of KServe."},
                },
            }),
        );
        let flags = |names: &[&str]| {
            let properties: Map<String, Json> = names
                .iter()
                .map(|&name| (name.to_owned(), json!({"type": "boolean"})))
                .collect();
            json!({"type": "object", "required": names, "properties": properties})
        };
        Self {
            model,
            models,
            health: components.add(
                "Health",
                json!({
                    "type": "object",
                    "required": ["status", "ready", "models"],
                    "properties": {
                        "status": {"type": "string", "enum": ["ok", "not ready", "stopping"]},
                        "ready": {"type": "boolean"},
                        "models": {
                            "type": "object",
                            "description": "State of each model, by name.",
                            "additionalProperties": {"type": "string", "enum": STATES},
                        },
                    },
                }),
            ),
            live: components.add("Liveness", flags(&["live"])),
            ready: components.add("Readiness", flags(&["ready"])),
            openapi: components.add(
                "OpenApiDocument",
                json!({
                    "type": "object",
                    "required": ["openapi", "info", "paths", "components"],
                    "properties": {"openapi": {"type": "string"}},
                    "additionalProperties": true,
                }),
            ),
            root: components.add(
                "Root",
                json!({
                    "type": "object",
                    "required": ["name", "version", "build", "models", "health", "metrics"],
                    "properties": {
                        "name": {"type": "string"},
                        "version": {"type": "string"},
                        "build": {
                            "type": "object",
                            "required": ["commit", "date", "abi_version", "target"],
                            "properties": {
                                "commit": {"type": ["string", "null"], "description": "Commit, with `-dirty` if the sources were changed; null if it is unknown."},
                                "date": {"type": ["string", "null"], "description": "Day of the commit, or that of `SOURCE_DATE_EPOCH` at build time."},
                                "abi_version": {"type": "string", "description": "Version of the plugin ABI."},
                                "target": {"type": "string", "description": "Target triple."},
                            },
                        },
                        "status": {"type": "string"},
                        "models": {"type": "string"},
                        "health": {"type": "string"},
                        "metrics": {"type": "string"},
                        "docs": {"type": "string"},
                        "openapi": {"type": "string"},
                    },
                }),
            ),
        }
    }
}

fn model_value() -> Json {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    json!({
        "type": "object",
        "required": ["kinds", "media_types", "schema", "tensors"],
        "properties": {
            "kinds": {"type": "array", "items": {"type": "string", "enum": ["text", "bytes", "json", "tensors"]}},
            "media_types": texts,
            "schema": {"description": "JSON Schema, if the value is JSON."},
            "tensors": {"type": "array", "items": {
                "type": "object",
                "required": ["name", "dtype", "shape"],
                "properties": {
                    "name": {"type": "string"},
                    "dtype": {"type": "string"},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "description": {"type": "string"},
                    "sequence": {
                        "type": "boolean",
                        "description": "Whether this represents any number of tensors named `name.0`, `name.1`, ….",
                    },
                    "unranked": {"type": "boolean", "description": "Whether the number of dimensions is arbitrary."},
                },
            }},
        },
    })
}

fn explanation() -> Json {
    json!({
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "string", "description": "Identifies the finding; see the operations guide."},
            "message": {"type": "string", "description": "A sentence with the figures that led to it."},
        },
    })
}

fn figures() -> Json {
    let mut properties = Map::new();
    for (name, description) in [
        ("seconds", "Length of the window."),
        ("requests_per_second", "Requests answered."),
        ("items_per_second", "Items in batches."),
        ("failed_items_per_second", "Items that failed."),
        ("rejections_per_second", "Requests rejected on admission."),
    ] {
        properties.insert(
            name.to_owned(),
            json!({"type": "number", "description": description}),
        );
    }
    for (name, description) in [
        (
            "latency_p50_seconds",
            "Median latency of the requests that succeeded.",
        ),
        (
            "latency_p99_seconds",
            "99th percentile of the latency of the requests that succeeded.",
        ),
        ("prepare_seconds", "Mean time of the preparation of an item."),
        ("queue_seconds", "Mean wait of an item."),
        ("inference_seconds", "Mean time of a batch in the model."),
        ("encode_seconds", "Mean time of writing a reply."),
        ("batch_size", "Mean number of items in a batch."),
        (
            "batch_fill",
            "Mean number of items in a batch relative to the maximum.",
        ),
    ] {
        let schema = json!({"type": ["number", "null"], "description": description});
        properties.insert(name.to_owned(), schema);
    }
    let required: Vec<String> = properties.keys().cloned().collect();
    let busy = "Part of the time of the workers in which they ran batches, from 0 to 1. Only for models.";
    properties.insert(
        "worker_busy_share".to_owned(),
        json!({"type": "number", "description": busy}),
    );
    json!({
        "type": "object",
        "description": "Rates per second, means and percentiles of the last ten seconds; null if nothing happened.",
        "required": required,
        "properties": properties,
    })
}

fn model_task(value: &Json, explanation: &Json, figures: &Json) -> Json {
    json!({
        "type": "object",
        "required": ["name", "description", "input", "output", "parameters_schema", "examples", "unbatched", "trial",
            "policy", "max_batch_size", "max_queue_size", "queued_items", "recent", "explanation"],
        "properties": {
            "name": {"type": "string"},
            "description": {"type": "string"},
            "input": value,
            "output": value,
            "parameters_schema": {"description": "JSON Schema of `parameters`; null if the task takes none."},
            "examples": {"type": "array", "items": {}},
            "unbatched": {
                "type": "boolean",
                "description": "Whether the tensors have no batch dimension, so that each request is one item.",
            },
            "trial": {
                "type": "object",
                "description": "Whether the task has run successfully, during warm-up or since.",
                "required": ["outcome", "reason"],
                "properties": {
                    "outcome": {"type": "string", "enum": ["succeeded", "failed", "untried"]},
                    "reason": {"type": ["string", "null"]},
                },
            },
            "policy": {"type": "string", "description": "Batching policy."},
            "learned": {"description": "Estimates that the batching policy has learned, or null."},
            "memory": {
                "description": "Predicted memory of the batches, or null if the task was not calibrated.",
                "type": ["object", "null"],
                "required": ["budget_bytes", "predicted_bytes", "measured_bytes", "margin", "drift", "limited_batches"],
                "properties": {
                    "budget_bytes": {"type": ["integer", "null"], "description": "Maximum memory of the batches of the model that run at the same time."},
                    "predicted_bytes": {"type": ["integer", "null"], "description": "Predicted bound for the latest batch."},
                    "measured_bytes": {"type": ["integer", "null"], "description": "Memory of the latest batch that was measured."},
                    "margin": {"type": "number", "description": "99th percentile of the relative errors of the prediction."},
                    "drift": {"type": ["number", "null"], "description": "Measured memory relative to the expected memory, averaged over recent batches."},
                    "limited_batches": {"type": "integer", "description": "Batches that no further item could join because of the budget."},
                },
            },
            "padding_share": {
                "type": ["number", "null"],
                "description": "Weight of the batches relative to the weight of their items.",
            },
            "max_batch_size": {"type": "integer", "minimum": 1},
            "max_batch_weight": {"type": ["integer", "null"]},
            "max_queue_size": {"type": "integer", "minimum": 1},
            "route": {"type": ["string", "null"], "description": "Short route of the task."},
            "queued_items": {"type": "integer", "description": "Items that wait now."},
            "recent": figures,
            "explanation": {
                "type": "array",
                "items": explanation,
                "description": "Why batches are small, requests are rejected or items fail, computed from the last minute.",
            },
        },
    })
}

fn jobs_schema() -> Json {
    let count = |description: &str| json!({"type": "integer", "minimum": 0, "description": description});
    let age = |description: &str| json!({"type": ["number", "null"], "description": description});
    json!({
        "type": "object",
        "description": "Jobs of the model in the store, also those of other servers, as the metrics report them; updated every few seconds.",
        "required": ["queued", "running", "oldest_queued_age_seconds", "oldest_running_age_seconds"],
        "properties": {
            "queued": count("Jobs that wait."),
            "running": count("Jobs that run."),
            "oldest_queued_age_seconds": age("Time since the submission of the oldest job that waits."),
            "oldest_running_age_seconds": age("Time since the submission of the oldest job that runs."),
        },
    })
}

fn model_schema(task: &Json, explanation: &Json, figures: &Json) -> Json {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "required": ["id", "object", "created", "owned_by", "name", "ready", "state",
            "model_version_status", "explanation", "recent", "tasks"],
        "properties": {
            "id": {"type": "string"},
            "object": {"type": "string", "const": "model"},
            "created": {"type": "integer", "description": "Time of loading in seconds since the Unix epoch; 0 if the model is not loaded."},
            "owned_by": {"type": "string"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "ready": {"type": "boolean"},
            "state": {"type": "string", "enum": STATES},
            "model_version_status": super::v1_routes::version_status(),
            "reason": text("Why the model is not ready."),
            "last_reload_error": text("Why the last reload failed; the old generation keeps serving."),
            "generation": {"type": "integer", "description": "Number of times the model was loaded."},
            "platform": {"type": "string"},
            "details": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Details that the plugin reports, such as the runtime that it uses and why.",
            },
            "plugin": {
                "type": "object",
                "required": ["name", "version", "description", "sdk_version"],
                "properties": {
                    "name": {"type": "string"},
                    "version": {"type": "string"},
                    "description": {"type": "string"},
                    "sdk_version": {"type": "string"},
                },
            },
            "jobs": jobs_schema(),
            "memory": {
                "type": "object",
                "description": "Memory of the batches, if it is predicted.",
                "required": ["budget_bytes", "reserved_bytes"],
                "properties": {
                    "budget_bytes": {"type": ["integer", "null"], "description": "Maximum of the batches that run at the same time."},
                    "reserved_bytes": {"type": "integer", "description": "Predicted memory of the batches that are running."},
                },
            },
            "explanation": {
                "type": "array",
                "items": explanation,
                "description": "Why the model is not ready, why its last reload failed, and what limited its throughput in the last minute.",
            },
            "recent": {"anyOf": [figures, {"type": "null"}], "description": "Null if the model is not loaded."},
            "default_task": {"type": "string"},
            "tasks": {"type": "array", "items": task},
        },
    })
}
