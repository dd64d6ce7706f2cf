//! The outermost layer: gives every request an id, refuses methods that do not exist, and writes the access log.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};

use super::respond::{self, RequestId};
use super::server::Shared;
use crate::api::{Code, Failure, request_id, trace_id};
use crate::clock;
use crate::config::LoggingSettings;

/// Who is logged, and the ids of those who bring none.
#[derive(Debug)]
pub(super) struct Access {
    enabled: bool,
    exclude: Vec<String>,
    /// Differs between processes, so that ids do as well.
    prefix: u64,
    count: AtomicU64,
}

impl Access {
    pub(super) fn new(settings: &LoggingSettings) -> Self {
        Self {
            enabled: settings.access_log,
            exclude: settings.access_log_exclude.clone(),
            prefix: RandomState::new().build_hasher().finish(),
            count: AtomicU64::new(0),
        }
    }

    fn next_id(&self) -> String {
        format!(
            "{:016x}{:08x}",
            self.prefix,
            self.count.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn logs(&self, path: &str) -> bool {
        self.enabled && !self.exclude.iter().any(|pattern| matches(pattern, path))
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

/// A request on its way, for the log. Dropped unfinished, its client went away.
struct Visit {
    shared: Data<Shared>,
    id: String,
    /// The trace that the request belongs to, if its client says one.
    trace: Option<String>,
    method: Method,
    path: String,
    client: String,
    started: Instant,
    status: u16,
}

/// What nginx logs for a client that went away before the answer; it is never sent.
const CLIENT_GONE: u16 = 499;

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.shared.access.logs(&self.path) {
            return;
        }
        let took = clock::now().saturating_duration_since(self.started);
        log::info!(
            target: "access",
            method = self.method.as_str(),
            path = self.path.as_str(),
            status = self.status,
            duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            request_id = self.id.as_str(),
            trace_id = self.trace.as_deref().unwrap_or_default(),
            client = self.client.as_str();
            "request"
        );
    }
}

/// The layer itself.
pub(super) async fn layer(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let id = request_id(header).map_or_else(|| shared.access.next_id(), str::to_owned);
    let trace = trace_id(header).map(str::to_owned);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut visit = Visit {
        id,
        trace,
        method: request.method().clone(),
        path: request.path().to_owned(),
        client: request
            .peer_addr()
            .map(|peer| peer.ip().to_string())
            .unwrap_or_default(),
        started: clock::now(),
        status: CLIENT_GONE,
        shared,
    };
    let mut response = if is_known(&visit.method) {
        match next.call(request).await {
            // The layer that compresses refuses in plain text.
            Ok(response) if response.status() == StatusCode::NOT_ACCEPTABLE => not_acceptable(response),
            Ok(response) => response.map_into_boxed_body(),
            Err(error) => {
                let response = error_response(&visit, &error);
                visit.status = response.status().as_u16();
                return Err(InternalError::from_response(error, response).into());
            }
        }
    } else {
        // A metric is labelled by method; a client must not be able to make up labels.
        let response = respond::method_not_allowed(request.request(), "GET, HEAD, POST");
        request.into_response(response)
    };
    visit.status = response.status().as_u16();
    if let Ok(value) = HeaderValue::from_str(&visit.id) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-request-id"), value);
    }
    Ok(response)
}

fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ]
    .contains(method)
}

fn not_acceptable<B>(response: ServiceResponse<B>) -> ServiceResponse<BoxBody> {
    let message =
        "none of the accepted content encodings can be served; the server has gzip, deflate and identity";
    let (request, _) = response.into_parts();
    let response = respond::failure(&request, &Failure::new(Code::NotAcceptable, message));
    ServiceResponse::new(request, response)
}

/// What actix or a layer of it refuses, in the shape of the client's protocol.
fn error_response(visit: &Visit, error: &Error) -> HttpResponse {
    let status = error.as_response_error().status_code().as_u16();
    let code = Code::ALL.into_iter().find(|code| code.status() == status);
    let failure = if status < 500 {
        Failure::new(code.unwrap_or(Code::Malformed), error.to_string())
    } else {
        log::error!("{} {}: {error}", visit.method, visit.path);
        Failure::new(Code::Internal, "the server failed")
    };
    respond::failure_at(&visit.path, Some(&visit.id), &failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_end_in_a_star() {
        assert!(matches("/health", "/health"));
        assert!(!matches("/health", "/healthy"));
        assert!(matches("/docs/*", "/docs/index.css"));
        assert!(!matches("/docs/*", "/docs"));
        assert!(matches("*", "/anything"));
    }
}
