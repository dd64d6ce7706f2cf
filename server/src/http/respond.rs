//! Replies that all handlers use: JSON, and errors in the format of the client's protocol.

use std::fmt;
use std::time::Duration;

use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};

use super::error_format::ErrorFormat;
use super::request_headers::RequestHead;
use crate::api::{Code, Failure, RequestRecord};
use crate::engine::Timing;

/// Starts a reply with this status.
pub(crate) fn status(status: u16) -> HttpResponseBuilder {
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

/// A reply with a JSON text.
pub(crate) fn json(code: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    status(code)
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(body.into())
}

/// An error reply in the format of the client's protocol.
pub(crate) fn failure(request: &dyn RequestHead, failure: &Failure) -> HttpResponse {
    failure_in(request.error_format(), request, failure)
}

/// Like [`failure`], in a format that does not follow from the head of the request.
pub(super) fn failure_in(errors: ErrorFormat, request: &dyn RequestHead, failure: &Failure) -> HttpResponse {
    failure_with(errors, request.request_id().as_deref(), failure)
}

/// The reply of a request that ran: `result`, or what `fail` makes of the failure. Finishes the record.
pub(super) fn recorded(
    mut record: RequestRecord,
    result: Result<HttpResponse, Failure>,
    fail: impl FnOnce(&Failure) -> HttpResponse,
) -> HttpResponse {
    let response = result.unwrap_or_else(|failure| {
        record.failed(&failure);
        fail(&failure)
    });
    record.finish(response.status().as_u16());
    response
}

/// Like [`failure`], if the request is no longer available.
pub(crate) fn failure_with(error_format: ErrorFormat, id: Option<&str>, failure: &Failure) -> HttpResponse {
    let (status, body) = (failure.code.status(), error_format.write(failure, id));
    let mut response = json(status, body);
    if failure.code == Code::Unauthorized {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = failure.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The reply to an `OPTIONS` request that is not a CORS preflight: lists the methods of the route.
pub(crate) fn options(methods: &str) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((ALLOW, format!("{methods}, OPTIONS")));
    response.finish()
}

/// The reply to a method that a route does not handle. All routes support `OPTIONS`.
pub(crate) fn unhandled_method(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    match *request.method() {
        Method::OPTIONS => options(allowed),
        _ => method_not_allowed(request, allowed),
    }
}

/// The error reply to an unsupported method.
pub(crate) fn method_not_allowed(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let message = format!(
        "method {} is not allowed; expected {allowed}",
        request.method().as_str().chars().take(20).collect::<String>()
    );
    let failure = Failure::new(Code::MethodNotAllowed, message);
    not_allowed(request.error_format(), request, allowed, &failure)
}

/// Like [`method_not_allowed`], with a specific format and message.
pub(super) fn not_allowed(
    errors: ErrorFormat,
    request: &dyn RequestHead,
    allowed: &'static str,
    failure: &Failure,
) -> HttpResponse {
    let mut response = failure_in(errors, request, failure);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The error reply to an unknown path.
pub(crate) fn not_found(request: &dyn RequestHead) -> HttpResponse {
    let path: String = request.path().chars().take(200).collect();
    let message = format!("unknown route `{path}`; see /v1/models for the available models");
    failure(request, &Failure::new(Code::NotFound, message))
}

/// A duration in milliseconds with three decimals, written without floating-point arithmetic, which is several times slower.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// Adds the header `server-timing` with the time of each stage in milliseconds.
pub(crate) fn add_server_timing(response: &mut HttpResponse, timing: Timing, encode: Duration) {
    let value = format!(
        "prepare;dur={}, queue;dur={}, inference;dur={}, encode;dur={}",
        Millis(timing.prepare),
        Millis(timing.queue),
        Millis(timing.inference),
        Millis(encode)
    );
    if let Ok(value) = HeaderValue::from_str(&value) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("server-timing"), value);
    }
}
