//! Serves HTTP/2 on one connection until it closes.
//!
//! Every stream is a task of the same thread, so a connection occupies one worker. What a client can make the server hold is
//! bounded: the number of streams, the size of their heads, and the bytes that were received but not read yet, which are
//! at most one window of the connection. A body that is read counts toward the budget of bytes like any other.
//!
//! A connection is closed with GOAWAY: after `keep_alive` without a stream, and from [`Stage::Draining`] on, once it has
//! received a request. The client then opens no more streams, and those that are open are answered.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::sleep_until;

use super::bridge::Application;
use super::connection::{Host, Inbound, linger};
use super::connection_timer::{ConnectionTimer, Wakeup};
use super::http2_socket::{Http2Socket, SocketHandle};
use super::http2_state::{Action, Http2State};
use super::http2_streams::Http2Streams;
use super::socket::Stream;
use super::{Limits, Stage};
use crate::clock;

/// Maximum number of concurrent requests on a connection.
const MAX_STREAMS: u32 = 128;

/// Bytes of all bodies on a connection that a client may send before the application has read them.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The same for one body. Less than [`CONNECTION_WINDOW`], so that one body that is not read cannot block the others.
const STREAM_WINDOW: u32 = 512 * 1024;

/// Maximum size of the head of a request, as HTTP/2 counts it: 32 bytes for each header field, its name and its value.
const MAX_HEAD_SIZE: u32 = 64 * 1024;

/// Size above which a reply is not passed on before the client has received more of it.
const SEND_BUFFER: usize = 256 * 1024;

/// Maximum number of streams that the client has reset and that were not accepted yet.
const MAX_PENDING_RESETS: usize = 20;

/// Maximum number of streams that the server has reset because of errors of the client.
const MAX_ERROR_RESETS: usize = 256;

/// Interval of pings, which discover that a client has disappeared.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum time for the answer to a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval for checking a connection that has no deadline now.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

type Connection<T, A> = http2::Connection<TokioIo<SocketHandle<T>>, Http2Streams<A>, LocalExecutor>;

/// Runs each stream on this thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, stream: F) {
        spawn_local(stream);
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All streams have ended, or the client broke the protocol or disconnected.
    Finished,
    /// It has to be closed without waiting for the client.
    Abandoned,
}

/// Serves a connection until it is closed.
pub(super) async fn serve<T: Stream + 'static, A: Application>(
    inbound: Inbound<T>,
    peer: SocketAddr,
    host: &Host<A>,
    mut stages: watch::Receiver<Stage>,
) {
    let limits = &host.limits;
    let state = Rc::new(Http2State::new(clock::now()));
    state.set_stage(*stages.borrow_and_update());
    let socket = Rc::new(Http2Socket::new(inbound, state.clone()));
    let end = {
        let streams = Http2Streams {
            application: host.application.clone(),
            connection: state.clone(),
            peer,
            is_management: host.is_management,
        };
        let io = TokioIo::new(SocketHandle(socket.clone()));
        let connection = pin!(
            http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_stream_window_size(STREAM_WINDOW)
                .max_header_list_size(MAX_HEAD_SIZE)
                .max_send_buf_size(SEND_BUFFER)
                .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
                .max_local_error_reset_streams(MAX_ERROR_RESETS)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(io, streams)
        );
        run(connection, peer, &state, limits, &mut stages).await
    };
    if end == End::Finished {
        // Frames that the client has sent meanwhile, such as acknowledgments, would otherwise reset the connection, and the
        // client could lose the last reply.
        linger(&mut SocketHandle(socket)).await;
    }
}

/// Runs the connection with its deadlines.
async fn run<T: Stream + 'static, A: Application>(
    mut connection: Pin<&mut Connection<T, A>>,
    peer: SocketAddr,
    state: &Http2State,
    limits: &Limits,
    stages: &mut watch::Receiver<Stage>,
) -> End {
    let sleep = pin!(sleep_until((clock::now() + limits.header_timeout).into()));
    let mut timer = ConnectionTimer::new(sleep, stages);
    loop {
        let poll = |context: &mut Context<'_>| connection.as_mut().poll(context);
        let deadline = || state.next(limits).map(|(deadline, _)| deadline);
        match timer.wait(poll, deadline).await {
            Wakeup::End(result) => {
                if let Err(error) = result {
                    log::debug!("HTTP/2 connection with {peer}: {error}");
                }
                return End::Finished;
            }
            Wakeup::Stage(stage) => state.set_stage(stage),
            Wakeup::Timer => {}
        }
        let now = clock::now();
        match state.next(limits) {
            Some((deadline, Action::Close)) if deadline <= now => {
                log::debug!("closing the HTTP/2 connection with {peer}: {state}");
                return End::Abandoned;
            }
            Some((deadline, Action::Finish)) if deadline <= now => {
                connection.as_mut().graceful_shutdown();
                state.finishing(now);
            }
            _ => {}
        }
        timer.set(deadline().unwrap_or(now + CHECK_INTERVAL.max(limits.keep_alive)));
    }
}
