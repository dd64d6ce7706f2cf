//! Serves one connection until it closes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::bridge::{Application, Bridge};
use super::connection_state::{ConnectionState, DeadlineAction, Phase};
use super::rejected_head::{MAX_HEAD_SIZE, RejectedHead};
use super::socket::{ParserSide, RawSocket, Socket, Stream};
use super::{Limits, Stage};
use crate::clock;

/// Maximum time that the server keeps reading after the last reply. Closing the connection earlier would reset it,
/// and the client could lose the reply.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Duration of the timer if there is no deadline. It is reset before it fires.
const NO_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

type Connection<T> = http1::Connection<TokioIo<ParserSide<T>>, Bridge>;

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
}

/// Serves `stream` until it is closed.
pub(super) async fn serve<T: Stream + 'static>(
    stream: T,
    peer: SocketAddr,
    application: Application,
    limits: Rc<Limits>,
    mut stages: watch::Receiver<Stage>,
) {
    let state = Rc::new(ConnectionState::new(clock::now()));
    state.set_stage(*stages.borrow_and_update());
    let socket = Rc::new(Socket::new(stream, state.clone()));
    let bridge = Bridge {
        application,
        state: state.clone(),
        peer,
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
        run(connection, &socket, &state, &limits, &mut stages).await
    };
    let mut raw_socket = RawSocket(socket);
    match end {
        CloseReason::Idle | CloseReason::Disconnected => {}
        CloseReason::Closed => {
            if state.has_replied() && !state.has_ended() && !state.is_broken() {
                linger(&mut raw_socket).await;
            }
        }
        CloseReason::Rejected(rejected) => {
            log::debug!("rejected a request from {peer}: {rejected:?}");
            let written = timeout(
                LINGER_TIMEOUT,
                raw_socket.write_all(&rejected.write(limits.any_origin)),
            )
            .await;
            if matches!(written, Ok(Ok(()))) {
                linger(&mut raw_socket).await;
            }
        }
    }
}

/// Closes the sending half, and discards input until the client closes the connection.
async fn linger<T: Stream>(raw_socket: &mut RawSocket<T>) {
    let discard = async {
        raw_socket.shutdown().await?;
        let mut discarded = vec![0; 16 * 1024];
        while raw_socket.read(&mut discarded).await? > 0 {}
        std::io::Result::Ok(())
    };
    // The connection is closed afterwards in any case.
    let _ = timeout(LINGER_TIMEOUT, discard).await;
}

/// Runs the parser and the application, with the time limit of each phase.
async fn run<T: Stream + 'static>(
    mut connection: Pin<&mut Connection<T>>,
    socket: &Socket<T>,
    state: &ConnectionState,
    limits: &Limits,
    stages: &mut watch::Receiver<Stage>,
) -> CloseReason {
    let mut timer = pin!(sleep_until((clock::now() + limits.header_timeout).into()));
    let mut stopped = false;
    loop {
        let armed: Instant = timer.deadline().into();
        // Ready with `None` if the timer must fire earlier than its current deadline. This is rare: a request that
        // arrives in one packet does not affect the timer.
        let progress = poll_fn(|context| {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(close_reason(result, socket, state)));
            }
            if socket.poll_disconnect(context).is_ready() {
                return Poll::Ready(Some(CloseReason::Disconnected));
            }
            match state.deadline(limits) {
                Some((deadline, _)) if deadline < armed => Poll::Ready(None),
                _ => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            // Polled before requests are served, so that every reply takes the stage into account.
            changed = stages.changed(), if !stopped => {
                let stage = match changed {
                    Ok(()) => *stages.borrow_and_update(),
                    // The server was dropped.
                    Err(_) => Stage::Stopped,
                };
                stopped = stage == Stage::Stopped;
                state.set_stage(stage);
            }
            progress = progress => {
                if let Some(end) = progress {
                    return end;
                }
            }
            () = timer.as_mut() => {}
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
        let next = state
            .deadline(limits)
            .map_or(now + NO_DEADLINE, |(deadline, _)| deadline);
        timer.as_mut().reset(next.into());
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
