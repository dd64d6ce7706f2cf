//! The bodies of calls: the time and the bytes that they may take.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::{Request, Response};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

use super::inference_service::status;
use crate::api::Failure;
use crate::byte_budget::{BudgetExhausted, ByteBudget, Reservation};

/// The methods whose clients send for as long as they want. The messages of an inference stream are counted one by one.
const CLIENT_STREAMS: [&str; 2] = ["/ModelStreamInfer", "/ServerReflectionInfo"];

/// A message on the wire begins with a flag and its length.
const PREFIX: usize = 5;

/// Counts what was received of a call, until the last clone is dropped. Travels among the extensions of a compressed request, so
/// that its decompressed size can be counted.
#[derive(Clone)]
pub(super) struct ReceivedBytes(Arc<Mutex<Reservation>>);

impl ReceivedBytes {
    /// Raises the number of bytes to `bytes`.
    pub(super) fn raise_to(&self, bytes: u64) -> Result<(), BudgetExhausted> {
        let mut reservation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let more = bytes.saturating_sub(reservation.bytes());
        reservation.grow(more)
    }

    /// Keeps the bytes counted, and those of the reply, until the reply is written.
    pub(super) fn keep(self, mut response: Response<Body>) -> Response<Body> {
        let reply = response.extensions_mut().remove::<ReplyBytes>();
        response.map(|body| {
            Body::new(ReplyBody {
                body,
                _counted: (self, reply),
            })
        })
    }
}

/// Gives the body of a call that is not a stream until `timeout` from now to arrive, and reserves its bytes. A body that is
/// late or does not fit fails with a status.
pub(super) fn limit(
    request: Request<Body>,
    timeout: Duration,
    budget: &Arc<ByteBudget>,
) -> (Request<Body>, ReceivedBytes) {
    let received = ReceivedBytes(Arc::new(Mutex::new(budget.hold(0))));
    let path = request.uri().path();
    if CLIENT_STREAMS.iter().any(|method| path.ends_with(method)) {
        return (request, received);
    }
    let mut request = request.map(|body| {
        Body::new(Limited {
            body,
            timeout,
            late: Box::pin(tokio::time::sleep(timeout)),
            arrived: 0,
            received: received.clone(),
        })
    });
    if request.headers().contains_key("grpc-encoding") {
        request.extensions_mut().insert(received.clone());
    }
    (request, received)
}

struct Limited {
    body: Body,
    timeout: Duration,
    late: Pin<Box<Sleep>>,
    arrived: u64,
    received: ReceivedBytes,
}

impl Limited {
    /// Reserves the bytes of `data`, or of the whole message if `data` is its beginning.
    fn reserve(&mut self, data: &[u8]) -> Result<(), BudgetExhausted> {
        let announced = match data {
            [_, a, b, c, d, ..] if self.arrived == 0 => {
                PREFIX as u64 + u64::from(u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => 0,
        };
        self.arrived += data.len() as u64;
        self.received.raise_to(self.arrived.max(announced))
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Checked first, so that a client that never stops sending is stopped.
        if self.late.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(status(&Failure::body_timeout(self.timeout)))));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            // The client disconnected, which drops the call. An error would first be reported as a fault of the server.
            Poll::Ready(Some(Err(_))) => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                let reserved = frame.data_ref().map_or(Ok(()), |data| self.reserve(data));
                Poll::Ready(Some(match reserved {
                    Ok(()) => Ok(frame),
                    Err(exhausted) => Err(status(&Failure::from(exhausted))),
                }))
            }
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

/// Counts the bytes of a reply. Travels among the extensions of the response.
#[derive(Clone)]
pub(super) struct ReplyBytes {
    _reservation: Arc<Reservation>,
}

impl ReplyBytes {
    pub(super) fn new(budget: &Arc<ByteBudget>, bytes: usize) -> Self {
        Self {
            _reservation: Arc::new(budget.hold(bytes as u64)),
        }
    }
}

/// The body of a reply, which keeps the bytes of its call counted until it is written.
struct ReplyBody {
    body: Body,
    _counted: (ReceivedBytes, Option<ReplyBytes>),
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
