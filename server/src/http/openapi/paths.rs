//! Paths and operations of the document.

use plugin_abi::manifest::{Kind, TaskManifest};
use serde_json::{Value as Json, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{
    ContentBuilder, Paths as PathMap, Ref, RefOr, Required, Response, ResponseBuilder, Schema,
};

use super::DocumentedModel;
use super::schemas::{Components, TaskSchemas, add_task};

/// The paths so far.
#[derive(Default)]
pub(super) struct Paths {
    paths: PathMap,
    tags: Vec<Tag>,
}

/// Statuses of a predict route in which no item was answered, with what they mean.
const PREDICT_ERRORS: [(&str, &str); 11] = [
    ("400", "The request is malformed."),
    (
        "401",
        "The server wants a key, and the request brings none of them.",
    ),
    ("404", "The model or task is not loaded any more."),
    ("406", "None of the accepted content encodings can be served."),
    ("408", "The body did not arrive in time."),
    ("413", "The body is larger than the limit."),
    ("415", "The media type or content encoding is not supported."),
    ("422", "The model cannot take any of the items."),
    ("500", "The model or the server failed."),
    ("503", "The model is not ready, or the server is stopping."),
    ("504", "The deadline passed."),
];

impl Paths {
    /// Adds the routes of one model.
    pub(super) fn add_model(
        &mut self,
        model: &DocumentedModel<'_>,
        components: &mut Components,
        max_items: usize,
    ) {
        self.tags.push(
            TagBuilder::new()
                .name(model.name)
                .description((!model.description.is_empty()).then_some(model.description))
                .build(),
        );
        for (index, task) in model.manifest.tasks.iter().enumerate() {
            let schemas = add_task(components, model.name, task, max_items);
            let mut add = |path: String, route: &str| {
                let operation = predict(model.name, task, &schemas, route);
                let operation = operation.operation_id(Some(operation_id(&path)));
                self.add(&path, HttpMethod::Post, operation);
            };
            let root = format!("/v1/models/{}", path_segment(model.name));
            add(format!("{root}/tasks/{}/predict", path_segment(&task.name)), "");
            if model.default_task == Some(index) {
                add(format!("{root}/predict"), " (the default task)");
            }
            for (route, _) in model.routes.iter().filter(|(_, task)| *task == index) {
                add((*route).to_owned(), " (short route)");
            }
        }
    }

    /// Adds the routes that do not depend on what is loaded.
    pub(super) fn add_server(&mut self) {
        let tag = "server";
        self.tags.push(
            TagBuilder::new()
                .name(tag)
                .description(Some("State of the server and its models."))
                .build(),
        );
        let model = ParameterBuilder::new()
            .name("model")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
        let get = |summary: &str| OperationBuilder::new().tag(tag).summary(Some(summary));
        let plain = |description: &str| Response::new(description);
        self.add(
            "/v1/models",
            HttpMethod::Get,
            get("List the models").response("200", json_response("The models.", "ModelList")),
        );
        self.add(
            "/v1/models/{model}",
            HttpMethod::Get,
            get("Describe a model")
                .parameter(model)
                .response("200", json_response("The model.", "Model"))
                .response("404", json_response("No such model.", "Error")),
        );
        self.add(
            "/health",
            HttpMethod::Get,
            get("State of the server and its models")
                .response("200", json_object("Every model is ready."))
                .response(
                    "503",
                    json_object("A model is not ready, or the server is stopping."),
                ),
        );
        self.add(
            "/livez",
            HttpMethod::Get,
            get("Whether the process lives").response("200", json_object("It does.")),
        );
        self.add(
            "/readyz",
            HttpMethod::Get,
            get("Whether requests are welcome")
                .response("200", json_object("They are."))
                .response(
                    "503",
                    json_object("A model is not ready, or the server is stopping."),
                ),
        );
        self.add(
            "/metrics",
            HttpMethod::Get,
            get("Metrics in Prometheus' text format").response(
                "200",
                ResponseBuilder::from(plain("The metrics.")).content("text/plain", content(string_schema())),
            ),
        );
    }

    /// The tags of all operations.
    pub(super) fn tags(&self) -> Vec<Tag> {
        self.tags.clone()
    }

    pub(super) fn build(self) -> PathMap {
        self.paths
    }

    fn add(&mut self, path: &str, method: HttpMethod, operation: OperationBuilder) {
        let operation = operation.build();
        let id = operation
            .operation_id
            .clone()
            .unwrap_or_else(|| operation_id(path));
        let operation = OperationBuilder::from(operation).operation_id(Some(id));
        let added = PathsBuilder::new()
            .path(path, PathItem::new(method, operation))
            .build();
        self.paths.merge(added);
    }
}

/// Unique, as paths are.
fn operation_id(path: &str) -> String {
    let mut id = String::with_capacity(path.len());
    for c in path.trim_matches('/').chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => id.push(c),
            '{' | '}' => {}
            '/' => id.push('.'),
            other => id.push_str(&format!("-{:x}-", u32::from(other))),
        }
    }
    id
}

/// A name as one segment of a path template.
fn path_segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

fn predict(model: &str, task: &TaskManifest, schemas: &TaskSchemas, route: &str) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .tag(model)
        .summary(Some(format!("Run `{}` of `{model}`{route}", task.name)))
        .description((!task.description.is_empty()).then_some(&task.description))
        .parameter(header_parameter(
            "x-request-timeout",
            "How long the reply may take, such as `250ms` or `2s`; a bare number is seconds.",
            json!({"type": "string", "pattern": "^[1-9][0-9]{0,3}(ms|s)?$"}),
        ))
        .parameter(header_parameter(
            "x-priority",
            "Which requests go first.",
            json!({"type": "string", "enum": ["high", "normal", "low"]}),
        ))
        .request_body(Some(request_body(task, schemas)))
        .response("200", reply(task, schemas))
        .response("429", too_many());
    for (status, meaning) in PREDICT_ERRORS {
        let items_failed = matches!(status, "422" | "500" | "503" | "504");
        let schema = if items_failed {
            reference(&schemas.failed)
        } else {
            RefOr::Ref(Ref::from_schema_name("Error"))
        };
        operation = operation.response(
            status,
            ResponseBuilder::from(Response::new(meaning)).content("application/json", content(schema)),
        );
    }
    operation
}

fn header_parameter(name: &str, description: &str, schema: Json) -> ParameterBuilder {
    let schema: Option<Schema> = serde_json::from_value(schema).ok();
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(schema)
}

fn request_body(task: &TaskManifest, schemas: &TaskSchemas) -> RequestBody {
    let examples = task.examples.iter().enumerate().map(|(index, example)| {
        let value = json!({ "inputs": [example] });
        let example = ExampleBuilder::new().value(Some(value)).build();
        (format!("example {}", index + 1), example)
    });
    let json_content = ContentBuilder::new()
        .schema(Some(reference(&schemas.request)))
        .examples_from_iter(examples)
        .build();
    let mut body = RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", json_content);
    if task.input.kinds.contains(&Kind::Text) {
        body = body.content("text/plain", content(string_schema()));
    }
    if task.input.kinds.contains(&Kind::Bytes) {
        let raw = || content(binary_schema());
        body = body.content("application/octet-stream", raw());
        for media_type in &task.input.media_types {
            body = body.content(media_type, raw());
        }
    }
    body.build()
}

fn reply(task: &TaskManifest, schemas: &TaskSchemas) -> Response {
    let mut response = ResponseBuilder::from(Response::new(
        "The outputs, in the order of the inputs; at least one item succeeded.",
    ))
    .content("application/json", content(reference(&schemas.reply)));
    if task.output.kinds.contains(&Kind::Bytes) {
        for media_type in &task.output.media_types {
            response = response.content(media_type, content(binary_schema()));
        }
    }
    response.build()
}

fn too_many() -> Response {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer);
    ResponseBuilder::from(Response::new("The queue is full; come back later."))
        .header(
            "Retry-After",
            HeaderBuilder::new()
                .schema(Some(seconds))
                .description(Some("Seconds to wait."))
                .build(),
        )
        .content(
            "application/json",
            content(RefOr::Ref(Ref::from_schema_name("Error"))),
        )
        .build()
}

fn json_response(description: &str, schema: &str) -> Response {
    ResponseBuilder::from(Response::new(description))
        .content(
            "application/json",
            content(RefOr::Ref(Ref::from_schema_name(schema))),
        )
        .build()
}

fn json_object(description: &str) -> Response {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    ResponseBuilder::from(Response::new(description))
        .content("application/json", content(object))
        .build()
}

fn content(schema: impl Into<RefOr<Schema>>) -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(schema)).build()
}

fn reference(location: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::new(location))
}

fn string_schema() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn binary_schema() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
}
