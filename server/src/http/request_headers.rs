//! The heads of requests, as handlers read them.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use actix_web::{HttpMessage as _, HttpRequest};
use hyper::http::request::Parts;

use super::error_format::ErrorFormat;
use crate::api::traces::{Scheme, Trace};
use crate::api::{Call, Client, Execution, Failure, MAX_TIMEOUT, RequestOptions};

/// The head of a request, as actix-web or hyper represents it.
pub(crate) trait RequestHead {
    /// The path, without decoding.
    fn path(&self) -> &str;

    /// The first value of a header. The name is in lower case.
    fn header(&self, name: &'static str) -> Option<&[u8]>;

    /// All values of a header. The name is in lower case.
    fn header_values(&self, name: &'static str) -> Vec<&[u8]>;

    /// The request id, from the client or generated.
    fn request_id(&self) -> Option<Arc<str>>;

    /// The trace of the request.
    fn trace(&self) -> Trace;

    /// The client, as its key identifies it.
    fn client(&self) -> Client;

    /// The format of errors.
    fn error_format(&self) -> ErrorFormat {
        ErrorFormat::of(self.path())
    }

    /// How its items run.
    fn execution(&self) -> Execution {
        Execution::Interactive
    }
}

/// The request id. It is added to requests that pass through actix-web.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// Whether a request arrived at the management port. It is added to requests that pass through actix-web.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManagementPort(pub(super) bool);

/// The format of errors at a path that only the configuration assigns to a protocol: a short route of a task, or the name of a
/// model. It is added to requests that pass through actix-web.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfiguredFormat(pub(super) ErrorFormat);

/// The client. It is added to requests that pass through actix-web.
#[derive(Clone)]
pub(super) struct RequestClient(pub(super) Client);

/// Whether a request that passes through actix-web arrived at the management port.
pub(super) fn is_management_port(request: &HttpRequest) -> bool {
    let extensions = request.extensions();
    extensions.get::<ManagementPort>().is_some_and(|port| port.0)
}

/// The scheme that the client uses: that of its connection, unless a proxy in between says that it used TLS.
pub(super) fn scheme(is_tls: bool, forwarded_proto: Option<&[u8]>) -> Scheme {
    match forwarded_proto {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => Scheme::Https,
        _ if is_tls => Scheme::Https,
        _ => Scheme::Http,
    }
}

impl RequestHead for HttpRequest {
    fn path(&self) -> &str {
        HttpRequest::path(self)
    }

    fn header(&self, name: &'static str) -> Option<&[u8]> {
        self.headers().get(name).map(HeaderValue::as_bytes)
    }

    fn header_values(&self, name: &'static str) -> Vec<&[u8]> {
        self.headers().get_all(name).map(HeaderValue::as_bytes).collect()
    }

    fn request_id(&self) -> Option<Arc<str>> {
        self.extensions().get::<RequestId>().map(|id| id.0.clone())
    }

    fn trace(&self) -> Trace {
        self.extensions().get::<Trace>().cloned().unwrap_or_default()
    }

    fn client(&self) -> Client {
        let extensions = self.extensions();
        let client = extensions.get::<RequestClient>();
        client.map(|client| client.0.clone()).unwrap_or_default()
    }

    fn error_format(&self) -> ErrorFormat {
        match self.extensions().get::<ConfiguredFormat>() {
            Some(ConfiguredFormat(format)) => *format,
            None => ErrorFormat::of_request(*self.method() == Method::POST, HttpRequest::path(self)),
        }
    }
}

/// The first value of a header. The name is in lower case.
pub(super) fn first_value<'a>(head: &'a Parts, name: &str) -> Option<&'a [u8]> {
    // Most requests have few headers, in which a search takes less time than hashing the name.
    let found = head.headers.iter().find(|(found, _)| found.as_str() == name);
    found.map(|(_, value)| value.as_bytes())
}

/// The value of a header that is not repeated. The name is in lower case.
pub(super) fn only_value<'a>(head: &'a Parts, name: &str) -> Option<&'a [u8]> {
    let mut found = head.headers.iter().filter(|(found, _)| found.as_str() == name);
    let (_, value) = found.next()?;
    found.next().is_none().then(|| value.as_bytes())
}

/// The head of a request that does not pass through actix-web.
pub(super) struct DirectHead {
    pub(super) head: Parts,
    pub(super) id: Arc<str>,
    pub(super) trace: Trace,
    pub(super) client: Client,
}

impl RequestHead for DirectHead {
    fn path(&self) -> &str {
        self.head.uri.path()
    }

    fn header(&self, name: &'static str) -> Option<&[u8]> {
        first_value(&self.head, name)
    }

    fn header_values(&self, name: &'static str) -> Vec<&[u8]> {
        let values = self.head.headers.get_all(name);
        values.iter().map(|value| value.as_bytes()).collect()
    }

    fn request_id(&self) -> Option<Arc<str>> {
        Some(self.id.clone())
    }

    fn trace(&self) -> Trace {
        self.trace.clone()
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn error_format(&self) -> ErrorFormat {
        ErrorFormat::of_request(self.head.method == hyper::Method::POST, self.path())
    }
}

/// Reads the options of a request. The default timeout is that of the model, except for a job, for which no client waits.
pub(super) fn request_options(request: &dyn RequestHead, call: &Call) -> Result<RequestOptions, Failure> {
    let header = |name| request.header(name);
    let execution = request.execution();
    let default_timeout = match &execution {
        Execution::Job(_) => MAX_TIMEOUT,
        Execution::Interactive | Execution::Check(_) => call.entry.settings.request_timeout,
    };
    let mut options = RequestOptions::read(header, default_timeout)?;
    options.execution = execution;
    if let Some(id) = request.request_id() {
        options.request_id = id;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_header_has_a_first_value_and_no_only_one() {
        let request = hyper::Request::get("/")
            .header("a", "1")
            .header("b", "2")
            .header("a", "3");
        let (head, ()) = request.body(()).expect("the request is valid").into_parts();
        let values = |name| (first_value(&head, name), only_value(&head, name));
        assert_eq!(values("a"), (Some(&b"1"[..]), None));
        assert_eq!(values("b"), (Some(&b"2"[..]), Some(&b"2"[..])));
        assert_eq!(values("c"), (None, None));
    }
}
