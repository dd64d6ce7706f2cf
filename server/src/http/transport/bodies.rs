//! The bodies of requests and replies, which both versions of HTTP read and write in the same way.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use hyper::body::{Body as _, Incoming, SizeHint};

/// The error of a reply whose body cannot be written.
pub(super) type ReplyError = Box<dyn StdError + Send + Sync>;

/// The body of a request. Trailers are ignored.
pub(super) struct RequestData(Option<Incoming>);

impl RequestData {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    /// The next part of the body.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, PayloadError>>> {
        loop {
            let Some(body) = &mut self.0 else {
                return Poll::Ready(None);
            };
            let frame = ready!(Pin::new(&mut *body).poll_frame(context));
            if body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                self.0 = None;
            }
            return Poll::Ready(match frame.transpose() {
                Ok(frame) => match frame.map(hyper::body::Frame::into_data) {
                    Some(Ok(data)) => Some(Ok(data)),
                    Some(Err(_)) => continue,
                    None => None,
                },
                Err(error) => Some(Err(payload_error(&error))),
            });
        }
    }

    /// Whether the body has ended, completely or not.
    pub(super) fn has_ended(&self) -> bool {
        self.0.is_none()
    }

    /// The rest, unless the body has ended.
    pub(super) fn take_rest(&mut self) -> Option<Incoming> {
        self.0.take()
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

/// The body of a reply.
pub(super) struct ReplyData<B> {
    body: B,
    /// Number of remaining bytes, if known.
    remaining: Option<u64>,
}

impl<B: MessageBody + Unpin> ReplyData<B> {
    pub(super) fn new(body: B) -> Self {
        let remaining = match body.size() {
            BodySize::None => Some(0),
            BodySize::Sized(size) => Some(size),
            BodySize::Stream => None,
        };
        Self { body, remaining }
    }

    /// The next part of the body.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_next(context));
        Poll::Ready(next.map(|part| match part {
            Ok(part) => {
                let remaining = &mut self.remaining;
                *remaining = remaining.map(|remaining| remaining.saturating_sub(part.len() as u64));
                Ok(part)
            }
            Err(error) => {
                let error: Box<dyn StdError> = error.into();
                Err(error.to_string().into())
            }
        }))
    }

    /// Number of remaining bytes, if known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.remaining
    }

    pub(super) fn is_end(&self) -> bool {
        self.remaining == Some(0)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.map(SizeHint::with_exact).unwrap_or_default()
    }
}
