//! Moves long computations from the event loops to blocking threads.

use actix_web::web;

use crate::api::{Code, Failure};

/// Bodies up to this size in bytes are read on the event loop, which takes about a tenth of a millisecond.
pub(super) const MAX_INLINE_BODY: usize = 128 * 1024;

/// Replies up to this size in bytes are written on the event loop, which takes as long. Sizes are the largest that the values can
/// have as JSON, which is six times that of a text without escapes.
pub(super) const MAX_INLINE_REPLY: usize = 128 * 1024;

/// Runs `work` on the event loop if its `size` is at most `max_inline`, otherwise on a blocking thread.
pub(super) async fn run_by_size<R: Send + 'static>(
    size: usize,
    max_inline: usize,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    if size <= max_inline {
        Ok(work())
    } else {
        // Boxed, because most requests never need this future.
        Box::pin(run_blocking(work)).await
    }
}

/// Runs `work` on a blocking thread, so that it does not delay the other connections of the event loop.
pub(super) async fn run_blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    web::block(work)
        .await
        .map_err(|_| Failure::new(Code::Internal, "no thread available to process the request"))
}
