//! The OpenAPI document of what is loaded right now: a route for every model and task, with its own schemas.
//!
//! Built from manifests alone; knows nothing of actix. The paths are made with utoipa, the schemas of plugins are merged
//! in as they are, as no typed schema would keep every keyword of theirs.

mod paths;
mod protocols;
mod schemas;

use plugin_abi::manifest::ModelManifest;
use serde_json::{Map, Value as Json};
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};

/// One loaded model, as far as the documentation goes.
#[derive(Clone, Copy, Debug)]
pub struct DocumentedModel<'a> {
    /// Configured name.
    pub name: &'a str,
    /// For people; may be empty.
    pub description: &'a str,
    /// Its tasks.
    pub manifest: &'a ModelManifest,
    /// Index of the task that `/v1/models/{name}/predict` runs.
    pub default_task: Option<usize>,
    /// Short routes of the operator's: path and index of the task.
    pub routes: &'a [(&'a str, usize)],
}

/// The document as JSON.
pub fn document(models: &[DocumentedModel<'_>], max_items: usize) -> Json {
    let mut components = schemas::Components::default();
    schemas::add_common(&mut components);
    let mut paths = paths::Paths::default();
    for model in models {
        paths.add_model(model, &mut components, max_items);
    }
    paths.add_server();
    let document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Inference server")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Models served as plugins, batched task by task. The document lists what is loaded now.",
                ))
                .build(),
        )
        .tags(Some(paths.tags()))
        .paths(paths.build())
        .build();
    let mut json = serde_json::to_value(&document)
        .unwrap_or_else(|error| Json::String(format!("the document cannot be written: {error}")));
    let known = protocols::paths(models, &mut components);
    if let Some(paths) = json["paths"].as_object_mut() {
        paths.extend(known);
    }
    if let Some(tags) = json["tags"].as_array_mut() {
        tags.extend(protocols::tags());
    }
    let schemas: Map<String, Json> = components.into_schemas();
    if let Some(object) = json.as_object_mut() {
        object.insert("components".to_owned(), serde_json::json!({ "schemas": schemas }));
    }
    json
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
