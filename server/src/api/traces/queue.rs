//! The bounded queue from the threads that answer requests to the exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::Notify;

use super::TracedRequest;
use crate::metrics::TraceMetrics;

/// What both ends share.
struct Shared {
    /// Number of spans in the queue. It bounds the channel.
    spans: AtomicUsize,
    /// Number of spans that are sent together.
    batch_spans: usize,
    /// Notified when there are enough spans to send.
    filled: Notify,
    metrics: TraceMetrics,
}

/// The end of the threads that answer requests. Sending never blocks.
pub(super) struct SpanQueue {
    sender: Sender<Box<TracedRequest>>,
    shared: Arc<Shared>,
    max_spans: usize,
}

/// The end of the exporter.
pub(super) struct QueuedRequests {
    receiver: Receiver<Box<TracedRequest>>,
    shared: Arc<Shared>,
}

/// A queue of at most `max_spans` spans, whose receiver is notified when it has `batch_spans`.
pub(super) fn queue(
    max_spans: usize,
    batch_spans: usize,
    metrics: TraceMetrics,
) -> (SpanQueue, QueuedRequests) {
    let (sender, receiver) = unbounded();
    let shared = Arc::new(Shared {
        spans: AtomicUsize::new(0),
        batch_spans,
        filled: Notify::new(),
        metrics,
    });
    let queue = SpanQueue {
        sender,
        shared: shared.clone(),
        max_spans,
    };
    (queue, QueuedRequests { receiver, shared })
}

impl SpanQueue {
    /// Sends a request with this number of spans, or counts them as dropped if the queue is full.
    pub(super) fn send(&self, spans: usize, request: impl FnOnce() -> TracedRequest) {
        let shared = &*self.shared;
        let before = shared.spans.fetch_add(spans, Ordering::AcqRel);
        let after = before + spans;
        if after > self.max_spans || self.sender.send(Box::new(request())).is_err() {
            shared.spans.fetch_sub(spans, Ordering::AcqRel);
            shared.metrics.dropped(spans);
        } else if before < shared.batch_spans && after >= shared.batch_spans {
            shared.filled.notify_one();
        }
    }
}

impl QueuedRequests {
    /// Waits until there are enough spans for a batch.
    pub(super) async fn filled(&self) {
        self.shared.filled.notified().await;
    }

    /// Number of spans that wait.
    pub(super) fn len(&self) -> usize {
        self.shared.spans.load(Ordering::Acquire)
    }

    /// Whether there are enough spans for a batch.
    pub(super) fn has_batch(&self) -> bool {
        self.len() >= self.shared.batch_spans
    }

    /// The next request, if there is one.
    pub(super) fn take(&self) -> Option<Box<TracedRequest>> {
        self.receiver.try_recv().ok()
    }

    /// Makes room for spans that were taken.
    pub(super) fn taken(&self, spans: usize) {
        self.shared.spans.fetch_sub(spans, Ordering::AcqRel);
    }

    /// Counts spans that were taken and not exported.
    pub(super) fn dropped(&self, spans: usize) {
        self.shared.metrics.dropped(spans);
    }
}
