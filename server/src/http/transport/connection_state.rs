//! The state of one connection: which part of a request or reply is in progress, since when, and until when.
//!
//! Time is an argument. The socket ([`super::socket`]), the application ([`super::bridge`]) and the timers
//! ([`super::connection`]) of one connection share an [`Exchange`]; all of them run in one task.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{HALF_CLOSE_WINDOW, Limits, Stage};

/// The part of an exchange that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Connected; nothing has been received.
    Fresh,
    /// Between a reply and the next request.
    Idle,
    /// Part of a request's head has arrived.
    Head,
    /// The head is complete; the body is arriving.
    Body,
    /// The request is complete; the reply is not.
    Reply,
}

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The head took too long: reject the request.
    LateHead,
    /// The connection was idle for too long: close it.
    Idle,
    /// The client half-closed: check that it is still there.
    CheckPeer,
}

/// After shutdown began, a new connection has this long to begin a request.
const FRESH_GRACE: Duration = Duration::from_millis(500);

/// How often a half-closed connection is checked for a reset.
const PEER_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Exchange {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    last_byte: Cell<Instant>,
    /// When the peer of a half-closed connection was last seen.
    half_closed: Cell<Option<Instant>>,
    ended: Cell<bool>,
    broken: Cell<bool>,
    unflushed: Cell<bool>,
    replied: Cell<bool>,
    stage: Cell<Stage>,
}

impl Exchange {
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

    /// Bytes arrived from the client.
    pub(super) fn received(&self, now: Instant) {
        self.last_byte.set(now);
    }

    /// The parser was given bytes. Line breaks between requests do not begin a head.
    pub(super) fn parsing(&self, bytes: &[u8], now: Instant) {
        let between = matches!(self.phase(), Phase::Fresh | Phase::Idle);
        if between && bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            self.enter(Phase::Head, now);
        }
    }

    /// The head of a request is complete.
    pub(super) fn head_received(&self, has_body: bool, now: Instant) {
        self.enter(if has_body { Phase::Body } else { Phase::Reply }, now);
    }

    /// The body of the request is complete, or will never be.
    pub(super) fn body_ended(&self, now: Instant) {
        if self.phase() == Phase::Body {
            self.enter(Phase::Reply, now);
        }
    }

    /// Part of the reply is on its way to the socket.
    pub(super) fn writing(&self) {
        self.unflushed.set(true);
    }

    /// All of the reply has been given to the parser's buffer.
    pub(super) fn reply_ended(&self, now: Instant) {
        self.unflushed.set(true);
        self.replied.set(true);
        self.enter(Phase::Idle, now);
    }

    /// Everything that was written has been given to the operating system. An idle connection is idle from now on.
    pub(super) fn flushed(&self, now: impl FnOnce() -> Instant) {
        if self.unflushed.replace(false) && self.phase() == Phase::Idle {
            self.since.set(now());
        }
    }

    /// Whether no request is in progress and every reply has been written.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.phase(), Phase::Fresh | Phase::Idle | Phase::Head) && !self.unflushed.get()
    }

    /// The client sends nothing more.
    pub(super) fn end_of_stream(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The client's end of the stream arrived while its request was being answered. Whether it was a half-close; if not,
    /// the client has given up.
    pub(super) fn is_half_close(&self, now: Instant) -> bool {
        self.ended.set(true);
        let half_close = now.saturating_duration_since(self.last_byte.get()) <= HALF_CLOSE_WINDOW;
        if half_close {
            self.half_closed.set(Some(now));
        }
        half_close
    }

    /// The client of a half-closed connection is still there.
    pub(super) fn peer_seen(&self, now: Instant) {
        self.half_closed.set(Some(now));
    }

    /// The connection was reset or failed.
    pub(super) fn broke(&self) {
        self.broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Whether a reply was sent on this connection.
    pub(super) fn has_replied(&self) -> bool {
        self.replied.get()
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Whether replies ask the client to reconnect.
    pub(super) fn is_closing(&self) -> bool {
        self.stage.get() != Stage::Serving
    }

    /// When something is due next, and what.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Instant, Due)> {
        let since = self.since.get();
        let stopped = self.stage.get() == Stage::Stopped;
        match self.phase() {
            Phase::Fresh if stopped => Some((since + FRESH_GRACE.min(limits.header_timeout), Due::Idle)),
            Phase::Fresh | Phase::Head => Some((since + limits.header_timeout, Due::LateHead)),
            // A client that reads its reply slowly is not idle.
            Phase::Idle if self.unflushed.get() => None,
            Phase::Idle if stopped => Some((since, Due::Idle)),
            Phase::Idle => Some((since + limits.keep_alive, Due::Idle)),
            // The application limits the time of bodies and of its own work.
            Phase::Body => None,
            Phase::Reply => {
                let seen = self.half_closed.get()?;
                Some((seen + PEER_CHECK_INTERVAL, Due::CheckPeer))
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
    fn a_head_has_its_own_time_limit_whether_it_is_the_first_or_a_later_one() {
        let start = clock::now();
        let exchange = Exchange::new(start);
        let deadline = |exchange: &Exchange| exchange.deadline(&limits());
        assert_eq!(deadline(&exchange), Some((start + 10 * SECOND, Due::LateHead)));
        exchange.parsing(b"GET /", start + SECOND);
        assert_eq!(deadline(&exchange), Some((start + 11 * SECOND, Due::LateHead)));
        exchange.head_received(false, start + 2 * SECOND);
        assert_eq!(deadline(&exchange), None);
        exchange.reply_ended(start + 3 * SECOND);
        assert_eq!(deadline(&exchange), None, "the reply is not written yet");
        exchange.flushed(|| start + 4 * SECOND);
        assert_eq!(deadline(&exchange), Some((start + 79 * SECOND, Due::Idle)));
        exchange.parsing(b"\r\n", start + 5 * SECOND);
        assert_eq!(exchange.phase(), Phase::Idle, "a line break is not a head");
        exchange.parsing(b"\r\nGET", start + 5 * SECOND);
        assert_eq!(deadline(&exchange), Some((start + 15 * SECOND, Due::LateHead)));
    }

    #[test]
    fn only_an_end_of_stream_right_after_the_request_is_a_half_close() {
        let start = clock::now();
        for (after, half_close) in [
            (Duration::ZERO, true),
            (HALF_CLOSE_WINDOW, true),
            (HALF_CLOSE_WINDOW + Duration::from_millis(1), false),
            (SECOND, false),
        ] {
            let exchange = Exchange::new(start);
            exchange.received(start + SECOND);
            exchange.head_received(false, start + SECOND);
            assert_eq!(
                exchange.is_half_close(start + SECOND + after),
                half_close,
                "{after:?}"
            );
            let checked = matches!(exchange.deadline(&limits()), Some((_, Due::CheckPeer)));
            assert_eq!(checked, half_close, "{after:?}");
        }
    }

    #[test]
    fn a_stopped_server_closes_idle_connections_at_once_and_lets_requests_arrive_in_full() {
        let start = clock::now();
        let exchange = Exchange::new(start);
        exchange.set_stage(Stage::Stopped);
        assert_eq!(
            exchange.deadline(&limits()),
            Some((start + FRESH_GRACE, Due::Idle)),
            "the first request of a new connection may be on its way"
        );
        exchange.parsing(b"G", start);
        assert_eq!(
            exchange.deadline(&limits()),
            Some((start + 10 * SECOND, Due::LateHead))
        );
        exchange.head_received(true, start);
        exchange.body_ended(start);
        assert_eq!(exchange.deadline(&limits()), None);
        exchange.reply_ended(start);
        exchange.flushed(|| start);
        assert_eq!(exchange.deadline(&limits()), Some((start, Due::Idle)));
    }
}
