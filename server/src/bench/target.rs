//! The requests to send: found by asking the server about the model.

use std::path::Path;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, Uri};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::args::{Environment, Plan, RequestSource};
use super::error::BenchError;
use crate::client::{
    Endpoint, QueryError, ServerUrl, client_tls, connect, override_with, resolve, with_deadline,
};
use crate::clock;
use crate::json;

/// A task of a running server, and a request for it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) task: String,
    /// Number of items in the request, as far as it is known.
    pub(super) items: usize,
    predict: Prototype,
    metrics: Prototype,
}

/// A request that is sent repeatedly.
#[derive(Debug)]
struct Prototype {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// The parts of the description of a model that are needed here.
#[derive(Debug, Deserialize)]
struct Model {
    ready: bool,
    state: String,
    reason: Option<String>,
    default_task: Option<String>,
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Task {
    name: String,
    #[serde(default)]
    examples: Vec<Json>,
}

/// The body of a request.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    bytes: Bytes,
    content_type: String,
    items: usize,
}

impl Target {
    /// Requests the description of the model from the server.
    pub(super) async fn find(plan: &Plan) -> Result<Self, BenchError> {
        let url = &plan.url;
        let route = format!("/v1/models/{}", plan.model);
        let failed = |failure| QueryError::new::<Environment>(url, &route, failure);
        let tls = client_tls(url, &plan.trust)?;
        let endpoints = resolve(url, tls.as_ref()).await.map_err(failed)?;
        let headers = &plan.headers;
        let request_error = |content_type: &str, source| BenchError::Request {
            model: plan.model.clone(),
            task: plan.task.clone().unwrap_or_default(),
            content_type: content_type.to_owned(),
            source,
        };
        let describe =
            Prototype::get(url, headers, &url.path(&route)).map_err(|source| request_error("", source))?;
        let timeout = plan.timing.timeout;
        let reply = with_deadline(clock::now() + timeout, timeout, async {
            let (endpoint, mut connection) = connect(&endpoints).await?;
            Ok((endpoint.clone(), connection.fetch(describe.request()).await?))
        });
        let (endpoint, reply) = reply.await.map_err(failed)?;
        let model: Model = json::from_slice(&reply).map_err(|source| BenchError::Foreign {
            url: url.url_of(&route),
            source,
        })?;
        let task = model.choose(&plan.model, plan.task.as_deref())?;
        let body = Body::from(&plan.request, &plan.model, task)?;
        let path = url.path(&format!("/v1/models/{}/tasks/{}/predict", plan.model, task.name));
        let predict = Prototype::post(url, headers, &path, &body);
        Ok(Self {
            endpoint,
            model: plan.model.clone(),
            task: task.name.clone(),
            items: body.items,
            predict: predict.map_err(|source| request_error(&body.content_type, source))?,
            metrics: Prototype::get(url, headers, &url.path("/metrics"))
                .map_err(|source| request_error("", source))?,
        })
    }

    /// `MODEL/TASK`
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.model, self.task)
    }

    /// The prediction request.
    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        self.predict.request()
    }

    /// `GET /metrics`
    pub(super) fn metrics_request(&self) -> Request<Full<Bytes>> {
        self.metrics.request()
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.predict.body.len()
    }
}

impl Prototype {
    fn get(url: &ServerUrl, extra: &HeaderMap, path: &str) -> Result<Self, hyper::http::Error> {
        Self::new(Request::get(path), url, extra, Bytes::new())
    }

    fn post(url: &ServerUrl, extra: &HeaderMap, path: &str, body: &Body) -> Result<Self, hyper::http::Error> {
        let request = Request::post(path).header(CONTENT_TYPE, &body.content_type);
        Self::new(request, url, extra, body.bytes.clone())
    }

    fn new(
        request: hyper::http::request::Builder,
        url: &ServerUrl,
        extra: &HeaderMap,
        body: Bytes,
    ) -> Result<Self, hyper::http::Error> {
        let (mut parts, body) = request.header(HOST, url.authority()).body(body)?.into_parts();
        override_with(&mut parts.headers, extra);
        Ok(Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Model {
    /// Selects the wanted, default or only task.
    fn choose(&self, model: &str, wanted: Option<&str>) -> Result<&Task, BenchError> {
        if !self.ready {
            return Err(BenchError::NotReady {
                model: model.to_owned(),
                state: self.state.clone(),
                reason: self.reason.clone(),
            });
        }
        let names = || {
            let names: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
            names.join(", ")
        };
        let only = match &self.tasks[..] {
            [only] => Some(only.name.as_str()),
            _ => None,
        };
        let name = wanted.or(self.default_task.as_deref()).or(only);
        let name = name.ok_or_else(|| BenchError::NoTask {
            model: model.to_owned(),
            tasks: names(),
        })?;
        let task = self.tasks.iter().find(|task| task.name == name);
        task.ok_or_else(|| BenchError::UnknownTask {
            model: model.to_owned(),
            task: name.to_owned(),
            tasks: names(),
        })
    }
}

impl Body {
    fn from(source: &RequestSource, model: &str, task: &Task) -> Result<Self, BenchError> {
        let example = || {
            task.examples.first().ok_or_else(|| BenchError::NoExample {
                model: model.to_owned(),
                task: task.name.clone(),
            })
        };
        match source {
            RequestSource::Example => Ok(Self::json(&json!({"input": example()?}), 1)),
            RequestSource::Examples(items) => {
                let inputs = vec![example()?; *items];
                Ok(Self::json(&json!({ "inputs": inputs }), *items))
            }
            RequestSource::File { path, content_type } => Self::file(path, content_type.as_deref()),
        }
    }

    fn json(json: &Json, items: usize) -> Self {
        Self {
            bytes: json.to_string().into(),
            content_type: "application/json".to_owned(),
            items,
        }
    }

    fn file(path: &Path, content_type: Option<&str>) -> Result<Self, BenchError> {
        let bytes = std::fs::read(path).map_err(|source| BenchError::Read {
            path: path.to_owned(),
            source,
        })?;
        let guess = || mime_guess::from_path(path).first_or_octet_stream().to_string();
        let content_type = content_type.map_or_else(guess, str::to_owned);
        let items = items_of(&bytes, &content_type);
        Ok(Self {
            bytes: bytes.into(),
            content_type,
            items,
        })
    }
}

/// The number of items in a body: the length of `inputs`, otherwise 1.
fn items_of(body: &[u8], content_type: &str) -> usize {
    #[derive(Deserialize)]
    struct Inputs {
        inputs: Vec<serde::de::IgnoredAny>,
    }
    let is_json = content_type.starts_with("application/json");
    let inputs = is_json
        .then(|| serde_json::from_slice::<Inputs>(body).ok())
        .flatten();
    inputs.map_or(1, |body| body.inputs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(default_task: Option<&str>, tasks: &[&str]) -> Model {
        let task = |name: &&str| json!({"name": name, "examples": ["to be", "or not"]});
        let tasks: Vec<Json> = tasks.iter().map(task).collect();
        let model = json!({"ready": true, "state": "ready", "default_task": default_task, "tasks": tasks});
        serde_json::from_value(model).expect("it is a description of a model")
    }

    #[test]
    fn the_wanted_task_takes_precedence_over_the_default_and_the_only_one() {
        let several = ["echo", "stats"];
        for (model, wanted, chosen) in [
            (model(None, &several), Some("stats"), "stats"),
            (model(Some("echo"), &several), Some("stats"), "stats"),
            (model(Some("echo"), &several), None, "echo"),
            (model(None, &["stats"]), None, "stats"),
        ] {
            assert_eq!(model.choose("m", wanted).expect("it has it").name, chosen);
        }
    }

    #[test]
    fn the_error_for_an_unknown_or_missing_task_lists_the_tasks() {
        let model = model(None, &["echo", "stats"]);
        for wanted in [None, Some("ehco")] {
            let error = model.choose("m", wanted).expect_err("there is none").to_string();
            assert!(error.contains("echo, stats"), "{error}");
        }
    }

    #[test]
    fn the_error_for_a_failed_model_has_the_reason() {
        let mut model = model(None, &["echo"]);
        (model.ready, model.state, model.reason) =
            (false, "failed".to_owned(), Some("no such file".to_owned()));
        let error = model.choose("m", None).expect_err("it is not ready").to_string();
        assert_eq!(
            error,
            "model `m` is not ready; its state is `failed`: no such file"
        );
    }

    #[test]
    fn the_body_is_built_from_the_first_example() {
        let model = model(None, &["echo"]);
        let body = |source| Body::from(&source, "m", &model.tasks[0]).expect("it has an example");
        assert_eq!(body(RequestSource::Example).bytes, r#"{"input":"to be"}"#);
        let several = body(RequestSource::Examples(2));
        assert_eq!(several.bytes, r#"{"inputs":["to be","to be"]}"#);
        assert_eq!(several.items, 2);
    }

    #[test]
    fn a_task_without_an_example_requires_a_body() {
        let mut model = model(None, &["echo"]);
        model.tasks[0].examples.clear();
        let error = Body::from(&RequestSource::Example, "m", &model.tasks[0]).expect_err("there is none");
        assert!(error.to_string().contains("--body"), "{error}");
    }

    #[test]
    fn headers_of_the_command_line_replace_headers_of_the_request() {
        let url = ServerUrl::parse("gpu-7:8080").expect("it is valid");
        let body = Body::json(&json!({"input": 1}), 1);
        let mut extra = HeaderMap::new();
        extra.append("content-type", "text/x-own".parse().expect("valid"));
        extra.append("x-a", "1".parse().expect("valid"));
        extra.append("x-a", "2".parse().expect("valid"));
        let request = Prototype::post(&url, &extra, "/p", &body)
            .expect("it is valid")
            .request();
        let values = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("content-type"), ["text/x-own"]);
        assert_eq!(values("host"), ["gpu-7:8080"]);
        assert_eq!(values("x-a"), ["1", "2"]);
    }

    #[test]
    fn the_items_of_a_body_are_its_inputs() {
        for (body, content_type, items) in [
            (r#"{"inputs":[1,2,3]}"#, "application/json", 3),
            (r#"{"input":[1,2,3]}"#, "application/json; charset=utf-8", 1),
            (r#"{"inputs":[1,2,3]}"#, "text/plain", 1),
            ("not JSON", "application/json", 1),
        ] {
            assert_eq!(items_of(body.as_bytes(), content_type), items, "{body}");
        }
    }
}
