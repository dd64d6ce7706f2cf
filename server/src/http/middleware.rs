//! Middleware of the actix application: checks API keys, rejects unknown methods, and counts requests to routes that
//! run a task.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};

use super::error_format::ErrorFormat;
use super::request_headers::{RequestHead, is_management_port};
use super::respond;
use super::server::Shared;
use crate::api::{Code, Failure, reject_repeated_headers};
use crate::clock;
use crate::routes::{self, Access};

/// Rejects unknown methods, and converts errors of the inner layers to the error format of the client's protocol. It
/// runs inside CORS, so that web pages can read its replies.
pub(super) async fn check_method(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let method = request.method().clone();
    if !is_known(&method) {
        // Metrics have a label for the method, and clients must not be able to add label values.
        let response = respond::method_not_allowed(request.request(), "GET, HEAD, POST");
        return Ok(request.into_response(response));
    }
    let id = request.request().request_id();
    let errors = request.request().error_format();
    let path = request.path().to_owned();
    match next.call(request).await {
        Ok(response) => Ok(response.map_into_boxed_body()),
        Err(error) => {
            let response = error_response((errors, &path), id.as_deref(), &method, &error);
            Err(InternalError::from_response(error, response).into())
        }
    }
}

/// Counts requests to routes that run a task. The other routes are counted by actix-web-prom.
pub(super) async fn count_task_requests(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let received = clock::now();
    let method = request.method().clone();
    // At `/`, actix-web-prom counts all methods.
    let route = routes::find(request.match_info().as_str());
    let task_route = route.and_then(|route| Some((route, route.task?)));
    let response = next.call(request).await?;
    if let Some(route) = task_route {
        shared.count(route, method.as_str(), response.status(), received);
    }
    Ok(response)
}

/// Checks the key of a request, and that no header with one value is repeated. `OPTIONS` requires no key: browsers send
/// preflight requests without one, and no route does any work for them. The path is the one that the router matches, so that
/// both use the same route. With `management_only`, the routes of the management port are unknown elsewhere.
pub(super) async fn check_key(
    shared: Data<Shared>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let method = request.method();
    let path = request.match_info().as_str();
    let is_hidden =
        shared.management_only && routes::is_management(path) && !is_management_port(request.request());
    let access = match routes::required_access(*method == Method::POST, path, shared.pages) {
        _ if *method == Method::OPTIONS => Access::Open,
        // As for every unknown path.
        _ if is_hidden => Access::Client,
        // Administrative routes support only POST. The error for other methods requires no admin key.
        Access::Admin if *method != Method::POST => Access::Client,
        access => access,
    };
    let headers = request.headers();
    let allowed = request.request().client().check(access);
    let allowed = allowed.and_then(|()| {
        let count = |name| headers.get_all(name).count();
        reject_repeated_headers(headers.len() > headers.len_keys(), count)
    });
    match allowed {
        Ok(()) if is_hidden => {
            let response = respond::not_found(request.request());
            Ok(request.into_response(response))
        }
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Err(failure) => {
            let response = respond::failure(request.request(), &failure);
            Ok(request.into_response(response))
        }
    }
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
fn error_response(
    (errors, path): (ErrorFormat, &str),
    id: Option<&str>,
    method: &Method,
    error: &Error,
) -> HttpResponse {
    let status = error.as_response_error().status_code().as_u16();
    let code = Code::ALL.into_iter().find(|code| code.status() == status);
    let failure = if status < 500 {
        Failure::new(code.unwrap_or(Code::Malformed), error.to_string())
    } else {
        log::error!("{method} {path}: {error}");
        Failure::new(Code::Internal, "internal server error")
    };
    respond::failure_with(errors, id, &failure)
}
