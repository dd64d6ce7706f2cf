//! The bodies of calls: how long they may take, and what is said of clients that go away meanwhile.

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

/// The methods whose clients send as long as they like.
const CLIENT_STREAMS: [&str; 2] = ["/ModelStreamInfer", "/ServerReflectionInfo"];

/// Gives the body of a call that is no stream until `timeout` from now to arrive. After that it fails with a status.
pub(super) fn limit(request: Request<Body>, timeout: Duration) -> Request<Body> {
    let path = request.uri().path();
    if CLIENT_STREAMS.iter().any(|method| path.ends_with(method)) {
        return request;
    }
    request.map(|body| {
        Body::new(Limited {
            body,
            timeout,
            late: Box::pin(tokio::time::sleep(timeout)),
        })
    })
}

struct Limited {
    body: Body,
    timeout: Duration,
    late: Pin<Box<Sleep>>,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Before what has come, so that a client that never stops sending is stopped.
        if self.late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(status(&Failure::late_body(self.timeout)))));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            // The client went away. The call is dropped for that; an error would first be told as a fault of the server.
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
