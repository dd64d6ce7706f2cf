//! The OpenAPI document of the loaded models, with one path and specific schemas per task.
//!
//! It is built from manifests alone and does not depend on actix. Schemas are untyped JSON, because no typed
//! representation keeps every keyword of the schemas that plugins declare. Every `$ref` points to a whole component,
//! since code generators do not support other references.

mod addresses;
mod body_routes;
mod cohere_routes;
mod components;
mod embeddings_route;
mod job_routes;
mod native_routes;
mod open_inference_routes;
mod operations;
mod plugin_schema;
mod rerank_routes;
mod server_schemas;
mod task_schemas;
mod tei_routes;
mod tei_schemas;
mod tensor_schemas;
mod v1_routes;

use plugin_abi::manifest::{ModelManifest, TaskManifest};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value as Json, json};

use self::components::Components;
pub use self::operations::KeySettings;
use self::operations::Operations;
pub(in crate::http) use self::operations::{path_segment, path_segments};
use self::task_schemas::TaskSchemas;
use crate::api::open_inference::{SERVER_NAME, SERVER_VERSION};
use crate::config::{Dimensions, EmbeddingSettings};
use crate::routes::Access;

/// A loaded model, as the document describes it.
#[derive(Clone, Copy, Debug)]
pub struct DocumentedModel<'a> {
    /// Configured name.
    pub name: &'a str,
    /// Description of the model; may be empty.
    pub description: &'a str,
    /// Manifest with the tasks.
    pub manifest: &'a ModelManifest,
    /// Index of the task that `/v1/models/{name}/predict` runs.
    pub default_task: Option<usize>,
    /// Configured short routes: path and index of the task.
    pub routes: &'a [(&'a str, usize)],
    /// What clients can choose for embeddings.
    pub embeddings: &'a EmbeddingSettings,
}

/// A task with the names by which other protocols address it.
struct NamedTask<'a> {
    documented: &'a DocumentedModel<'a>,
    model: &'a str,
    /// `model.task`
    name: String,
    /// `model`, if this is the default task.
    short_name: Option<&'a str>,
    task: &'a TaskManifest,
    schemas: &'a TaskSchemas,
}

impl NamedTask<'_> {
    fn shortest_name(&self) -> &str {
        self.short_name.unwrap_or(&self.name)
    }

    /// Whether clients can request embeddings with fewer dimensions.
    fn truncates_embeddings(&self) -> bool {
        self.documented.embeddings.dimensions == Dimensions::Truncate
    }
}

/// Tags of the routes that do not belong to a single model.
const SERVER: &str = "Server";
const V1: &str = "KServe V1 and TensorFlow Serving";
const OPEN_INFERENCE: &str = "Open Inference Protocol (KServe V2, Triton)";
const JOBS: &str = "Jobs";
const OPENAI: &str = "OpenAI";
const RERANK: &str = "Rerank (Cohere, Jina, vLLM, text-embeddings-inference)";
const COHERE: &str = "Cohere";
const TEI: &str = "text-embeddings-inference";
const ALIASES: &str = "Aliases";

/// These tags with their descriptions.
const TAGS: [(&str, &str); 9] = [
    (SERVER, "State of the server and its models."),
    (
        V1,
        "The tasks in the protocol of KServe V1 and TensorFlow Serving. Models are named as `model.task`, or as `model` \
        for the default task.",
    ),
    (
        OPEN_INFERENCE,
        "The tasks in the protocol of KServe V2 and Triton. Models are named as `model.task`, or as `model` for the \
        default task.",
    ),
    (
        JOBS,
        "Durable jobs. Every operation that runs a task accepts the header `prefer: respond-async`: the request is stored, \
        and runs in the background.",
    ),
    (OPENAI, "Embedding tasks in OpenAI's protocol."),
    (
        RERANK,
        "Rerankers in the protocols of Cohere, Jina and vLLM (`documents`), and of text-embeddings-inference (`texts`).",
    ),
    (COHERE, "Embedding tasks in Cohere's protocol."),
    (
        TEI,
        "Embedding tasks, classifiers and tokenizers in the protocol of text-embeddings-inference.",
    ),
    (
        ALIASES,
        "Other paths of the operations above, for clients that expect them: with the version of a model, below the name of a model, \
        and those of Azure.",
    ),
];

/// Tags that Swagger UI collapses: the routes of other protocols.
pub const COLLAPSED_TAGS: [&str; 7] = [V1, OPEN_INFERENCE, OPENAI, RERANK, COHERE, TEI, ALIASES];

/// The document. Paths are serialized in order, so that the native route of a task comes first.
pub struct Document {
    tags: Vec<Json>,
    paths: Vec<(String, Map<String, Json>)>,
    components: Json,
    keys: KeySettings,
}

/// Builds the document of these models.
pub fn document(models: &[DocumentedModel<'_>], max_items: usize, keys: KeySettings) -> Document {
    let mut components = Components::default();
    let mut operations = Operations::new(&mut components, keys);
    let mut tags = Vec::new();
    let schemas: Vec<Vec<TaskSchemas>> = models
        .iter()
        .map(|model| {
            let tasks = model.manifest.tasks.iter();
            tasks
                .map(|task| TaskSchemas::add(&mut components, model.name, task, max_items))
                .collect()
        })
        .collect();
    for (model, schemas) in models.iter().zip(&schemas) {
        let is_taken = TAGS.iter().any(|(tag, _)| *tag == model.name);
        let tag = if is_taken {
            format!("model {}", model.name)
        } else {
            model.name.to_owned()
        };
        native_routes::add_model(&mut operations, model, &tag, schemas);
        let mut json = json!({ "name": tag });
        if !model.description.is_empty() {
            json["description"] = model.description.into();
        }
        tags.push(json);
    }
    let names: Vec<String> = models.iter().map(|model| model.name.to_owned()).collect();
    native_routes::add_server(&mut operations, &mut components, &names);
    let tasks = named_tasks(models, &schemas);
    v1_routes::add(&mut operations, &mut components, &tasks, max_items);
    open_inference_routes::add(&mut operations, &mut components, &tasks, &names);
    embeddings_route::add(&mut operations, &mut components, &tasks);
    cohere_routes::add(&mut operations, &mut components, &tasks);
    let rankings = rerank_routes::add(&mut operations, &mut components, &tasks);
    tei_routes::add(&mut operations, &mut components, &tasks, rankings);
    tei_routes::add_health(&mut operations, &mut components, &names);
    let job = operations.job().clone();
    job_routes::add(&mut operations, &mut components, &job);
    let paths = operations.into_paths();
    let used = |tag: &str| {
        paths
            .iter()
            .any(|(_, methods)| methods.values().any(|one| one["tags"][0] == tag))
    };
    tags.extend(
        TAGS.iter()
            .filter(|(name, _)| used(name))
            .map(|(name, description)| json!({"name": name, "description": description})),
    );
    Document {
        tags,
        components: all_components(components, keys),
        paths,
        keys,
    }
}

impl Document {
    /// Removes the paths that `is_removed` selects.
    pub fn without(mut self, is_removed: impl Fn(&str) -> bool) -> Self {
        self.paths.retain(|(path, _)| !is_removed(path));
        self
    }
}

/// Returns every task with the name by which other protocols address it.
fn named_tasks<'a>(models: &'a [DocumentedModel<'a>], schemas: &'a [Vec<TaskSchemas>]) -> Vec<NamedTask<'a>> {
    let models = models.iter().zip(schemas);
    models
        .flat_map(|(model, schemas)| {
            let tasks = model.manifest.tasks.iter().zip(schemas).enumerate();
            tasks.map(move |(index, (task, schemas))| NamedTask {
                documented: model,
                model: model.name,
                name: format!("{}.{}", model.name, task.name),
                short_name: (model.default_task == Some(index)).then_some(model.name),
                task,
                schemas,
            })
        })
        .collect()
}

fn all_components(components: Components, keys: KeySettings) -> Json {
    let bearer = |description: &str| json!({"type": "http", "scheme": "bearer", "description": description});
    let mut schemes = Map::new();
    if keys.clients {
        schemes.insert(
            "apiKey".to_owned(),
            bearer("One of the configured keys, or the admin key."),
        );
    }
    if keys.admin {
        schemes.insert("adminKey".to_owned(), bearer("The configured `admin_key`."));
    }
    let mut all = json!({"schemas": components.into_schemas()});
    if !schemes.is_empty() {
        all["securitySchemes"] = schemes.into();
    }
    all
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Paths<'a>(&'a [(String, Map<String, Json>)]);
        impl Serialize for Paths<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(path, methods)| (path, methods)))
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("openapi", "3.1.0")?;
        map.serialize_entry(
            "info",
            &json!({
                "title": SERVER_NAME,
                "version": SERVER_VERSION,
                "description": "Runs machine learning models from plugins, with dynamic batching. This document describes the currently loaded models.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            }),
        )?;
        if self.keys.clients {
            map.serialize_entry("security", &json!([{"apiKey": []}]))?;
        }
        map.serialize_entry("tags", &self.tags)?;
        map.serialize_entry("paths", &Paths(&self.paths))?;
        map.serialize_entry("components", &self.components)?;
        map.end()
    }
}

/// Serializes the document without its servers, which depend on the request; see [`with_server`].
pub fn serialize(document: &Document) -> String {
    serde_json::to_string(document).unwrap_or_else(|error| json!({"error": error.to_string()}).to_string())
}

/// Adds the server to a document that [`serialize`] returned: the path prefix that a proxy reports, otherwise the
/// directory of the document.
pub fn with_server(document: &str, prefix: Option<&str>) -> String {
    let servers = json!([{"url": prefix.unwrap_or(".")}]);
    format!(
        "{{\"servers\":{servers},{}",
        document.strip_prefix('{').unwrap_or(document)
    )
}

/// Returns the path in `X-Forwarded-Prefix` if it is safe to embed in a page, since any client can send the header.
pub fn forwarded_prefix(value: &str) -> Option<&str> {
    let path = value.trim().trim_end_matches('/');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte);
    let is_path = path.starts_with('/') && !path.starts_with("//");
    (is_path && path.len() <= 200 && path.bytes().all(allowed)).then_some(path)
}

#[cfg(test)]
mod tests;
