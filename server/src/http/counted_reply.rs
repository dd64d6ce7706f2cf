//! The body of a reply that counts toward the budget of bytes until it is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

use crate::byte_budget::{ByteBudget, MAX_UNCOUNTED, Reservation};

pin_project_lite::pin_project! {
    /// A body and the reservation for its bytes.
    pub(super) struct CountedReply<B> {
        #[pin]
        body: B,
        reservation: Option<Reservation>,
    }
}

impl<B: MessageBody> CountedReply<B> {
    /// Counts `body`, unless it is small or its size is unknown.
    pub(super) fn new(body: B, budget: &Arc<ByteBudget>) -> Self {
        let reservation = match body.size() {
            BodySize::Sized(size) if size > MAX_UNCOUNTED => Some(budget.hold(size)),
            _ => None,
        };
        Self { body, reservation }
    }
}

impl<B: MessageBody> MessageBody for CountedReply<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        let chunk = this.body.poll_next(context);
        // The bytes are on their way to the client as one piece, which keeps the reservation.
        match (chunk, this.reservation.take()) {
            (Poll::Ready(Some(Ok(chunk))), Some(reservation))
                if reservation.bytes() <= chunk.len() as u64 =>
            {
                Poll::Ready(Some(Ok(reservation.attach(chunk))))
            }
            (chunk, reservation) => {
                *this.reservation = reservation;
                chunk
            }
        }
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Self { body, reservation } = self;
        match body.try_into_bytes() {
            Ok(bytes) => Ok(match reservation {
                Some(reservation) => reservation.attach(bytes),
                None => bytes,
            }),
            Err(body) => Err(Self { body, reservation }),
        }
    }
}
