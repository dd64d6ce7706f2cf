//! Serves HTTP/1.1 on one connection until it closes, or moves to another thread. A client that speaks HTTP/2 from the start
//! is left to [`http2`].

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::bridge::{Application, Bridge};
use super::connection_state::{ConnectionState, DeadlineAction, Phase};
use super::connection_timer::{ConnectionTimer, Wakeup};
use super::http2;
use super::rejected_head::{MAX_HEAD_SIZE, RejectedHead};
use super::socket::{ParserSide, RawSocket, Socket, Stream};
use super::version::Version;
use super::{Limits, Stage};
use crate::clock;

/// Maximum time that the server keeps reading after the last reply. Closing the connection earlier would reset it,
/// and the client could lose the reply.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Duration of the timer if there is no deadline. It is reset before it fires.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

type Connection<T, A> = http1::Connection<TokioIo<ParserSide<T>>, Bridge<A>>;

/// A socket, and what was read from it for a request that was not parsed yet.
pub(super) struct Inbound<T> {
    pub(super) stream: T,
    pub(super) ahead: BytesMut,
    /// The version of HTTP that the client speaks, once it is known.
    pub(super) version: Option<Version>,
}

impl<T> Inbound<T> {
    /// A connection from which nothing was read.
    pub(super) fn new(stream: T) -> Self {
        Self {
            stream,
            ahead: BytesMut::new(),
            version: None,
        }
    }

    /// Replaces the stream by another one of the same connection.
    pub(super) fn map<U>(self, stream: impl FnOnce(T) -> io::Result<U>) -> io::Result<Inbound<U>> {
        Ok(Inbound {
            stream: stream(self.stream)?,
            ahead: self.ahead,
            version: self.version,
        })
    }
}

/// What the connections of one thread and port share.
pub(super) struct Host<A> {
    pub(super) application: Rc<A>,
    pub(super) limits: Limits,
    /// Whether the port is the management port.
    pub(super) is_management: bool,
    /// If set, whether a request that starts with these bytes is answered on this thread. For any other request, the
    /// connection moves to a worker.
    pub(super) accepts: Option<fn(&[u8]) -> bool>,
}

/// Why a connection is closed.
enum CloseReason {
    /// The last reply or the client closed it.
    Closed,
    /// It was idle for too long.
    Idle,
    /// The client disconnected before its reply.
    Disconnected,
    /// A request was rejected before it reached the application.
    Rejected(RejectedHead),
    /// The next request is for another thread. The socket stays open.
    Moved,
    /// The client speaks HTTP/2. The socket stays open.
    Http2,
}

/// Serves a connection until it is closed. Returns it, open, if its next request is for another thread.
pub(super) async fn serve<T: Stream + 'static, A: Application>(
    inbound: Inbound<T>,
    peer: SocketAddr,
    host: Rc<Host<A>>,
    mut stages: watch::Receiver<Stage>,
) -> Option<Inbound<T>> {
    let state = Rc::new(ConnectionState::new(clock::now()));
    state.set_stage(*stages.borrow_and_update());
    let limits = &host.limits;
    let socket = Rc::new(Socket::new(inbound, host.accepts, state.clone()));
    let bridge = Bridge {
        application: host.application.clone(),
        state: state.clone(),
        peer,
        is_management: host.is_management,
    };
    let end = {
        let io = TokioIo::new(ParserSide(socket.clone()));
        let connection = pin!(
            http1::Builder::new()
                // The transport decides whether the end of the stream cancels a request.
                .half_close(true)
                .keep_alive(!limits.keep_alive.is_zero())
                .max_header_size(MAX_HEAD_SIZE)
                .header_read_timeout(None::<Duration>)
                .serve_connection(io, bridge)
        );
        // Dropping the connection cancels the request of a disconnected client.
        run(connection, &socket, &state, limits, &mut stages).await
    };
    let reply = match end {
        CloseReason::Moved => return Rc::into_inner(socket).map(Socket::into_inbound),
        CloseReason::Http2 => {
            if let Some(inbound) = Rc::into_inner(socket).map(Socket::into_inbound) {
                // Boxed, because most connections never need this future.
                Box::pin(http2::serve(inbound, peer, &host, stages)).await;
            }
            return None;
        }
        CloseReason::Idle => {
            // Over TLS, the client is told that the connection ends here.
            let _ = timeout(LINGER_TIMEOUT, RawSocket(socket).shutdown()).await;
            return None;
        }
        CloseReason::Disconnected => return None,
        CloseReason::Closed if !state.has_replied() || state.has_ended() || state.is_broken() => return None,
        CloseReason::Closed => Vec::new(),
        CloseReason::Rejected(rejected) => {
            log::debug!("rejected a request from {peer}: {rejected:?}");
            rejected.write(limits.any_origin)
        }
    };
    let mut raw_socket = RawSocket(socket);
    let written = timeout(LINGER_TIMEOUT, raw_socket.write_all(&reply)).await;
    if matches!(written, Ok(Ok(()))) {
        linger(&mut raw_socket).await;
    }
    None
}

/// Closes the sending half, and discards input until the client closes the connection.
pub(super) async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let discard = async {
        stream.shutdown().await?;
        let mut discarded = vec![0; 16 * 1024];
        while stream.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is closed afterwards in any case.
    let _ = timeout(LINGER_TIMEOUT, discard).await;
}

/// Runs the parser and the application, with the time limit of each phase.
async fn run<T: Stream + 'static, A: Application>(
    mut connection: Pin<&mut Connection<T, A>>,
    socket: &Socket<T>,
    state: &ConnectionState,
    limits: &Limits,
    stages: &mut watch::Receiver<Stage>,
) -> CloseReason {
    let sleep = pin!(sleep_until((clock::now() + limits.header_timeout).into()));
    let mut timer = ConnectionTimer::new(sleep, stages);
    loop {
        let poll = |context: &mut Context<'_>| {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(close_reason(result, socket, state));
            }
            if socket.is_moving() {
                return Poll::Ready(CloseReason::Moved);
            }
            if socket.is_http2() {
                return Poll::Ready(CloseReason::Http2);
            }
            socket
                .poll_disconnect(context)
                .map(|()| CloseReason::Disconnected)
        };
        let deadline = || state.deadline(limits).map(|(deadline, _)| deadline);
        match timer.wait(poll, deadline).await {
            Wakeup::End(reason) => return reason,
            Wakeup::Stage(stage) => state.set_stage(stage),
            Wakeup::Timer => {}
        }
        let now = clock::now();
        let action = state.deadline(limits);
        if let Some((deadline, action)) = action
            && deadline <= now
        {
            match action {
                DeadlineAction::RejectHead => {
                    return CloseReason::Rejected(RejectedHead::head_timeout(limits.header_timeout));
                }
                // A request may have arrived that has not been read yet.
                DeadlineAction::CloseIdle if socket.has_input() => yield_now().await,
                DeadlineAction::CloseIdle => return CloseReason::Idle,
                DeadlineAction::CheckPeer if socket.is_reset() => return CloseReason::Disconnected,
                DeadlineAction::CheckPeer => state.peer_seen(now),
            }
        }
        timer.set(deadline().unwrap_or(now + NO_DEADLINE));
    }
}

/// Returns why the parser has finished.
fn close_reason<T: Stream>(
    result: hyper::Result<()>,
    socket: &Socket<T>,
    state: &ConnectionState,
) -> CloseReason {
    let Err(error) = result else {
        return CloseReason::Closed;
    };
    let malformed = error.is_parse() || error.is_incomplete_message() && state.phase() == Phase::Head;
    match socket.rejected_status() {
        Some(431) if socket.content_length_overflows() => {
            CloseReason::Rejected(RejectedHead::content_length_overflow())
        }
        Some(status) => CloseReason::Rejected(RejectedHead::malformed(status, &error.to_string())),
        None if malformed && state.is_between_requests() => {
            CloseReason::Rejected(RejectedHead::malformed(400, &error.to_string()))
        }
        None => CloseReason::Closed,
    }
}
