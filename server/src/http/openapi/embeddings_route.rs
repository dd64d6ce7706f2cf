//! The routes of OpenAI's embeddings.

use std::collections::BTreeSet;

use plugin_abi::manifest::TaskManifest;
use serde_json::{Value as Json, json};

use super::body_routes::{BodyRoute, list_schema};
use super::components::Components;
use super::native_routes::RUN_FAILURES;
use super::operations::Operations;
use super::{DocumentedModel, NamedTask, OPENAI, addresses};
use crate::api::TaskRole;
use crate::http::embeddings::input_type::{self, ANY_JINA_TYPE, InputType, Naming};
use crate::routes;

/// Adds `/v1/embeddings`, if a task produces embeddings.
pub(super) fn add(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let Some(first) = addresses::with_role(tasks, TaskRole::Embedding).next() else {
        return;
    };
    let vector = json!({"anyOf": [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "description": "Little-endian 32-bit floats in base64."},
    ]});
    let reply = list_schema("embedding", "embedding", &vector);
    let text = first.task.examples.first().filter(|example| example.is_string());
    let route = BodyRoute {
        route: routes::EMBEDDINGS,
        role: TaskRole::Embedding,
        tag: OPENAI,
        summary: "Embed texts",
        paths: &[(
            "/v1/embeddings",
            "embeddings",
            "Also at the paths of Azure, one of which names the model, and below the name of each model.",
        )],
        example: text.map(|text| json!({ "input": [text] })),
        reply: (
            "Embeddings in the order of the inputs.",
            components.add("EmbeddingsReply", reply),
        ),
        failures: RUN_FAILURES,
    };
    route.add(operations, components, tasks, |components, model, tasks| {
        let mut request = request_schema(&dimensions_schema(tasks.iter().copied()), &purposes(tasks));
        model.add_to(&mut request);
        components.share("EmbeddingsRequest", request)
    });
}

/// The names in Jina's protocol of what the embeddings of these tasks can be for.
fn purposes(tasks: &[&NamedTask<'_>]) -> Vec<&'static str> {
    let models = || tasks.iter().map(|named| named.documented);
    let is_accepted = |kind: &InputType| {
        let accepts = |model: &DocumentedModel<'_>| {
            let tasks = &model.manifest.tasks;
            input_type::accepted(model.embeddings, tasks, model.default_task).contains(kind)
        };
        models().any(accepts)
    };
    let names = InputType::ALL.into_iter().filter(is_accepted);
    names
        .map(|kind| kind.name(Naming::Jina))
        .chain([ANY_JINA_TYPE])
        .collect()
}

/// A request, without the model. `dimensions` is the schema of that option.
fn request_schema(dimensions: &Json, purposes: &[&str]) -> Json {
    let purposes = purposes.iter().map(|name| Json::from(*name)).chain([Json::Null]);
    let ids = json!({"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 100_255}});
    let boolean = |description: &str| json!({"type": ["boolean", "null"], "description": description});
    json!({
        "type": "object",
        "required": ["input"],
        "properties": {
            "input": {
                "anyOf": [
                    {"type": "string"},
                    ids,
                    {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, ids]}},
                ],
                "description": "Texts, or token ids of the vocabulary that `token_ids` in [models.embeddings] names.",
            },
            "encoding_format": {
                "type": ["string", "null"],
                "enum": ["float", "base64", null],
                "description": "`embedding_type` in Jina's protocol.",
            },
            "task": {
                "type": ["string", "null"],
                "enum": purposes.collect::<Vec<_>>(),
                "description": "What the embeddings are for, as in Jina's protocol: selects a task or a prompt of the model, as \
                    [models.embeddings] says. `input_type` in Cohere's.",
            },
            "dimensions": dimensions,
            "truncate": boolean("Whether texts that are too long are truncated or rejected, as in Jina's protocol."),
            "truncation_side": {
                "type": ["string", "null"],
                "enum": ["left", "right", null],
                "description": "The side of a text that truncation removes, as in vLLM's protocol.",
            },
            "normalize": boolean(
                "Whether embeddings are scaled to length 1, as in vLLM's protocol; `normalized` in Jina's."
            ),
            "user": {"description": "Ignored."},
        },
    })
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
    if embeddings.clone().any(|named| named.truncates_embeddings()) {
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
