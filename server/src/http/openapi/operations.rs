//! The operations of the document: ids, required keys, and error responses.

use serde_json::{Map, Value as Json, json};

use super::components::{Components, Names, snake_case};
use super::job_routes::{self, SUBMIT_FAILURES};
use super::{ALIASES, Access, TEI};
use crate::api::{Code, Failure, VERSION};
use crate::http::error_format::ErrorFormat;

/// The operations so far, in document order.
pub(super) struct Operations {
    paths: Vec<(String, Map<String, Json>)>,
    ids: Names,
    errors: Errors,
    /// Schema of a job.
    job: Json,
    keys: KeySettings,
}

/// Which keys the server requires.
#[derive(Clone, Copy, Debug)]
pub struct KeySettings {
    /// Whether clients must send a key.
    pub clients: bool,
    /// Whether an admin key is configured.
    pub admin: bool,
    /// Whether keys can have names, and with them permissions and limits.
    pub named: bool,
}

/// An operation, without its error responses.
#[derive(Clone)]
pub(super) struct Operation<'a> {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// Words that form the operation id.
    pub(super) id: String,
    pub(super) tag: &'a str,
    pub(super) summary: String,
    pub(super) description: String,
    pub(super) parameters: Vec<Json>,
    pub(super) body: Option<Json>,
    /// Responses other than errors, by status.
    pub(super) responses: Vec<(u16, Json)>,
    /// Error statuses, except those for missing or invalid keys.
    pub(super) failures: &'static [u16],
    /// Schema of a response in which every item failed individually.
    pub(super) all_failed: Option<Json>,
    pub(super) access: Access,
}

impl Operation<'_> {
    /// The same operation at another path.
    pub(super) fn at(&self, path: String) -> Self {
        Self {
            id: format!("{} {path}", self.method),
            description: format!("The same as `{}`.", self.path),
            path,
            ..self.clone()
        }
    }

    /// The same operation at the path with the version of the model after its name, which is a parameter.
    pub(super) fn at_version(&self) -> Self {
        let mut alias = self.at(self.path.replacen("{model}", "{model}/versions/{version}", 1));
        alias.parameters.push(version_parameter());
        alias
    }

    /// Whether it runs a task. These operations count for the limits of keys, and can run as jobs.
    fn runs_task(&self) -> bool {
        self.failures.contains(&429)
    }
}

/// Schemas of errors.
struct Errors {
    native: Json,
    open_inference: Json,
    openai: Json,
    rerank: Json,
}

impl Errors {
    fn add(components: &mut Components) -> Self {
        let codes = json!({"type": "string", "enum": Code::ALL.map(Code::name)});
        let detail = json!({
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": codes, "message": {"type": "string"}, "request_id": {"type": "string"}},
        });
        let detail = components.add("ErrorDetail", detail);
        let error =
            |detail: Json| json!({"type": "object", "required": ["error"], "properties": {"error": detail}});
        let mut native = error(detail);
        native["description"] = "The error of a request or of one of its items.".into();
        let openai = json!({
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": codes,
            },
        });
        let rerank = json!({
            "type": "object",
            "required": ["error", "error_type", "message"],
            "properties": {
                "error": {"type": "string"},
                "error_type": {"type": "string", "enum": ["Empty", "Validation", "Overloaded", "Unhealthy", "Backend"]},
                "message": {"type": "string"},
            },
        });
        Self {
            native: components.add("Error", native),
            open_inference: components.add("OpenInferenceError", error(json!({"type": "string"}))),
            openai: components.add("OpenAIError", error(openai)),
            rerank: components.add("RerankError", rerank),
        }
    }

    fn of(&self, error_format: ErrorFormat) -> &Json {
        match error_format {
            ErrorFormat::Native => &self.native,
            ErrorFormat::OpenInference | ErrorFormat::V1 => &self.open_inference,
            ErrorFormat::OpenAi => &self.openai,
            ErrorFormat::Rerank => &self.rerank,
        }
    }
}

impl Operations {
    pub(super) fn new(components: &mut Components, keys: KeySettings) -> Self {
        Self {
            paths: Vec::new(),
            ids: Names::default(),
            errors: Errors::add(components),
            job: job_routes::add_schema(components),
            keys,
        }
    }

    /// The schema of a job.
    pub(super) fn job(&self) -> &Json {
        &self.job
    }

    pub(super) fn add(&mut self, operation: Operation<'_>) {
        let tag = operation.tag;
        self.add_with_tag(operation, tag);
    }

    /// Adds an operation that is the same as one of another tag, at another path.
    pub(super) fn add_alias(&mut self, operation: Operation<'_>) {
        self.add_with_tag(operation, ALIASES);
    }

    fn add_with_tag(&mut self, mut operation: Operation<'_>, tag: &str) {
        if operation.runs_task() {
            operation.parameters.push(job_routes::preference());
            operation.responses.push((202, job_routes::accepted(&self.job)));
        }
        let mut json = json!({
            "tags": [tag],
            "operationId": self.ids.unique(snake_case(&operation.id)),
            "summary": operation.summary,
            "responses": self.responses(&operation),
        });
        if !operation.description.is_empty() {
            json["description"] = operation.description.into();
        }
        if !operation.parameters.is_empty() {
            json["parameters"] = operation.parameters.into();
        }
        if let Some(body) = operation.body {
            json["requestBody"] = body;
        }
        match operation.access {
            Access::Open if self.keys.clients => json["security"] = json!([]),
            Access::Admin if self.keys.admin => json["security"] = json!([{"adminKey": []}]),
            Access::Open | Access::Client | Access::Admin => {}
        }
        let methods = match self.paths.iter_mut().find(|(path, _)| *path == operation.path) {
            Some((_, methods)) => methods,
            None => {
                self.paths.push((operation.path, Map::new()));
                &mut self.paths.last_mut().expect("one was just added").1
            }
        };
        methods.insert(operation.method.to_owned(), json);
    }

    pub(super) fn into_paths(self) -> Vec<(String, Map<String, Json>)> {
        self.paths
    }

    fn responses(&self, operation: &Operation<'_>) -> Json {
        let mut responses = Map::new();
        let is_limited = self.keys.named && operation.runs_task();
        let of_job: &[u16] = if operation.runs_task() {
            SUBMIT_FAILURES
        } else {
            &[]
        };
        for (status, answer) in &operation.responses {
            let mut answer = answer.clone();
            if is_limited {
                add_rate_limit_headers(&mut answer);
            }
            responses.insert(status.to_string(), answer);
        }
        let keys: &[u16] = match operation.access {
            Access::Open => &[],
            Access::Client if self.keys.named => &[401, 403],
            Access::Client if self.keys.clients => &[401],
            Access::Client => &[],
            Access::Admin if self.keys.clients || self.keys.admin => &[401, 403],
            Access::Admin => &[403],
        };
        let of_path = ErrorFormat::of_request(operation.method == "post", &operation.path);
        let error_format = match operation.tag {
            TEI => ErrorFormat::Rerank,
            _ => of_path,
        };
        for &status in operation.failures.iter().chain(of_job).chain(keys) {
            // The path of a name alone is like any other if the client may not know that there is a model of this name.
            let other = match status {
                401 | 404 if error_format != of_path => Some(self.errors.of(of_path)),
                422 | 500 | 503 | 504 => operation.all_failed.as_ref(),
                _ => None,
            };
            let mut answer = self.failure(status, error_format, other);
            if is_limited && status == 429 {
                add_rate_limit_headers(&mut answer);
            }
            responses.insert(status.to_string(), answer);
        }
        responses.into()
    }

    /// Builds the response with an error status, with an example for each of its codes. Its body can also have an `other` schema.
    fn failure(&self, status: u16, error_format: ErrorFormat, other: Option<&Json>) -> Json {
        let error = self.errors.of(error_format);
        let schema = match other {
            Some(other) => json!({"anyOf": [error, other]}),
            None => error.clone(),
        };
        let codes = Code::ALL.into_iter().filter(|code| code.status() == status);
        let examples: Map<String, Json> = codes
            .map(|code| (code.name().to_owned(), example(code, error_format)))
            .collect();
        let mut response = json!({
            "description": status_description(status),
            "content": {"application/json": {"schema": schema, "examples": examples}},
        });
        if matches!(status, 429 | 503) {
            response["headers"] = json!({"Retry-After": {
                "description": "Number of seconds to wait before retrying.", "schema": {"type": "integer", "minimum": 1},
            }});
        }
        response
    }
}

/// Adds the header fields that report the limits of the client's key.
fn add_rate_limit_headers(response: &mut Json) {
    let field = |description: &str, example: &str| json!({"description": description, "schema": {"type": "string"}, "example": example});
    response["headers"]["RateLimit-Policy"] = field(
        "Rate limits of the API key, if it has any, as a structured field.",
        "\"requests\";q=20;w=2, \"items\";q=1000;qu=\"items\";w=2",
    );
    response["headers"]["RateLimit"] = field(
        "What is left of the rate limits of the API key, if it has any, as a structured field.",
        "\"requests\";r=19;t=1, \"items\";r=936;t=1",
    );
}

/// Builds an example error with this code.
fn example(code: Code, error_format: ErrorFormat) -> Json {
    let failure = Failure::new(code, example_message(code));
    let body = error_format.write(&failure, Some("5f0c62a1d9b3e84700000001"));
    json!({"value": serde_json::from_slice::<Json>(&body).unwrap_or_default()})
}

fn status_description(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed.",
        401 => "The request has no valid API key.",
        403 => "The operation is disabled, or the key does not allow it.",
        404 => "The model, the task or the job does not exist.",
        409 => "The state of the job does not allow it, or another request has used the idempotency key.",
        410 => "The job has no result.",
        406 => "None of the accepted content encodings is supported.",
        408 => "The request body did not arrive in time.",
        413 => "The request body is too large.",
        415 => "The media type or content encoding is not supported.",
        422 => "The model rejected every item.",
        424 => "The model does not have a task for this route.",
        429 => {
            "A rate limit of the API key is exceeded, the queue is full, the deadline cannot be met, or the requests in flight hold too many bytes."
        }
        500 => "The model or the server failed.",
        503 => "The model is not ready, or the server is shutting down.",
        504 => "The deadline passed.",
        507 => "The store of jobs is full.",
        _ => "The request failed.",
    }
}

fn example_message(code: Code) -> &'static str {
    match code {
        Code::Malformed => "malformed request body: EOF while parsing an object at line 1 column 10",
        Code::Unauthorized => "missing API key: expected the header `authorization: Bearer KEY`",
        Code::Forbidden => {
            "loading and unloading models is disabled; set `admin_key` in [server] to enable it"
        }
        Code::NotFound => "unknown model `digit`, did you mean `digits`?; known models: digits",
        Code::Conflict => {
            "job 01890a5d-ac96-774b-bcce-b302099a8057 is running: it has no result yet; wait for it with `?wait=30s` at the job"
        }
        Code::Gone => "job 01890a5d-ac96-774b-bcce-b302099a8057 is cancelled and has no result",
        Code::MethodNotAllowed => "method DELETE is not allowed; expected POST",
        Code::NotAcceptable => {
            "none of the accepted content encodings is supported; supported: gzip, deflate, identity"
        }
        Code::RequestTimeout => "the request body did not arrive within 30 s",
        Code::TooLarge => "the request body is too large: expected at most 67108864 bytes",
        Code::UnsupportedMediaType => {
            "unsupported media type `text/html`: task `classify` accepts application/json"
        }
        Code::InvalidInput => "expected a string, got a number",
        Code::Unsupported => "the model does not support this option",
        Code::UnsuitableModel => "`digits` does not produce embeddings; available: minilm.query",
        Code::RateLimited => {
            "API key `mobile-app` exceeds its limit of 10 requests per second, with bursts of up to 20; retry in 100 ms"
        }
        Code::QueueFull => "the queue is full",
        Code::Overloaded => {
            "the requests in flight hold 2147400000 of at most 2147483648 bytes, and this one needs 1048576 more"
        }
        Code::DeadlineExceeded => "the deadline passed while the item was waiting",
        Code::StorageFull => {
            "the job store is full: 10737418240 of at most 10737418240 bytes are in use; remove finished jobs, or retry later"
        }
        Code::Unavailable => "the server is shutting down",
        Code::OutOfMemory => "the model ran out of memory",
        Code::ModelFault => "the model failed",
        Code::Internal => "internal server error",
    }
}

/// Builds a response with JSON of this schema.
pub(super) fn json_response(description: &str, schema: &Json) -> Json {
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

/// Builds a JSON request body.
pub(super) fn json_body(schema: &Json, required: bool, examples: Map<String, Json>) -> Json {
    let mut content = json!({ "schema": schema });
    if !examples.is_empty() {
        content["examples"] = examples.into();
    }
    json!({"required": required, "content": {"application/json": content}})
}

/// Names examples `example 1`, `example 2`, ….
pub(super) fn examples(values: impl IntoIterator<Item = Json>) -> Map<String, Json> {
    let named = values.into_iter().enumerate();
    named
        .map(|(index, value)| (format!("example {}", index + 1), json!({ "value": value })))
        .collect()
}

/// Builds a path parameter.
pub(super) fn path_parameter(name: &str, examples: &[String]) -> Json {
    let mut schema = json!({"type": "string", "minLength": 1});
    if !examples.is_empty() {
        schema["examples"] = json!(examples);
    }
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

/// The path parameter with the version of a model, of which there is one.
pub(super) fn version_parameter() -> Json {
    let schema = json!({"type": "string", "const": VERSION, "examples": [VERSION]});
    json!({"name": "version", "in": "path", "required": true, "schema": schema})
}

/// Percent-encodes a name that can have slashes, which separate segments of a path.
pub(in crate::http) fn path_segments(name: &str) -> String {
    name.split('/').map(path_segment).collect::<Vec<_>>().join("/")
}

/// Percent-encodes a name as one segment of a path.
pub(in crate::http) fn path_segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
