//! Limits the time for receiving the body of a call.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::inference_service::status;
use crate::api::Failure;

/// Methods with client streams, which have no time limit.
const STREAMING_METHODS: [&str; 2] = ["/ModelStreamInfer", "/ServerReflectionInfo"];

/// Makes the body of a non-streaming call fail with a status if it has not arrived after `timeout`.
pub(super) fn apply(request: Request<Body>, timeout: Duration) -> Request<Body> {
    let path = request.uri().path();
    if STREAMING_METHODS.iter().any(|method| path.ends_with(method)) {
        return request;
    }
    request.map(|body| {
        Body::new(TimedBody {
            body,
            timeout,
            expiry: Box::pin(tokio::time::sleep(timeout)),
        })
    })
}

struct TimedBody {
    body: Body,
    timeout: Duration,
    expiry: Pin<Box<Sleep>>,
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Checked before reading, so that a client that sends slowly without end is stopped.
        if self.expiry.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(status(&Failure::body_timeout(self.timeout)))));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            // The client disconnected, so the call is about to be dropped. Returning the error would count it as a
            // server error first.
            Poll::Ready(Some(Err(_))) => Poll::Pending,
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
