//! Middleware for all requests: assigns request ids, writes the access log, checks API keys and rejects unknown
//! methods.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};

use super::counted_reply::CountedReply;
use super::request_headers::{RequestId, request_id};
use super::respond;
use super::server::Shared;
use crate::api::{Code, Failure, load_report};
use crate::routes::{self, Access};

/// The outermost layer: assigns the request id and writes the access log.
pub(super) async fn log_access(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut record = shared.access.start(
        request.method().as_str(),
        request.path(),
        request.peer_addr(),
        header,
    );
    let report_format = load_report::Format::requested(header(load_report::REQUEST_HEADER));
    request.extensions_mut().insert(RequestId(record.id().to_owned()));
    let mut response = match next.call(request).await {
        Ok(response) => response,
        Err(error) => {
            record.set_status(error.as_response_error().status_code().as_u16().into());
            return Err(error);
        }
    };
    record.set_status(response.status().as_u16().into());
    if let Ok(value) = HeaderValue::from_str(record.id()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-request-id"), value);
    }
    if let Some(format) = report_format {
        add_load_report(&shared, format, response.headers_mut());
    }
    Ok(response.map_body(|_, body| CountedReply::new(body, &shared.receive.budget)))
}

/// Adds a report of the present load for a client that asked for it.
fn add_load_report(shared: &Shared, format: load_report::Format, headers: &mut HeaderMap) {
    let report = load_report::report(&shared.registry.snapshot(), format);
    if let Ok(value) = HeaderValue::from_str(&report) {
        headers.insert(HeaderName::from_static(load_report::REPLY_HEADER), value);
    }
}

/// Checks the API key, rejects unknown methods, and converts errors of the inner layers to the error format of the
/// client's protocol. It runs inside CORS, so that web pages can read its replies.
pub(super) async fn check_access(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let method = request.method().clone();
    if let Err(failure) = authorize(&shared, &method, &request) {
        let response = respond::failure(request.request(), &failure);
        return Ok(request.into_response(response));
    }
    if !is_known(&method) {
        // Metrics have a label for the method, and clients must not be able to add label values.
        let response = respond::method_not_allowed(request.request(), "GET, HEAD, POST");
        return Ok(request.into_response(response));
    }
    let id = request_id(request.request());
    let path = request.path().to_owned();
    match next.call(request).await {
        Ok(response) => Ok(response.map_into_boxed_body()),
        Err(error) => {
            let response = error_response(&path, id.as_deref(), &method, &error);
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// Checks the key of a request. `OPTIONS` requires none: browsers send preflight requests without a key, and no route
/// does any work for them. The path is the one that the router matches, so that both use the same route.
fn authorize(shared: &Shared, method: &Method, request: &ServiceRequest) -> Result<(), Failure> {
    if *method == Method::OPTIONS {
        return Ok(());
    }
    let access = match routes::required_access(request.match_info().as_str(), shared.docs) {
        // Administrative routes support only POST. The error for other methods requires no admin key.
        Access::Admin if *method != Method::POST => Access::Client,
        access => access,
    };
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    shared.keys.check(access, authorization)
}

/// Whether the server knows this method. CONNECT, which is for proxies, and TRACE, which would echo credentials, are
/// not supported.
fn is_known(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ]
    .contains(method)
}

/// Converts an error of actix or its middleware to a reply in the error format of the client's protocol.
fn error_response(path: &str, id: Option<&str>, method: &Method, error: &Error) -> HttpResponse {
    let status = error.as_response_error().status_code().as_u16();
    let code = Code::ALL.into_iter().find(|code| code.status() == status);
    let failure = if status < 500 {
        Failure::new(code.unwrap_or(Code::Malformed), error.to_string())
    } else {
        log::error!("{method} {path}: {error}");
        Failure::new(Code::Internal, "internal server error")
    };
    respond::failure_at(path, id, &failure)
}
