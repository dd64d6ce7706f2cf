//! Answers that every handler gives: JSON, and failures in the shape of the client's protocol.

use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder};

use super::error_format::Dialect;
use crate::api::{Code, Failure};

/// The id of a request, the client's or the server's. The access layer puts it into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The id of the request.
pub(crate) fn id_of(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// Starts an answer with this status.
pub(crate) fn status(status: u16) -> HttpResponseBuilder {
    HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
}

/// JSON that is written already.
pub(crate) fn json(code: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    status(code)
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")))
        .body(body.into())
}

/// A failure, in the shape of the protocol that the path belongs to.
pub(crate) fn failure(request: &HttpRequest, failure: &Failure) -> HttpResponse {
    failure_at(request.path(), id_of(request).as_deref(), failure)
}

/// A failure, where the request itself is out of reach.
pub(crate) fn failure_at(path: &str, id: Option<&str>, failure: &Failure) -> HttpResponse {
    let dialect = Dialect::of(path);
    let (status, body) = (failure.code.status(), dialect.write(failure, id));
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

/// The reply to `OPTIONS` that is not a CORS preflight: the methods that the route has.
pub(crate) fn options(methods: &str) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((ALLOW, format!("{methods}, OPTIONS")));
    response.finish()
}

/// The reply to a method for which a route has no handler. `OPTIONS` is answered for every route.
pub(crate) fn other_method(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    match *request.method() {
        Method::OPTIONS => options(allowed),
        _ => method_not_allowed(request, allowed),
    }
}

/// The answer to a method that a route does not have.
pub(crate) fn method_not_allowed(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let message = format!(
        "method {} is not allowed here; allowed: {allowed}",
        request.method().as_str().chars().take(20).collect::<String>()
    );
    let mut response = failure(request, &Failure::new(Code::MethodNotAllowed, message));
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The answer to a path that nothing is behind.
pub(crate) fn not_found(request: &HttpRequest) -> HttpResponse {
    let path: String = request.path().chars().take(200).collect();
    let message = format!("no route `{path}`; see /v1/models for what is served");
    failure(request, &Failure::new(Code::NotFound, message))
}
