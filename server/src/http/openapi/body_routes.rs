//! Routes whose requests name the model in the body, or, at some of their paths, in the path.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::operations::{Operation, Operations, examples, json_body, json_response, path_parameter};
use super::{Access, NamedTask, addresses};
use crate::api::{TaskRole, Unnamed};
use crate::routes::Route;

/// Where a request names the model.
#[derive(Clone, Copy)]
pub(super) enum ModelName<'a> {
    /// In the body.
    Body {
        example: &'a str,
        /// Whether only one task can be meant.
        is_optional: bool,
    },
    /// In the path. That in the body is ignored.
    Path,
}

impl ModelName<'_> {
    /// Adds the member `model` to the schema of a request.
    pub(super) fn add_to(self, request: &mut Json) {
        request["properties"]["model"] = match self {
            Self::Body {
                example,
                is_optional: true,
            } => json!({"type": ["string", "null"], "examples": [example]}),
            Self::Body { example, .. } => {
                json!({"type": "string", "minLength": 1, "examples": [example]})
            }
            Self::Path => {
                json!({"type": ["string", "null"], "description": "Ignored: the path names the model."})
            }
        };
        if let Self::Body {
            is_optional: false, ..
        } = self
            && let Some(required) = request["required"].as_array_mut()
        {
            required.insert(0, "model".into());
        }
    }
}

/// A route, and what its operations have in common.
pub(super) struct BodyRoute<'a> {
    pub(super) route: Route,
    pub(super) role: TaskRole,
    pub(super) tag: &'static str,
    pub(super) summary: &'a str,
    /// The paths that clients use, with their operation IDs and descriptions. All other paths of the route are aliases.
    pub(super) paths: &'a [(&'a str, &'a str, &'a str)],
    /// An example of a request, without the name of the model.
    pub(super) example: Option<Json>,
    /// The description of the reply, and its schema.
    pub(super) reply: (&'a str, Json),
    pub(super) failures: &'static [u16],
}

/// A request to a route at a prefix of its path: the name of a model, or nothing.
pub(super) struct Request {
    pub(super) prefix: String,
    pub(super) schema: Json,
    pub(super) example: Option<Json>,
}

impl BodyRoute<'_> {
    /// Adds the route, if there is a task for it: its paths, aliases for the other paths of the route, and for those below the name of
    /// each model. `schema` adds the schema of requests that these tasks can answer. Returns the requests by the prefix of their path.
    pub(super) fn add(
        &self,
        operations: &mut Operations,
        components: &mut Components,
        tasks: &[NamedTask<'_>],
        schema: impl Fn(&mut Components, ModelName<'_>, &[&NamedTask<'_>]) -> Json,
    ) -> Vec<Request> {
        let all: Vec<&NamedTask<'_>> = addresses::with_role(tasks, self.role).collect();
        let Some(first) = all.first() else {
            return Vec::new();
        };
        let in_body = ModelName::Body {
            example: &first.name,
            is_optional: addresses::unnamed(tasks, self.role) == Unnamed::Found,
        };
        let in_body = Request {
            prefix: String::new(),
            schema: schema(components, in_body, &all),
            example: self.example.clone().map(|mut example| {
                example["model"] = first.name.as_str().into();
                example
            }),
        };
        for path in self.paths {
            operations.add(self.operation(path, &in_body));
        }
        for pattern in self.patterns() {
            if pattern.contains("{model}") {
                let names: Vec<String> = all.iter().map(|named| named.name.clone()).collect();
                let in_path = self.in_path(String::new(), schema(components, ModelName::Path, &all));
                let mut alias = self.original_of(pattern, &in_path).at(pattern.to_owned());
                alias.parameters.push(path_parameter("model", &names));
                operations.add_alias(alias);
            } else {
                operations.add_alias(self.original_of(pattern, &in_body).at(pattern.to_owned()));
            }
        }
        let mut requests = vec![in_body];
        if !self.route.is_below_models {
            return requests;
        }
        for address in addresses::of_models(tasks, self.role) {
            if address.needs_prompt {
                // These protocols have no member for it.
                continue;
            }
            let in_path = schema(components, ModelName::Path, &address.tasks);
            let in_path = self.in_path(address.prefix, in_path);
            for path in self.route.paths_below_models() {
                let original = self.original_of(path, &in_path);
                operations.add_alias(original.at(format!("{}{path}", in_path.prefix)));
            }
            requests.push(in_path);
        }
        requests
    }

    fn in_path(&self, prefix: String, schema: Json) -> Request {
        Request {
            prefix,
            schema,
            example: self.example.clone(),
        }
    }

    /// The paths at the root that are aliases. A name with a slash is encoded, so that no path needs two parameters for it.
    fn patterns(&self) -> impl Iterator<Item = &'static str> {
        let is_known = |pattern: &str| self.paths.iter().any(|(path, ..)| *path == pattern);
        let patterns = self.route.patterns.iter().copied();
        patterns.filter(move |pattern| !is_known(pattern) && !pattern.contains("{namespace}"))
    }

    /// The operation for which another path stands: that of the same path, or else the first one.
    fn original_of(&self, path: &str, request: &Request) -> Operation<'static> {
        let same = self.paths.iter().find(|(known, ..)| *known == path);
        self.operation(same.unwrap_or(&self.paths[0]), request)
    }

    fn operation(
        &self,
        (path, id, description): &(&str, &str, &str),
        request: &Request,
    ) -> Operation<'static> {
        Operation {
            method: "post",
            path: (*path).to_owned(),
            id: (*id).to_owned(),
            tag: self.tag,
            summary: self.summary.to_owned(),
            description: (*description).to_owned(),
            parameters: Vec::new(),
            body: Some(json_body(
                &request.schema,
                true,
                examples(request.example.clone()),
            )),
            responses: vec![(200, json_response(self.reply.0, &self.reply.1))],
            failures: self.failures,
            all_failed: None,
            access: Access::Client,
        }
    }
}

/// The schema of the numbers of tokens of a request.
pub(super) fn usage_schema() -> Json {
    json!({
        "type": "object",
        "required": ["prompt_tokens", "total_tokens"],
        "properties": {"prompt_tokens": {"type": "integer"}, "total_tokens": {"type": "integer"}},
    })
}

/// The schema of a list as in the protocol of OpenAI: elements of the type `kind`, which have an index and a `member`.
pub(super) fn list_schema(kind: &str, member: &str, value: &Json) -> Json {
    json!({
        "type": "object",
        "required": ["object", "data", "model", "usage"],
        "properties": {
            "object": {"type": "string", "const": "list"},
            "data": {"type": "array", "items": {
                "type": "object",
                "required": ["object", "index", member],
                "properties": {
                    "object": {"type": "string", "const": kind},
                    "index": {"type": "integer"},
                    member: value,
                },
            }},
            "model": {"type": "string"},
            "usage": usage_schema(),
        },
    })
}
