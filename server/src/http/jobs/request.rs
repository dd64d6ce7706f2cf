//! The heads of requests that are checked, and of those that run as jobs.

use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_util::stream;

use crate::api::traces::Trace;
use crate::api::{Client, Execution, request_id};
use crate::http::request_headers::RequestHead;
use crate::jobs::StoredRequest;

/// Headers that affect the reply or the run, other than `content-type`.
pub(super) const STORED_HEADERS: [&str; 4] = [
    "accept",
    "inference-header-content-length",
    "x-request-id",
    "x-request-timeout",
];

/// Headers that describe how the body was sent.
const BODY_HEADERS: [&str; 2] = ["content-encoding", "content-length"];

/// The head of a request whose body was received and decompressed, which is only checked.
pub(super) struct CheckedHead<'a> {
    pub(super) request: &'a dyn RequestHead,
    pub(super) execution: Execution,
}

impl RequestHead for CheckedHead<'_> {
    fn path(&self) -> &str {
        self.request.path()
    }

    fn header(&self, name: &'static str) -> Option<&[u8]> {
        let is_of_body = BODY_HEADERS.contains(&name);
        self.request.header(name).filter(|_| !is_of_body)
    }

    fn header_values(&self, name: &'static str) -> Vec<&[u8]> {
        match BODY_HEADERS.contains(&name) {
            true => Vec::new(),
            false => self.request.header_values(name),
        }
    }

    fn request_id(&self) -> Option<Arc<str>> {
        self.request.request_id()
    }

    /// The run of the job is not part of the client's call.
    fn trace(&self) -> Trace {
        Trace::default()
    }

    fn client(&self) -> Client {
        self.request.client()
    }

    fn execution(&self) -> Execution {
        self.execution.clone()
    }
}

/// The head of the request of a job.
pub(super) struct JobHead<'a> {
    pub(super) request: &'a StoredRequest,
    pub(super) execution: Execution,
}

impl RequestHead for JobHead<'_> {
    fn path(&self) -> &str {
        &self.request.path
    }

    fn header(&self, name: &'static str) -> Option<&[u8]> {
        if name == "content-type" {
            return self.request.content_type.as_deref().map(str::as_bytes);
        }
        let found = self.request.headers.iter().find(|header| header.name == name);
        found.map(|header| header.value.as_slice())
    }

    fn header_values(&self, name: &'static str) -> Vec<&[u8]> {
        self.header(name).into_iter().collect()
    }

    fn request_id(&self) -> Option<Arc<str>> {
        request_id(|name| self.header(name)).map(Into::into)
    }

    fn trace(&self) -> Trace {
        Trace::default()
    }

    /// The permissions and limits of the client were checked when it submitted the job.
    fn client(&self) -> Client {
        Client::default()
    }

    fn execution(&self) -> Execution {
        self.execution.clone()
    }
}

/// A payload with a body that was received.
pub(super) fn payload(body: Bytes) -> Payload {
    Payload::Stream {
        payload: Box::pin(stream::iter([Ok::<_, PayloadError>(body)])),
    }
}
