//! Passes the requests of an HTTP/2 connection to the application, and its replies back.
//!
//! The application sees the same requests as over HTTP/1.1: a target without scheme and authority, and a header `host`.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::BoxedPayloadStream;
use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use bytes::Buf;
use futures_util::Stream;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Uri};

use super::bridge::{Application, LocalFuture, ReceivedRequest, convert_head, known_size, payload_error};
use super::http2_state::{Http2State, OpenStream};
use crate::clock;

/// The service that hyper calls for each stream of a connection.
pub(super) struct Http2Streams<A> {
    pub(super) application: Rc<A>,
    pub(super) connection: Rc<Http2State>,
    pub(super) peer: SocketAddr,
    pub(super) is_management: bool,
}

impl<A: Application> hyper::service::Service<hyper::Request<Incoming>> for Http2Streams<A> {
    type Response = hyper::Response<ReplyBody<A::Body>>;
    type Error = Infallible;
    type Future = LocalFuture<Result<Self::Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let stream = Rc::new(OpenStream::new(self.connection.clone()));
        use_relative_target(&mut head);
        let omits_body = head.method == Method::HEAD;
        let payload = if body.is_end_stream() {
            Payload::None
        } else {
            let body: BoxedPayloadStream = Box::pin(RequestBody {
                body: Some(body),
                stream: stream.clone(),
            });
            Payload::from(body)
        };
        let request = ReceivedRequest {
            head,
            payload,
            peer: self.peer,
            received: clock::now(),
            is_management: self.is_management,
        };
        let application = self.application.clone();
        Box::pin(async move {
            let reply = application.answer(request).await;
            stream.replied();
            Ok(convert_reply(reply, stream, omits_body))
        })
    }
}

/// Moves the authority of the target to the header `host`.
fn use_relative_target(head: &mut Parts) {
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(HOST)
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, value);
    }
    if head.uri.scheme().is_some()
        && let Some(target) = head.uri.path_and_query().cloned()
    {
        head.uri = Uri::from(target);
    }
}

fn convert_reply<B: MessageBody>(
    reply: HttpResponse<B>,
    stream: Rc<OpenStream>,
    omits_body: bool,
) -> hyper::Response<ReplyBody<B>> {
    let mut converted = convert_head(&reply);
    let body = reply.into_body();
    let remaining = known_size(&body);
    if let Some(size) = remaining.filter(|_| omits_body) {
        converted
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    converted.map(|()| ReplyBody {
        body: (!omits_body).then_some(body),
        remaining: if omits_body { Some(0) } else { remaining },
        stream,
    })
}

/// The body of a request, as the application reads it.
struct RequestBody {
    body: Option<Incoming>,
    stream: Rc<OpenStream>,
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
            }
            return Poll::Ready(match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers are ignored.
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    self.stream.failed();
                    Some(Err(payload_error(&error)))
                }
                None => None,
            });
        }
    }
}

/// The body of a reply, as hyper sends it.
pub(super) struct ReplyBody<B> {
    /// `None` for the reply to a HEAD request.
    body: Option<B>,
    /// Number of remaining bytes, if known.
    remaining: Option<u64>,
    stream: Rc<OpenStream>,
}

impl<B: MessageBody + Unpin> Body for ReplyBody<B> {
    type Data = Chunk;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Self::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        Poll::Ready(match ready!(Pin::new(body).poll_next(context)) {
            Some(Ok(bytes)) => {
                self.remaining = self
                    .remaining
                    .map(|remaining| remaining.saturating_sub(bytes.len() as u64));
                let _stream = self.stream.clone();
                Some(Ok(Frame::data(Chunk { bytes, _stream })))
            }
            Some(Err(error)) => {
                let error: Box<dyn StdError> = error.into();
                Some(Err(error.to_string().into()))
            }
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

/// A part of a reply. The stream is open until it has been written.
pub(super) struct Chunk {
    bytes: Bytes,
    _stream: Rc<OpenStream>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}
