//! Converts requests from hyper to actix-web, and replies back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::{BoxedPayloadStream, Request};
use actix_service::{Service as _, ServiceFactory};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Payload, ServiceResponse};
use actix_web::error::{ErrorBadRequest, PayloadError};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, Uri, Version};
use actix_web::web::Bytes;
use actix_web::{Error, HttpResponse};
use futures_util::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};

use super::connection_state::{ConnectionState, Phase};
use crate::clock;

/// The application, which answers requests.
pub(super) type Application = Rc<dyn Fn(Request) -> LocalFuture<HttpResponse>>;

type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Maximum size of the unread rest of a body that is received and discarded before the reply is sent, so that the
/// connection can be reused.
const MAX_DISCARDED: u64 = 64 * 1024;

/// Maximum time for that rest to arrive.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(100);

/// Builds the instance of the application for this thread.
pub(super) async fn application<S, B>(factory: S) -> Application
where
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::InitError: Debug,
    B: MessageBody + 'static,
{
    let service = factory
        .new_service(AppConfig::default())
        .await
        .expect("building the application cannot fail");
    Rc::new(move |request| {
        let reply = service.call(request);
        Box::pin(async move {
            match reply.await {
                Ok(reply) => reply.into_parts().1.map_into_boxed_body(),
                Err(error) => HttpResponse::from_error(error),
            }
        })
    })
}

/// The service that hyper calls for each request on a connection.
pub(super) struct Bridge {
    pub(super) application: Application,
    pub(super) state: Rc<ConnectionState>,
    pub(super) peer: SocketAddr,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Bridge {
    type Response = hyper::Response<ReplyBody>;
    type Error = Infallible;
    type Future = LocalFuture<Result<Self::Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let state = self.state.clone();
        state.head_received(!body.is_end_stream(), clock::now());
        let may_discard = !head.headers.contains_key(EXPECT);
        let rest = UnreadBody::default();
        let payload = if body.is_end_stream() {
            Payload::None
        } else {
            let body: BoxedPayloadStream = Box::pin(RequestBody {
                body: Some(body),
                rest: rest.clone(),
                state: state.clone(),
            });
            Payload::from(body)
        };
        let reply = match convert_request(&head, payload, self.peer) {
            Ok(request) => (self.application)(request),
            Err(error) => Box::pin(async { HttpResponse::from_error(error) }),
        };
        Box::pin(async move {
            let reply = reply.await;
            if state.phase() == Phase::Body && may_discard {
                rest.discard(&state).await;
            }
            state.writing();
            Ok(convert_reply(reply, state))
        })
    }
}

/// Converts a request for actix, which uses an earlier version of the `http` crate.
fn convert_request(
    head: &hyper::http::request::Parts,
    payload: Payload,
    peer: SocketAddr,
) -> Result<Request, Error> {
    let mut request = Request::with_payload(payload);
    let converted = request.head_mut();
    converted.method = match &head.method {
        &hyper::Method::POST => Method::POST,
        &hyper::Method::GET => Method::GET,
        other => Method::from_bytes(other.as_str().as_bytes()).map_err(ErrorBadRequest)?,
    };
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

fn convert_reply(reply: HttpResponse, state: Rc<ConnectionState>) -> hyper::Response<ReplyBody> {
    let mut converted = hyper::Response::new(());
    if let Ok(status) = hyper::StatusCode::from_u16(reply.status().as_u16()) {
        *converted.status_mut() = status;
    }
    let headers = converted.headers_mut();
    headers.reserve(reply.headers().len() + 2);
    for (name, value) in reply.headers() {
        let name = hyper::header::HeaderName::from_bytes(name.as_ref());
        let value = hyper::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value)
            // hyper sets the framing headers.
            && ![CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name)
        {
            headers.append(name, value);
        }
    }
    // The client may still be sending a body that is not going to be read.
    if state.is_closing() || state.phase() == Phase::Body {
        headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    }
    let body = reply.into_body();
    let remaining = match body.size() {
        BodySize::None => Some(0),
        BodySize::Sized(size) => Some(size),
        BodySize::Stream => None,
    };
    converted.map(|()| ReplyBody {
        body,
        remaining,
        state,
    })
}

/// The body of a request, as the application reads it.
struct RequestBody {
    body: Option<Incoming>,
    rest: UnreadBody,
    state: Rc<ConnectionState>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let frame = ready!(Pin::new(&mut *body).poll_frame(context));
            if body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                self.body = None;
                self.state.body_ended(clock::now());
            }
            return Poll::Ready(match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers are ignored.
                    Err(_) => continue,
                },
                Some(Err(error)) => Some(Err(payload_error(&error))),
                None => None,
            });
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        *self.rest.0.borrow_mut() = self.body.take();
    }
}

/// The part of a request body that the application did not read.
#[derive(Clone, Default)]
struct UnreadBody(Rc<RefCell<Option<Incoming>>>);

impl UnreadBody {
    /// Receives and discards the rest, if it is small and arrives in time.
    async fn discard(&self, state: &ConnectionState) {
        let rest = self.0.borrow_mut().take();
        let Some(mut rest) =
            rest.filter(|rest| rest.size_hint().upper().is_some_and(|size| size <= MAX_DISCARDED))
        else {
            return;
        };
        let discard = async { while let Some(Ok(_)) = rest.frame().await {} };
        if tokio::time::timeout(DISCARD_TIMEOUT, discard).await.is_ok() {
            state.body_ended(clock::now());
        }
    }
}

fn payload_error(error: &hyper::Error) -> PayloadError {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match source.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => PayloadError::EncodingCorrupted,
        _ => PayloadError::Incomplete(None),
    }
}

/// The body of a reply, as hyper sends it.
pub(super) struct ReplyBody {
    body: BoxBody,
    /// Number of remaining bytes, if known.
    remaining: Option<u64>,
    state: Rc<ConnectionState>,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = ready!(Pin::new(&mut self.body).poll_next(context));
        self.state.writing();
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => {
                self.remaining = self
                    .remaining
                    .map(|remaining| remaining.saturating_sub(chunk.len() as u64));
                Some(Ok(Frame::data(chunk)))
            }
            Some(Err(error)) => Some(Err(error.to_string().into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.state.reply_ended(clock::now());
    }
}
