//! Passes the requests of an HTTP/2 connection to the application, and its replies back.
//!
//! The application sees the same requests as over HTTP/1.1: a target without scheme and authority, and a header `host`.

use std::convert::Infallible;
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

use super::bodies::{ReplyData, ReplyError, RequestData};
use super::bridge::{Application, LocalFuture, ReceivedRequest, convert_head};
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
                data: RequestData::new(body),
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

fn convert_reply<B: MessageBody + Unpin>(
    reply: HttpResponse<B>,
    stream: Rc<OpenStream>,
    omits_body: bool,
) -> hyper::Response<ReplyBody<B>> {
    let mut converted = convert_head(&reply);
    let data = ReplyData::new(reply.into_body());
    if let Some(size) = data.remaining().filter(|_| omits_body) {
        converted
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(size));
    }
    converted.map(|()| ReplyBody {
        data: (!omits_body).then_some(data),
        stream,
    })
}

/// The body of a request, as the application reads it.
struct RequestBody {
    data: RequestData,
    stream: Rc<OpenStream>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.data.poll_next(context));
        if let Some(Err(_)) = next {
            self.stream.failed();
        }
        Poll::Ready(next)
    }
}

/// The body of a reply, as hyper sends it.
pub(super) struct ReplyBody<B> {
    /// `None` for the reply to a HEAD request.
    data: Option<ReplyData<B>>,
    stream: Rc<OpenStream>,
}

impl<B: MessageBody + Unpin> Body for ReplyBody<B> {
    type Data = Chunk;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, ReplyError>>> {
        let Some(data) = &mut self.data else {
            return Poll::Ready(None);
        };
        let part = ready!(data.poll_next(context));
        let chunk = |bytes| {
            let _stream = self.stream.clone();
            Frame::data(Chunk { bytes, _stream })
        };
        Poll::Ready(part.map(|part| part.map(chunk)))
    }

    fn is_end_stream(&self) -> bool {
        self.data.as_ref().is_none_or(ReplyData::is_end)
    }

    fn size_hint(&self) -> SizeHint {
        let empty = SizeHint::with_exact(0);
        self.data.as_ref().map_or(empty, ReplyData::size_hint)
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
