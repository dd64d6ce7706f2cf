//! The protocol of text-embeddings-inference.

mod errors;
mod names;
mod options;
mod routes;
mod sentence_transformers;

use serde_json::Value as Json;

use crate::harness::{Scenario, Server};

/// A server with one model `m` of the plugin `misbehave`.
fn start() -> Server {
    Scenario::misbehave("", "").start()
}

/// The status of an error, its type and its message.
fn error(server: &Server, path: &str, body: &Json) -> (u16, String, String) {
    let reply = server.post(path, body);
    let json = reply.json();
    let text = |member: &str| json[member].as_str().unwrap_or_default().to_owned();
    (reply.status, text("error_type"), text("error"))
}
