//! Answers the requests that the transport receives.
//!
//! It assigns request ids, writes the access log, and calls the actix application, except for most requests to routes
//! that run a task. These are answered directly, because routing, middleware and metrics of the application take more
//! time than all other parts of the server take for a small request. Both ways use the same functions and differ only in
//! who calls them; [`HttpService::direct`] lists the conditions. The order is that of the application: key, compression,
//! handler; then metrics.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use actix_http::Request;
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Payload, ServiceResponse};
use actix_web::error::ErrorBadRequest;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri, Version};
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpResponse};
use hyper::header::ORIGIN;
use hyper::http::request::Parts;

use super::compression::AcceptedEncodings;
use super::counted_reply::CountedReply;
use super::error_format::ErrorFormat;
use super::request_headers::{
    ConfiguredFormat, DirectHead, ManagementPort, RequestClient, RequestHead, RequestId, first_value,
    only_value, scheme,
};
use super::respond;
use super::server::Shared;
use super::task_routes::{self, TaskPath};
use super::tei;
use super::transport::{Application, ReceivedRequest};
use crate::api::access_log::IncomingHead;
use crate::api::traces::RESPONSE_HEADER;
use crate::api::{Client, Code, Failure, ModelView, load_report, reject_repeated_headers};
use crate::routes::{self, Route, TaskRoute};

/// The service of one thread.
pub(super) struct HttpService<S> {
    shared: Data<Shared>,
    application: S,
}

impl<S> HttpService<S> {
    /// Builds the instance of the application for this thread.
    pub(super) async fn new<F, B>(
        shared: Data<Shared>,
        application: impl IntoServiceFactory<F, Request>,
    ) -> Self
    where
        F: ServiceFactory<
                Request,
                Config = AppConfig,
                Response = ServiceResponse<B>,
                Error = Error,
                Service = S,
            >,
        F::InitError: Debug,
    {
        let application = application
            .into_factory()
            .new_service(AppConfig::default())
            .await
            .expect("building the application cannot fail");
        Self { shared, application }
    }

    /// Returns the route of a request that is answered without the application: a request that runs a task, whose path
    /// has no encoded characters, and which is not from a web page of another origin.
    fn direct(&self, head: &Parts) -> Option<(&'static Route, TaskRoute)> {
        let path = head.uri.path();
        let is_candidate = head.method == hyper::Method::POST
            && !path.contains('%')
            && !(self.shared.cors && head.headers.contains_key(ORIGIN));
        let route = routes::find_for(true, path).filter(|_| is_candidate)?;
        Some((route, route.task?))
    }

    /// Answers a request to a route that runs a task.
    async fn run_task(
        &self,
        (route, task): (&Route, TaskRoute),
        request: &DirectHead,
        payload: Payload,
        received: Instant,
    ) -> HttpResponse {
        let path = TaskPath::read(route, request.path());
        let headers = &request.head.headers;
        let allowed = request.client.check(route.access);
        let allowed = allowed.and_then(|()| {
            let count = |name| headers.get_all(name).iter().count();
            reject_repeated_headers(headers.len() > headers.keys_len(), count)
        });
        let accepted = allowed.and_then(|()| match self.shared.compression {
            true => AcceptedEncodings::of(request).map(Some),
            false => Ok(None),
        });
        let response = match accepted {
            Ok(accepted) => {
                let response = task_routes::answer(task, request, payload, &self.shared, path).await;
                match accepted {
                    Some(accepted) => {
                        response.map_body(|head, body| accepted.compress(route.is_compressible, head, body))
                    }
                    None => response,
                }
            }
            Err(failure) => respond::failure_in(ErrorFormat::of_task(task), request, &failure),
        };
        let method = request.head.method.as_str();
        self.shared
            .count((route, task), method, response.status(), received);
        response
    }
}

impl<S, B> HttpService<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    /// The format of errors at a path that only the configuration assigns to a protocol. Clients that may not use a model cannot
    /// learn from it that the model exists.
    fn configured_format(&self, path: &str, client: &Client) -> Option<ErrorFormat> {
        let snapshot = self.shared.registry.snapshot();
        if snapshot.route(path).is_some() {
            return Some(ErrorFormat::Native);
        }
        let is_model = routes::find(path).is_none()
            && client.may_read()
            && tei::names_model(path, &ModelView::new(snapshot, client.clone()));
        is_model.then_some(ErrorFormat::of_task(TaskRoute::TeiRoot))
    }

    async fn call_application(
        &self,
        request: DirectHead,
        payload: Payload,
        (peer, is_management): (SocketAddr, bool),
    ) -> HttpResponse {
        let DirectHead {
            head,
            id,
            trace,
            client,
        } = request;
        let reply = match convert(&head, payload, peer) {
            Ok(request) => {
                request.extensions_mut().insert(RequestId(id));
                request.extensions_mut().insert(trace);
                request.extensions_mut().insert(ManagementPort(is_management));
                if let Some(format) = self.configured_format(head.uri.path(), &client) {
                    request.extensions_mut().insert(ConfiguredFormat(format));
                }
                request.extensions_mut().insert(RequestClient(client));
                self.application.call(request).await
            }
            Err(error) => Err(error),
        };
        match reply {
            Ok(reply) => reply.into_parts().1.map_into_boxed_body(),
            Err(error) => HttpResponse::from_error(error),
        }
    }
}

impl<S, B> Application for HttpService<S>
where
    S: Service<Request, Response = ServiceResponse<B>, Error = Error> + 'static,
    B: MessageBody + 'static,
{
    type Body = CountedReply<BoxBody>;

    fn answer(self: Rc<Self>, request: ReceivedRequest) -> impl Future<Output = HttpResponse<Self::Body>> {
        let ReceivedRequest {
            head,
            payload,
            peer,
            received,
            is_management,
        } = request;
        let header = |name| first_value(&head, name);
        let shared = &*self.shared;
        let incoming = IncomingHead {
            method: head.method.as_str(),
            scheme: Some(scheme(
                shared.has_tls && !is_management,
                header("x-forwarded-proto"),
            )),
            path: head.uri.path(),
            client: Some(peer),
        };
        let mut record = shared.access.start(incoming, |name| only_value(&head, name));
        let client = shared.identify(&head, is_management);
        record.set_key(client.key_name());
        let report_format = load_report::Format::requested(header(load_report::REQUEST_HEADER));
        let head = DirectHead {
            head,
            id: record.id().clone(),
            trace: record.trace().clone(),
            client: client.clone(),
        };
        // Not an async function, whose future would contain the request twice.
        async move {
            let mut response = if is_management && !is_served_by_management(&head.head) {
                not_on_management_port(&head)
            } else if let Some(route) = self.direct(&head.head) {
                self.run_task(route, &head, payload, received).await
            } else {
                self.call_application(head, payload, (peer, is_management)).await
            };
            record.set_status(response.status().as_u16().into());
            if let Ok(value) = HeaderValue::from_str(record.id()) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static("x-request-id"), value);
            }
            if let Some(span) = record.trace().response()
                && let Ok(value) = HeaderValue::from_str(&span)
            {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(RESPONSE_HEADER), value);
            }
            let status = response.status();
            client.finish(!status.is_client_error() && !status.is_server_error());
            add_rate_limits(&client, response.headers_mut());
            if let Some(format) = report_format {
                add_load_report(&self.shared, format, response.headers_mut());
            }
            response.map_body(|_, body| CountedReply::new(body, &self.shared.receive.budget))
        }
    }
}

/// Adds what is left of the limits of the client's key.
fn add_rate_limits(client: &Client, headers: &mut HeaderMap) {
    for (name, value) in client.rate_limit_fields() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Adds a report of the present load for a client that asked for it.
fn add_load_report(shared: &Shared, format: load_report::Format, headers: &mut HeaderMap) {
    let report = load_report::report(&shared.registry.snapshot(), format);
    if let Ok(value) = HeaderValue::from_str(&report) {
        headers.insert(HeaderName::from_static(load_report::REPLY_HEADER), value);
    }
}

/// Whether the management port serves a path: all routes except those that run a task, which include the configured
/// short routes. A path with encoded characters could be one of those.
fn is_served_by_management(head: &Parts) -> bool {
    let path = head.uri.path();
    let route = routes::find_for(head.method == hyper::Method::POST, path);
    !path.contains('%') && route.is_some_and(|route| route.task.is_none())
}

fn not_on_management_port(request: &DirectHead) -> HttpResponse {
    let message = "this port serves health checks, metrics and the management of models; send predictions to the \
        server's main port";
    respond::failure(request, &Failure::new(Code::NotFound, message))
}

/// Converts a request for actix-web, which uses an earlier version of the `http` crate.
fn convert(head: &Parts, payload: Payload, peer: SocketAddr) -> Result<Request, Error> {
    let mut request = Request::with_payload(payload);
    let converted = request.head_mut();
    converted.method = Method::from_bytes(head.method.as_str().as_bytes()).map_err(ErrorBadRequest)?;
    converted.uri = match (head.uri.scheme(), head.uri.path_and_query()) {
        (None, Some(target)) => Uri::try_from(target.as_str()),
        _ => Uri::try_from(head.uri.to_string()),
    }
    .map_err(ErrorBadRequest)?;
    converted.version = match head.version {
        hyper::Version::HTTP_10 => Version::HTTP_10,
        hyper::Version::HTTP_2 => Version::HTTP_2,
        _ => Version::HTTP_11,
    };
    converted.peer_addr = Some(peer);
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_ref()).map_err(ErrorBadRequest)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(ErrorBadRequest)?;
        converted.headers.append(name, value);
    }
    Ok(request)
}
