//! Passes requests from hyper to the application, and its replies back.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_http::BoxedPayloadStream;
use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use super::bodies::{ReplyData, ReplyError, RequestData};
use super::connection_state::{ConnectionState, Phase};
use crate::clock;

/// Answers requests. Each thread has its own instance.
pub(in crate::http) trait Application: 'static {
    /// The body of a reply.
    type Body: MessageBody + Unpin + 'static;

    /// Answers a request. Dropping the future cancels the request.
    fn answer(self: Rc<Self>, request: ReceivedRequest) -> impl Future<Output = HttpResponse<Self::Body>>;
}

/// A request whose head was received.
pub(in crate::http) struct ReceivedRequest {
    pub(in crate::http) head: Parts,
    pub(in crate::http) payload: Payload,
    pub(in crate::http) peer: SocketAddr,
    /// When the head was complete.
    pub(in crate::http) received: Instant,
    /// Whether it arrived at the management port.
    pub(in crate::http) is_management: bool,
}

pub(super) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Maximum size of the unread rest of a body that is received and discarded before the reply is sent, so that the
/// connection can be reused.
const MAX_DISCARDED: u64 = 64 * 1024;

/// Maximum time for that rest to arrive.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum size in bytes of the future that answers a request. Each request allocates it and copies all of it.
const MAX_ANSWER_SIZE: usize = 4096;

/// The service that hyper calls for each request on a connection.
pub(super) struct Bridge<A> {
    pub(super) application: Rc<A>,
    pub(super) state: Rc<ConnectionState>,
    pub(super) peer: SocketAddr,
    pub(super) is_management: bool,
}

impl<A: Application> hyper::service::Service<hyper::Request<Incoming>> for Bridge<A> {
    type Response = hyper::Response<ReplyBody<A::Body>>;
    type Error = Infallible;
    type Future = LocalFuture<Result<Self::Response, Infallible>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (head, body) = request.into_parts();
        let state = self.state.clone();
        let received = clock::now();
        state.head_received(!body.is_end_stream(), received);
        let may_discard = !head.headers.contains_key(EXPECT);
        let rest = UnreadBody::default();
        let payload = if body.is_end_stream() {
            Payload::None
        } else {
            let body: BoxedPayloadStream = Box::pin(RequestBody {
                data: RequestData::new(body),
                rest: rest.clone(),
                state: state.clone(),
            });
            Payload::from(body)
        };
        let request = ReceivedRequest {
            head,
            payload,
            peer: self.peer,
            received,
            is_management: self.is_management,
        };
        let application = self.application.clone();
        let answer = async move {
            let reply = application.answer(request).await;
            if state.phase() == Phase::Body && may_discard {
                rest.discard(&state).await;
            }
            state.writing();
            Ok(convert_reply(reply, state))
        };
        debug_assert!(
            size_of_val(&answer) <= MAX_ANSWER_SIZE,
            "the future of a request has {} bytes, expected at most {MAX_ANSWER_SIZE}",
            size_of_val(&answer)
        );
        Box::pin(answer)
    }
}

/// Converts the status and the headers of a reply, except for those that frame its body.
pub(super) fn convert_head<B>(reply: &HttpResponse<B>) -> hyper::Response<()> {
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
    converted
}

fn convert_reply<B: MessageBody + Unpin>(
    reply: HttpResponse<B>,
    state: Rc<ConnectionState>,
) -> hyper::Response<ReplyBody<B>> {
    let mut converted = convert_head(&reply);
    // The client may still be sending a body that is not going to be read.
    if state.is_closing() || state.phase() == Phase::Body {
        let close = hyper::header::HeaderValue::from_static("close");
        converted.headers_mut().insert(CONNECTION, close);
    }
    let data = ReplyData::new(reply.into_body());
    converted.map(|()| ReplyBody { data, state })
}

/// The body of a request, as the application reads it.
struct RequestBody {
    data: RequestData,
    rest: UnreadBody,
    state: Rc<ConnectionState>,
}

impl Stream for RequestBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.data.poll_next(context));
        if self.data.has_ended() {
            self.state.body_ended(clock::now());
        }
        Poll::Ready(next)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        *self.rest.0.borrow_mut() = self.data.take_rest();
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

/// The body of a reply, as hyper sends it.
pub(super) struct ReplyBody<B> {
    data: ReplyData<B>,
    state: Rc<ConnectionState>,
}

impl<B: MessageBody + Unpin> Body for ReplyBody<B> {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let part = ready!(self.data.poll_next(context));
        self.state.writing();
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.data.size_hint()
    }
}

impl<B> Drop for ReplyBody<B> {
    fn drop(&mut self) {
        self.state.reply_ended(clock::now());
    }
}
