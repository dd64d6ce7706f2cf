//! The outermost layer: gives every request an id, asks for the client's key, refuses methods that do not exist, and writes
//! the access log.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};

use super::respond::{self, RequestId};
use super::server::Shared;
use crate::api::access::{Visit, path_matches};
use crate::api::{Code, Failure};

/// The layer itself.
pub(super) async fn layer(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let method = request.method().clone();
    let mut visit = shared
        .access
        .visit(method.as_str(), request.path(), request.peer_addr(), header);
    request.extensions_mut().insert(RequestId(visit.id().to_owned()));
    let mut response = if let Err(failure) = may_enter(&shared, &method, &request) {
        let response = respond::failure(request.request(), &failure);
        request.into_response(response)
    } else if is_known(&method) {
        match next.call(request).await {
            // The layer that compresses refuses in plain text.
            Ok(response) if response.status() == StatusCode::NOT_ACCEPTABLE => not_acceptable(response),
            Ok(response) => response.map_into_boxed_body(),
            Err(error) => {
                let response = error_response(&visit, &method, &error);
                visit.set_status(response.status().as_u16().into());
                return Err(InternalError::from_response(error, response).into());
            }
        }
    } else {
        // A metric is labelled by method; a client must not be able to make up labels.
        let response = respond::method_not_allowed(request.request(), "GET, HEAD, POST");
        request.into_response(response)
    };
    visit.set_status(response.status().as_u16().into());
    if let Ok(value) = HeaderValue::from_str(visit.id()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-request-id"), value);
    }
    Ok(response)
}

/// What everybody may ask also where clients need a key: what machines probe, and the documentation.
const OPEN_PATHS: [&str; 8] = [
    "/",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/docs*",
    "/openapi.json",
    "/v2/health/*",
];

/// Whether the client brings a key, if it needs one. The browser asks for leave (`OPTIONS`) without.
fn may_enter(shared: &Shared, method: &Method, request: &ServiceRequest) -> Result<(), Failure> {
    let open = OPEN_PATHS
        .iter()
        .any(|pattern| path_matches(pattern, request.path()));
    if open || *method == Method::OPTIONS {
        return Ok(());
    }
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    shared.keys.may_ask(authorization)
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
fn error_response(visit: &Visit, method: &Method, error: &Error) -> HttpResponse {
    let status = error.as_response_error().status_code().as_u16();
    let code = Code::ALL.into_iter().find(|code| code.status() == status);
    let failure = if status < 500 {
        Failure::new(code.unwrap_or(Code::Malformed), error.to_string())
    } else {
        log::error!("{method} {}: {error}", visit.path());
        Failure::new(Code::Internal, "the server failed")
    };
    respond::failure_at(visit.path(), Some(visit.id()), &failure)
}
