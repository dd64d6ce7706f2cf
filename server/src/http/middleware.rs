//! The outer layers: every request gets an id and a line in the access log, needs a key where keys are configured, and must
//! have a method that some route has.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};

use super::respond::{self, RequestId};
use super::server::Shared;
use crate::api::{Code, Failure};
use crate::routes::{self, Access};

/// The outermost layer: gives the request an id, and writes the access log.
pub(super) async fn layer(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    let mut visit = shared.access.visit(
        request.method().as_str(),
        request.path(),
        request.peer_addr(),
        header,
    );
    request.extensions_mut().insert(RequestId(visit.id().to_owned()));
    let mut response = match next.call(request).await {
        Ok(response) => response,
        Err(error) => {
            visit.set_status(error.as_response_error().status_code().as_u16().into());
            return Err(error);
        }
    };
    visit.set_status(response.status().as_u16().into());
    if let Ok(value) = HeaderValue::from_str(visit.id()) {
        response
            .headers_mut()
            .insert(HeaderName::from_static("x-request-id"), value);
    }
    Ok(response)
}

/// The layer inside CORS, so that web pages can read its replies: asks for the client's key, rejects unknown methods, and
/// gives errors of the inner layers the form of the client's protocol.
pub(super) async fn gate(
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
        // A metric is labelled by method; a client must not be able to make up labels.
        let response = respond::method_not_allowed(request.request(), "GET, HEAD, POST");
        return Ok(request.into_response(response));
    }
    let id = respond::id_of(request.request());
    let path = request.path().to_owned();
    match next.call(request).await {
        Ok(response) => Ok(response.map_into_boxed_body()),
        Err(error) => {
            let response = error_response(&path, id.as_deref(), &method, &error);
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// Checks the key of a request. Browsers send preflight requests (`OPTIONS`) without one, and no route does any work for
/// them. The path is the one that the router goes by, so that both mean the same route.
fn authorize(shared: &Shared, method: &Method, request: &ServiceRequest) -> Result<(), Failure> {
    if *method == Method::OPTIONS {
        return Ok(());
    }
    let access = match routes::access(request.match_info().as_str(), shared.docs) {
        // The routes of administrators answer POST alone: anything else is told so, which needs no admin key.
        Access::Admin if *method != Method::POST => Access::Client,
        access => access,
    };
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    shared.keys.check(access, authorization)
}

/// Whether some route may have this method. None has CONNECT, which asks for a proxy, or TRACE, which would send a client's
/// credentials back to it.
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

/// What actix or a layer of it refuses, in the shape of the client's protocol.
fn error_response(path: &str, id: Option<&str>, method: &Method, error: &Error) -> HttpResponse {
    let status = error.as_response_error().status_code().as_u16();
    let code = Code::ALL.into_iter().find(|code| code.status() == status);
    let failure = if status < 500 {
        Failure::new(code.unwrap_or(Code::Malformed), error.to_string())
    } else {
        log::error!("{method} {path}: {error}");
        Failure::new(Code::Internal, "the server failed")
    };
    respond::failure_at(path, id, &failure)
}
