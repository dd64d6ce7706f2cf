//! A blocking HTTP client that returns replies with any status.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use inference_server::clock;
use serde_json::{Value as Json, json};
use ureq::Agent;
use ureq::http::{HeaderMap, HeaderValue, Method, Request};

use super::eventually::PATIENCE;

/// Maximum size of a reply.
const REPLY_LIMIT: u64 = 512 << 20;

/// A client of one server. Clones share connections.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    agent: Agent,
}

impl Client {
    /// Creates a client of the server at this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections_per_host(64)
            .max_idle_connections(64)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .build();
        Self {
            address,
            agent: config.into(),
        }
    }

    /// Starts building a request.
    pub(crate) fn request(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            client: self,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send()
    }

    pub(crate) fn post(&self, path: &str, body: &Json) -> Reply {
        self.request("POST", path).json(body).send()
    }

    /// Runs a task on a list of inputs.
    pub(crate) fn predict(&self, model: &str, task: &str, inputs: &Json) -> Reply {
        self.post(&predict_path(model, task), &json!({ "inputs": inputs }))
    }

    /// Like [`predict`](Self::predict), on a separate thread.
    pub(crate) fn predict_in_background(&self, model: &str, task: &str, inputs: &Json) -> Pending {
        let (path, body) = (predict_path(model, task), json!({ "inputs": inputs }));
        self.in_background(move |client| client.request("POST", &path).json(&body).try_send())
    }

    /// Sends a request on a separate thread.
    pub(crate) fn in_background(
        &self,
        send: impl FnOnce(&Client) -> Result<Reply, ureq::Error> + Send + 'static,
    ) -> Pending {
        let client = self.clone();
        Pending(thread::spawn(move || send(&client)))
    }
}

/// Returns the native route of a task.
pub(crate) fn predict_path(model: &str, task: &str) -> String {
    format!("/v1/models/{model}/tasks/{task}/predict")
}

/// A request in flight on another thread.
pub(crate) struct Pending(JoinHandle<Result<Reply, ureq::Error>>);

impl Pending {
    /// Whether the reply has been received.
    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the reply.
    #[track_caller]
    pub(crate) fn reply(self) -> Reply {
        let reply = self.0.join().expect("the client does not panic");
        reply.unwrap_or_else(|error| panic!("a request failed without a reply: {error}"))
    }
}

/// A request that has not been sent yet.
pub(crate) struct Call<'a> {
    client: &'a Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    pub(crate) fn json(self, body: &Json) -> Self {
        self.body("application/json", body.to_string())
    }

    /// Sends the request and returns the reply. Panics if there is none.
    #[track_caller]
    pub(crate) fn send(self) -> Reply {
        let what = format!("{} {}", self.method, self.path);
        self.try_send()
            .unwrap_or_else(|error| panic!("{what} got no answer: {error}"))
    }

    /// Sends the request and returns the reply, or the error if there is none.
    pub(crate) fn try_send(self) -> Result<Reply, ureq::Error> {
        let mut request = Request::builder()
            .method(Method::from_bytes(self.method.as_bytes()).expect("a valid method"))
            .uri(format!("http://{}{}", self.client.address, self.path));
        for (name, value) in &self.headers {
            // Any byte that HTTP allows, not only ASCII.
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a valid value");
            request = request.header(name, value);
        }
        let agent = &self.client.agent;
        let sent = clock::now();
        let mut response = if self.body.is_empty() {
            agent.run(request.body(()).expect("a well-formed request"))?
        } else {
            agent.run(request.body(&self.body[..]).expect("a well-formed request"))?
        };
        let body = response
            .body_mut()
            .with_config()
            .limit(REPLY_LIMIT)
            .read_to_vec()?;
        let answered = clock::now();
        Ok(Reply {
            sent,
            answered,
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body,
        })
    }
}

/// A reply of the server.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Returns the reply if it has this status. Otherwise panics with its content.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Returns the time from sending the request to receiving the reply.
    pub(crate) fn took(&self) -> Duration {
        self.answered - self.sent
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, invalid JSON: {error}: {}", self.status, self.text()))
    }

    /// Returns the outputs of a prediction.
    #[track_caller]
    pub(crate) fn outputs(&self) -> Vec<Json> {
        match &self.json()["outputs"] {
            Json::Array(outputs) => outputs.clone(),
            _ => panic!("status {}, no outputs: {}", self.status, self.text()),
        }
    }

    /// Returns the value of a header that occurs at most once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("a header in ASCII"))
    }

    /// Checks that the reply is an error of the native routes. Returns its code and message.
    #[track_caller]
    pub(crate) fn error(&self) -> (String, String) {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/json"),
            "an error with content type {kind:?}: {}",
            self.text()
        );
        let json = self.json();
        let (code, message) = (&json["error"]["code"], &json["error"]["message"]);
        let (Some(code), Some(message)) = (code.as_str(), message.as_str()) else {
            panic!("status {}, expected an error: {json}", self.status)
        };
        assert!(!message.is_empty(), "an error without a message: {json}");
        (code.to_owned(), message.to_owned())
    }
}
