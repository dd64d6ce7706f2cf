//! The state of an HTTP/2 connection: its open streams, and its next deadline.
//!
//! Time is an argument. The streams, the socket and the timers of a connection share its state on one thread.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection_state::FRESH_GRACE;
use super::{Limits, Stage};
use crate::clock;

/// Time for the client to close the connection after GOAWAY, once no stream is open.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of requests that a client may cancel in excess of those that it lets complete. A client that opens and resets
/// streams in a loop exceeds it.
const MAX_EXCESS_CANCELLATIONS: u64 = 500;

/// The action at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Accept no more streams, and close the connection when the open ones have ended.
    Finish,
    /// Close the connection immediately.
    Close,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Http2State {
    opened: Instant,
    stage: Cell<Stage>,
    /// Number of streams whose reply has not been passed to the socket.
    open: Cell<usize>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    completed: Cell<u64>,
    canceled: Cell<u64>,
    /// Whether the client does not read fast enough for what was written.
    blocked: Cell<bool>,
    finishing: Cell<Option<Instant>>,
}

impl Http2State {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            opened: now,
            stage: Cell::new(Stage::Serving),
            open: Cell::new(0),
            idle_since: Cell::new(now),
            completed: Cell::new(0),
            canceled: Cell::new(0),
            blocked: Cell::new(false),
            finishing: Cell::new(None),
        }
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Records that no more streams are accepted.
    pub(super) fn finishing(&self, now: Instant) {
        self.finishing.set(Some(now));
    }

    /// Records whether the socket accepts more data.
    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.set(blocked);
    }

    /// Whether a request has arrived.
    fn has_received(&self) -> bool {
        self.open.get() > 0 || self.completed.get() + self.canceled.get() > 0
    }

    fn is_idle(&self) -> bool {
        self.open.get() == 0 && !self.blocked.get()
    }

    fn is_abusive(&self) -> bool {
        self.canceled.get() > self.completed.get() + MAX_EXCESS_CANCELLATIONS
    }

    /// Returns the next deadline and its action.
    pub(super) fn next(&self, limits: &Limits) -> Option<(Instant, Action)> {
        if self.is_abusive() {
            return Some((self.opened, Action::Close));
        }
        if let Some(since) = self.finishing.get() {
            let since = since.max(self.idle_since.get());
            return self.is_idle().then(|| (since + FINISH_TIMEOUT, Action::Close));
        }
        let received = self.has_received();
        let is_last = self.stage.get() != Stage::Serving || limits.keep_alive.is_zero();
        if received && is_last {
            return Some((self.opened, Action::Finish));
        }
        let deadline = match (received, self.stage.get()) {
            (false, Stage::Stopped) => self.opened + FRESH_GRACE.min(limits.header_timeout),
            (false, _) => self.opened + limits.header_timeout,
            (true, _) => self.idle_since.get() + limits.keep_alive,
        };
        self.is_idle().then_some((deadline, Action::Finish))
    }
}

impl fmt::Display for Http2State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_abusive() {
            true => write!(
                f,
                "the client canceled {} requests and let {} complete",
                self.canceled.get(),
                self.completed.get()
            ),
            false => f.write_str("the client did not close it"),
        }
    }
}

/// An open stream. It ends when it is dropped, which is when its reply has been passed to the socket or the client has
/// canceled it.
#[derive(Debug)]
pub(super) struct OpenStream {
    connection: Rc<Http2State>,
    replied: Cell<bool>,
    /// Whether the body of the request ended early.
    failed: Cell<bool>,
}

impl OpenStream {
    pub(super) fn new(connection: Rc<Http2State>) -> Self {
        connection.open.set(connection.open.get() + 1);
        Self {
            connection,
            replied: Cell::new(false),
            failed: Cell::new(false),
        }
    }

    /// Records that the application has replied.
    pub(super) fn replied(&self) {
        self.replied.set(true);
    }

    /// Records that the body of the request ended early, so that no client receives the reply.
    pub(super) fn failed(&self) {
        self.failed.set(true);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.open.set(connection.open.get() - 1);
        connection.idle_since.set(clock::now());
        let count = match self.replied.get() && !self.failed.get() {
            true => &connection.completed,
            false => &connection.canceled,
        };
        count.set(count.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            max_connections: NonZeroUsize::MIN,
            keep_alive: 75 * SECOND,
            header_timeout: 10 * SECOND,
            any_origin: false,
        }
    }

    fn open(state: &Rc<Http2State>) -> OpenStream {
        OpenStream::new(state.clone())
    }

    fn complete(state: &Rc<Http2State>) {
        open(state).replied();
    }

    #[test]
    fn a_connection_ends_after_a_time_without_requests() {
        let opened = clock::now();
        let state = Rc::new(Http2State::new(opened));
        assert_eq!(
            state.next(&limits()),
            Some((opened + 10 * SECOND, Action::Finish)),
            "no request has arrived"
        );
        let stream = open(&state);
        assert_eq!(state.next(&limits()), None);
        stream.replied();
        drop(stream);
        let idle_since = state.idle_since.get();
        assert_eq!(
            state.next(&limits()),
            Some((idle_since + 75 * SECOND, Action::Finish))
        );
        state.set_blocked(true);
        assert_eq!(state.next(&limits()), None, "the reply is not written yet");
    }

    #[test]
    fn a_connection_that_ends_waits_for_its_streams_and_then_for_the_client() {
        let opened = clock::now();
        let state = Rc::new(Http2State::new(opened));
        let stream = open(&state);
        state.finishing(opened);
        assert_eq!(state.next(&limits()), None);
        stream.replied();
        drop(stream);
        let idle_since = state.idle_since.get();
        assert_eq!(
            state.next(&limits()),
            Some((idle_since + FINISH_TIMEOUT, Action::Close))
        );
    }

    #[test]
    fn a_draining_server_ends_connections_that_have_received_a_request() {
        let opened = clock::now();
        let state = Rc::new(Http2State::new(opened));
        state.set_stage(Stage::Draining);
        assert_eq!(
            state.next(&limits()),
            Some((opened + 10 * SECOND, Action::Finish)),
            "the first request may be on its way"
        );
        let _stream = open(&state);
        assert_eq!(state.next(&limits()), Some((opened, Action::Finish)));
        let fresh = Http2State::new(opened);
        fresh.set_stage(Stage::Stopped);
        assert_eq!(
            fresh.next(&limits()),
            Some((opened + FRESH_GRACE, Action::Finish))
        );
    }

    #[test]
    fn without_keep_alive_a_connection_ends_with_its_first_request() {
        let opened = clock::now();
        let state = Rc::new(Http2State::new(opened));
        complete(&state);
        let limits = Limits {
            keep_alive: Duration::ZERO,
            ..limits()
        };
        assert_eq!(state.next(&limits), Some((opened, Action::Finish)));
    }

    #[test]
    fn a_client_that_cancels_nearly_everything_is_disconnected() {
        let opened = clock::now();
        let state = Rc::new(Http2State::new(opened));
        for _ in 0..100 {
            complete(&state);
        }
        for _ in 0..100 + MAX_EXCESS_CANCELLATIONS {
            drop(open(&state));
        }
        assert!(!state.is_abusive());
        drop(open(&state));
        assert_eq!(state.next(&limits()), Some((opened, Action::Close)));
    }
}
