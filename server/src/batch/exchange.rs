//! One job: submits it, waits for it, and fetches its result, over a connection that is opened again after a failure.

use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use serde_json::Value as Json;

use super::args::Plan;
use crate::client::{Connection, Endpoint, Failure, Received, connect, override_with, with_deadline};
use crate::clock;

/// Time for which the server holds a request about a job that has not ended.
const WAIT: &str = "60s";

/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Pauses before a request is repeated: the first, and the maximum.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What all connections share.
pub(super) struct Target {
    pub(super) plan: Plan,
    pub(super) endpoints: Vec<Endpoint>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobResult {
    /// HTTP status of the reply.
    pub(super) status: u16,
    /// The reply.
    pub(super) body: Bytes,
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// The server rejected the request, and would reject every other one as well.
    Rejected(u16, String),
    /// The server did not answer for too long.
    NoServer(String),
}

/// A connection to the server.
pub(super) struct Exchange {
    target: Rc<Target>,
    connection: Option<Connection>,
}

impl Exchange {
    pub(super) fn new(target: Rc<Target>) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    /// Runs a request as a job. If the job has vanished, it is submitted again.
    pub(super) async fn run(&mut self, key: &str, body: Bytes) -> Result<JobResult, ExchangeError> {
        loop {
            let submitted = self.submit(key, body.clone()).await?;
            if submitted.status != 202 {
                return rejected(submitted);
            }
            let id = serde_json::from_slice::<Json>(&submitted.body)
                .ok()
                .and_then(|job| job["id"].as_str().map(str::to_owned));
            let Some(id) = id else {
                let message = "the reply has no id; is it an inference-server?".to_owned();
                return Err(ExchangeError::Rejected(202, message));
            };
            if self.wait(&id).await? {
                let result = self.get(&format!("/v1/jobs/{id}/result")).await?;
                return Ok(JobResult {
                    status: result.status,
                    body: result.body,
                });
            }
        }
    }

    /// Waits until the job has ended. False if it does not exist any more.
    async fn wait(&mut self, id: &str) -> Result<bool, ExchangeError> {
        loop {
            let reply = self.get(&format!("/v1/jobs/{id}?wait={WAIT}")).await?;
            match reply.status {
                404 => return Ok(false),
                200 => {}
                status => return Err(ExchangeError::Rejected(status, reply.message())),
            }
            let job: Json = serde_json::from_slice(&reply.body).unwrap_or_default();
            if !matches!(job["state"].as_str(), Some("queued" | "running")) {
                return Ok(true);
            }
        }
    }

    async fn submit(&mut self, key: &str, body: Bytes) -> Result<Received, ExchangeError> {
        let target = self.target.clone();
        let plan = &target.plan;
        let path = match &plan.task {
            Some(task) => format!("/v1/models/{}/tasks/{task}/predict", plan.model),
            None => format!("/v1/models/{}/predict", plan.model),
        };
        let mut headers = plan.job_headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(key) = HeaderValue::from_str(key) {
            headers.insert("idempotency-key", key);
        }
        self.send(&Method::POST, &path, &headers, body).await
    }

    async fn get(&mut self, path: &str) -> Result<Received, ExchangeError> {
        self.send(&Method::GET, path, &HeaderMap::new(), Bytes::new())
            .await
    }

    /// Sends a request until there is a reply that another attempt would not change.
    async fn send(
        &mut self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Received, ExchangeError> {
        let patience = clock::now() + self.target.plan.patience;
        let mut pause = PAUSE.0;
        loop {
            let request = self.request(method, path, headers, body.clone())?;
            let is_result = path.ends_with("/result");
            let why = match self.try_send(request).await {
                // A result can have any status.
                Ok(reply) if is_result || !matches!(reply.status, 408 | 429 | 502..=504 | 507) => {
                    return Ok(reply);
                }
                Ok(reply) => format!("{}: {}", reply.status, reply.message()),
                Err(failure) => {
                    self.connection = None;
                    failure.message
                }
            };
            if clock::now() >= patience {
                return Err(ExchangeError::NoServer(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Received, Failure> {
        let deadline = clock::now() + REQUEST_TIMEOUT;
        let endpoints = &self.target.endpoints;
        let connection = &mut self.connection;
        with_deadline(deadline, REQUEST_TIMEOUT, async move {
            let usable = match connection.take().filter(Connection::is_usable) {
                Some(usable) => usable,
                None => connect(endpoints).await?.1,
            };
            connection.insert(usable).exchange(request).await
        })
        .await
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let plan = &self.target.plan;
        let request = Request::builder()
            .method(method)
            .uri(plan.url.path(path))
            .header(HOST, plan.url.authority())
            .body(Full::new(body));
        let mut request = request.map_err(|error| ExchangeError::Rejected(0, error.to_string()))?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        override_with(request.headers_mut(), &plan.headers);
        Ok(request)
    }
}

/// A submission that was not accepted: the fault of this line, or of all of them.
fn rejected(reply: Received) -> Result<JobResult, ExchangeError> {
    match reply.status {
        400 | 413 | 415 | 422 => Ok(JobResult {
            status: reply.status,
            body: reply.body,
        }),
        status => Err(ExchangeError::Rejected(status, reply.message())),
    }
}
