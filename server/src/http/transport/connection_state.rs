//! The state of a connection: the current phase of the request or reply, when it began, and its deadline.
//!
//! Time is an argument. The socket ([`super::socket`]), the application ([`super::bridge`]) and the timers
//! ([`super::connection`]) of a connection share its state. They all run in one task.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{HALF_CLOSE_WINDOW, Limits, Stage};

/// The current phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connected; nothing was received yet.
    Fresh,
    /// Between a reply and the next request.
    Idle,
    /// Receiving the head of a request.
    Head,
    /// Receiving the body.
    Body,
    /// Waiting for or sending the reply.
    Reply,
}

/// The action at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadlineAction {
    /// The head took too long: reject the request.
    RejectHead,
    /// The connection was idle for too long: close it.
    CloseIdle,
    /// The client half-closed the connection: check that it is still connected.
    CheckPeer,
}

/// How long a new connection has to begin a request during shutdown.
pub(super) const FRESH_GRACE: Duration = Duration::from_millis(500);

/// How often a half-closed connection is checked for a reset.
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The state of one connection.
#[derive(Debug)]
pub(super) struct ConnectionState {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    last_byte: Cell<Instant>,
    /// When the client of a half-closed connection was last known to be connected.
    half_closed: Cell<Option<Instant>>,
    ended: Cell<bool>,
    broken: Cell<bool>,
    unflushed: Cell<bool>,
    replied: Cell<bool>,
    stage: Cell<Stage>,
}

impl ConnectionState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Cell::new(Phase::Fresh),
            since: Cell::new(now),
            last_byte: Cell::new(now),
            half_closed: Cell::new(None),
            ended: Cell::new(false),
            broken: Cell::new(false),
            unflushed: Cell::new(false),
            replied: Cell::new(false),
            stage: Cell::new(Stage::Serving),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }

    /// Records that bytes arrived from the client.
    pub(super) fn received(&self, now: Instant) {
        self.last_byte.set(now);
    }

    /// Records that the parser reads these bytes. Line breaks between requests do not begin a head.
    pub(super) fn parsing(&self, bytes: &[u8], now: Instant) {
        let between = matches!(self.phase(), Phase::Fresh | Phase::Idle);
        if between && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.enter(Phase::Head, now);
        }
    }

    /// Records that the head of a request is complete.
    pub(super) fn head_received(&self, has_body: bool, now: Instant) {
        self.enter(if has_body { Phase::Body } else { Phase::Reply }, now);
    }

    /// Records that the body of the request has ended, completely or not.
    pub(super) fn body_ended(&self, now: Instant) {
        if self.phase() == Phase::Body {
            self.enter(Phase::Reply, now);
        }
    }

    /// Records that a part of the reply is about to be written.
    pub(super) fn writing(&self) {
        self.unflushed.set(true);
    }

    /// Records that the whole reply is in hyper's buffer.
    pub(super) fn reply_ended(&self, now: Instant) {
        self.unflushed.set(true);
        self.replied.set(true);
        self.enter(Phase::Idle, now);
    }

    /// Records that all data was passed to the operating system. The idle time of an idle connection starts now.
    pub(super) fn flushed(&self, now: impl FnOnce() -> Instant) {
        if self.unflushed.replace(false) && self.phase() == Phase::Idle {
            self.since.set(now());
        }
    }

    /// Whether no request is in progress and every reply has been written.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.phase(), Phase::Fresh | Phase::Idle | Phase::Head) && !self.unflushed.get()
    }

    /// Records the end of the stream.
    pub(super) fn end_of_stream(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Records the end of the stream during a reply. Returns whether it is a half-close; otherwise, the client has
    /// disconnected.
    pub(super) fn is_half_close(&self, now: Instant) -> bool {
        self.ended.set(true);
        let half_close = now.saturating_duration_since(self.last_byte.get()) <= HALF_CLOSE_WINDOW;
        if half_close {
            self.half_closed.set(Some(now));
        }
        half_close
    }

    /// Records that the client of a half-closed connection is still connected.
    pub(super) fn peer_seen(&self, now: Instant) {
        self.half_closed.set(Some(now));
    }

    /// Records that the connection was reset or failed.
    pub(super) fn fail(&self) {
        self.broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether the connection has sent a reply.
    pub(super) fn has_replied(&self) -> bool {
        self.replied.get()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Whether replies close the connection.
    pub(super) fn is_closing(&self) -> bool {
        self.stage.get() != Stage::Serving
    }

    /// Returns the next deadline and its action.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, DeadlineAction)> {
        let since = self.since.get();
        let stopped = self.stage.get() == Stage::Stopped;
        match self.phase() {
            Phase::Fresh if stopped => Some((
                since + FRESH_GRACE.min(limits.header_timeout),
                DeadlineAction::CloseIdle,
            )),
            Phase::Fresh | Phase::Head => Some((since + limits.header_timeout, DeadlineAction::RejectHead)),
            // A connection with a client that reads its reply slowly is not idle.
            Phase::Idle if self.unflushed.get() => None,
            Phase::Idle if stopped => Some((since, DeadlineAction::CloseIdle)),
            Phase::Idle => Some((since + limits.keep_alive, DeadlineAction::CloseIdle)),
            // The application limits the time for bodies and replies.
            Phase::Body => None,
            Phase::Reply => {
                let seen = self.half_closed.get()?;
                Some((seen + PEER_CHECK_INTERVAL, DeadlineAction::CheckPeer))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            max_connections: NonZeroUsize::MIN,
            keep_alive: 75 * SECOND,
            header_timeout: 10 * SECOND,
            any_origin: false,
        }
    }

    #[test]
    fn every_head_has_a_time_limit() {
        let start = clock::now();
        let state = ConnectionState::new(start);
        let deadline = |state: &ConnectionState| state.deadline(&limits());
        assert_eq!(
            deadline(&state),
            Some((start + 10 * SECOND, DeadlineAction::RejectHead))
        );
        state.parsing(b"GET /", start + SECOND);
        assert_eq!(
            deadline(&state),
            Some((start + 11 * SECOND, DeadlineAction::RejectHead))
        );
        state.head_received(false, start + 2 * SECOND);
        assert_eq!(deadline(&state), None);
        state.reply_ended(start + 3 * SECOND);
        assert_eq!(deadline(&state), None, "the reply is not written yet");
        state.flushed(|| start + 4 * SECOND);
        assert_eq!(
            deadline(&state),
            Some((start + 79 * SECOND, DeadlineAction::CloseIdle))
        );
        state.parsing(b"\r\n", start + 5 * SECOND);
        assert_eq!(state.phase(), Phase::Idle, "a line break is not a head");
        state.parsing(b"\r\nGET", start + 5 * SECOND);
        assert_eq!(
            deadline(&state),
            Some((start + 15 * SECOND, DeadlineAction::RejectHead))
        );
    }

    #[test]
    fn an_end_of_stream_is_a_half_close_only_immediately_after_the_request() {
        let start = clock::now();
        for (after, half_close) in [
            (Duration::ZERO, true),
            (HALF_CLOSE_WINDOW, true),
            (HALF_CLOSE_WINDOW + Duration::from_millis(1), false),
            (SECOND, false),
        ] {
            let state = ConnectionState::new(start);
            state.received(start + SECOND);
            state.head_received(false, start + SECOND);
            assert_eq!(
                state.is_half_close(start + SECOND + after),
                half_close,
                "{after:?}"
            );
            let checked = matches!(state.deadline(&limits()), Some((_, DeadlineAction::CheckPeer)));
            assert_eq!(checked, half_close, "{after:?}");
        }
    }

    #[test]
    fn a_stopped_server_closes_idle_connections_immediately_and_still_receives_started_requests() {
        let start = clock::now();
        let state = ConnectionState::new(start);
        state.set_stage(Stage::Stopped);
        assert_eq!(
            state.deadline(&limits()),
            Some((start + FRESH_GRACE, DeadlineAction::CloseIdle)),
            "the first request of a new connection may be on its way"
        );
        state.parsing(b"G", start);
        assert_eq!(
            state.deadline(&limits()),
            Some((start + 10 * SECOND, DeadlineAction::RejectHead))
        );
        state.head_received(true, start);
        state.body_ended(start);
        assert_eq!(state.deadline(&limits()), None);
        state.reply_ended(start);
        state.flushed(|| start);
        assert_eq!(
            state.deadline(&limits()),
            Some((start, DeadlineAction::CloseIdle))
        );
    }
}
