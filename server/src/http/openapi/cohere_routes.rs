//! The routes of Cohere's embeddings.

use serde_json::{Value as Json, json};

use super::body_routes::{BodyRoute, ModelName};
use super::components::Components;
use super::embeddings_route::dimensions_schema;
use super::native_routes::RUN_FAILURES;
use super::operations::Operations;
use super::{COHERE, NamedTask, addresses};
use crate::api::TaskRole;
use crate::http::embeddings::input_type::{self, InputType, Naming};
use crate::routes;

/// Adds `/v1/embed` and `/v2/embed`, if a task produces embeddings.
pub(super) fn add(operations: &mut Operations, components: &mut Components, tasks: &[NamedTask<'_>]) {
    let models = models(tasks);
    if models.is_empty() {
        return;
    }
    let route = BodyRoute {
        route: routes::COHERE_EMBED,
        role: TaskRole::Embedding,
        tag: COHERE,
        summary: "Embed texts",
        paths: &[
            (
                "/v1/embed",
                "v1 embed cohere",
                "Without `embedding_types`, `embeddings` is a list of lists of numbers.",
            ),
            (
                "/v2/embed",
                "v2 embed cohere",
                "`embeddings` is an object with a list for each of `embedding_types`.",
            ),
        ],
        example: Some(json!({"texts": ["to be"]})),
        reply: (
            "Embeddings in the order of the texts.",
            components.add("CohereEmbedReply", reply_schema()),
        ),
        failures: RUN_FAILURES,
    };
    route.add(operations, components, tasks, |components, name, tasks| {
        let dimensions = dimensions_schema(tasks.iter().copied());
        let mut requests = Vec::new();
        for (member, component, items) in inputs() {
            for model in &models {
                let request = request_schema(member, &items, &dimensions);
                for request in model.requests(request, name, models.len() == 1) {
                    requests.push(components.share(component, request));
                }
            }
        }
        json!({ "anyOf": requests })
    });
}

/// The models that embed the same types of inputs in the same way.
struct Models<'a> {
    /// The names of the models, and those of their tasks.
    names: (Vec<&'a str>, Vec<&'a str>),
    /// Whether there is only one model.
    is_one: bool,
    /// The types of inputs that they embed, with the task or prompt for each.
    types: Vec<(InputType, Option<&'a str>)>,
    /// The same for a request that names a task.
    types_of_tasks: [(InputType, Option<&'a str>); 4],
    /// Whether they embed inputs of no specific type.
    embeds_any: bool,
}

/// The models with embedding tasks.
fn models<'a>(tasks: &'a [NamedTask<'a>]) -> Vec<Models<'a>> {
    let mut all: Vec<Models<'a>> = Vec::new();
    for named in addresses::with_role(tasks, TaskRole::Embedding) {
        let (documented, name) = (named.documented, named.name.as_str());
        let (settings, manifests) = (documented.embeddings, &documented.manifest.tasks);
        let accepted = input_type::accepted(settings, manifests, documented.default_task);
        let types: Vec<_> = accepted
            .into_iter()
            .map(|kind| (kind, kind.prompt(settings, manifests)))
            .collect();
        let types_of_tasks = InputType::ALL.map(|kind| (kind, kind.prompt(settings, &[])));
        let embeds_any = input_type::embeds_any(manifests, documented.default_task);
        let same = |models: &&mut Models<'_>| {
            (&models.types, models.types_of_tasks, models.embeds_any) == (&types, types_of_tasks, embeds_any)
        };
        match all.iter_mut().find(same) {
            Some(models) => {
                models.is_one &= models.names.0.contains(&named.model);
                if !models.names.0.contains(&named.model) {
                    models.names.0.push(named.model);
                }
                models.names.1.push(name);
            }
            None => all.push(Models {
                names: (vec![named.model], vec![name]),
                is_one: true,
                types,
                types_of_tasks,
                embeds_any,
            }),
        }
    }
    all
}

impl Models<'_> {
    /// The forms of a request to these models. `is_only_kind` if there are no others.
    fn requests(&self, request: Json, name: ModelName<'_>, is_only_kind: bool) -> Vec<Json> {
        let (models, tasks) = &self.names;
        let mut by_name = request.clone();
        let types = match self.embeds_any {
            true => &self.types[..],
            false => &self.types_of_tasks[..],
        };
        by_name["properties"]["input_type"] = type_schema(types, false);
        if self.embeds_any && is_only_kind {
            name.add_to(&mut by_name);
        } else {
            let models = models.iter().filter(|_| self.embeds_any);
            require_model(&mut by_name, models.chain(tasks));
        }
        if self.embeds_any || self.types.is_empty() {
            return vec![by_name];
        }
        let mut by_type = request;
        by_type["properties"]["input_type"] = type_schema(&self.types, true);
        require(&mut by_type, "input_type");
        match self.is_one && is_only_kind {
            true => {
                let example = models[0];
                let is_optional = true;
                ModelName::Body { example, is_optional }.add_to(&mut by_type);
            }
            false => require_model(&mut by_type, models.iter()),
        }
        vec![by_name, by_type]
    }
}

fn require(request: &mut Json, member: &str) {
    if let Some(required) = request["required"].as_array_mut() {
        required.insert(0, member.into());
    }
}

fn require_model<'a>(request: &mut Json, names: impl Iterator<Item = &'a &'a str>) {
    request["properties"]["model"] = json!({"type": "string", "enum": names.collect::<Vec<_>>()});
    require(request, "model");
}

/// The schema of `input_type`, with the task or prompt that each type selects.
fn type_schema(types: &[(InputType, Option<&str>)], is_required: bool) -> Json {
    let name = |kind: &InputType| kind.name(Naming::Cohere);
    let selects = types.iter().filter_map(|(kind, prompt)| {
        Some(format!(
            "`{}` selects the task or prompt `{}`",
            name(kind),
            (*prompt)?
        ))
    });
    let description = match selects.collect::<Vec<_>>() {
        some if some.is_empty() => "All types of inputs are embedded in the same way.".to_owned(),
        some => format!("{}.", some.join("; ")),
    };
    let names = types.iter().map(|(kind, _)| Json::from(name(kind)));
    let names = names.chain((!is_required).then_some(Json::Null));
    let kinds = if is_required {
        json!("string")
    } else {
        json!(["string", "null"])
    };
    json!({"type": kinds, "enum": names.collect::<Vec<_>>(), "description": description})
}

/// The members with the inputs: the name of a request with it, and the schema of the member.
fn inputs() -> [(&'static str, &'static str, Json); 2] {
    let list = |items: Json| json!({"type": "array", "minItems": 1, "items": items});
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
    [
        ("texts", "CohereTextsRequest", list(json!({"type": "string"}))),
        ("inputs", "CohereInputsRequest", list(content)),
    ]
}

/// A request, without the model and the type of its inputs.
fn request_schema(member: &str, inputs: &Json, dimensions: &Json) -> Json {
    json!({
        "type": "object",
        "required": [member],
        "properties": {
            member: inputs,
            "embedding_types": {
                "type": ["array", "null"],
                "items": {"type": "string", "enum": ["float", "base64", "binary", "ubinary"]},
                "description": "Binary embeddings require a multiple of 8 dimensions.",
            },
            "truncate": {"type": ["string", "null"], "enum": ["NONE", "START", "END", null], "default": "END"},
            "output_dimension": dimensions,
        },
    })
}

fn reply_schema() -> Json {
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
    })
}
