//! Serves one connection, from its first byte to its close.

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
use super::connection_state::{Due, Exchange, Phase};
use super::rejected_head::{MAX_HEAD_SIZE, Refusal};
use super::socket::{ParserSide, Remains, Socket, Stream};
use super::{Limits, Stage};
use crate::clock;

/// How long a client may keep sending after its last reply. Closing earlier would reset the connection, and the client
/// might lose the reply.
const LINGER: Duration = Duration::from_secs(2);

/// A timer that is re-armed before it fires, while nothing is due.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

type Connection<T> = http1::Connection<TokioIo<ParserSide<T>>, Bridge>;

/// Why a connection ends.
enum End {
    /// A reply ended it, or the client.
    Closed,
    /// Nothing was received for too long.
    Idle,
    /// The client left without waiting for its reply.
    Left,
    /// A request was rejected before it reached the application.
    Refused(Refusal),
}

/// Serves `stream` until it is closed.
pub(super) async fn serve<T: Stream + 'static>(
    stream: T,
    peer: SocketAddr,
    application: Application,
    limits: Rc<Limits>,
    mut stages: watch::Receiver<Stage>,
) {
    let exchange = Rc::new(Exchange::new(clock::now()));
    exchange.set_stage(*stages.borrow_and_update());
    let socket = Rc::new(Socket::new(stream, exchange.clone()));
    let bridge = Bridge {
        application,
        exchange: exchange.clone(),
        peer,
    };
    let end = {
        let io = TokioIo::new(ParserSide(socket.clone()));
        let connection = pin!(
            http1::Builder::new()
                // Whether the end of the stream ends a request is decided here.
                .half_close(true)
                .keep_alive(!limits.keep_alive.is_zero())
                .max_header_size(MAX_HEAD_SIZE)
                .header_read_timeout(None::<Duration>)
                .serve_connection(io, bridge)
        );
        // Dropped here, and with it the application's work for a client that has left.
        run(connection, &socket, &exchange, &limits, &mut stages).await
    };
    let mut remains = Remains(socket);
    match end {
        End::Idle | End::Left => {}
        End::Closed => {
            if exchange.has_replied() && !exchange.has_ended() && !exchange.is_broken() {
                linger(&mut remains).await;
            }
        }
        End::Refused(refusal) => {
            log::debug!("rejected a request of {peer}: {refusal:?}");
            let written = timeout(LINGER, remains.write_all(&refusal.write(limits.any_origin))).await;
            if matches!(written, Ok(Ok(()))) {
                linger(&mut remains).await;
            }
        }
    }
}

/// Sends the end of the stream, and discards what the client still sends until it closes.
async fn linger<T: Stream>(remains: &mut Remains<T>) {
    let discard = async {
        remains.shutdown().await?;
        let mut discarded = vec![0; 16 * 1024];
        while remains.read(&mut discarded).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, the connection is closed now.
    let _ = timeout(LINGER, discard).await;
}

/// Runs the parser and the application, with the time limits that hold in each phase.
async fn run<T: Stream + 'static>(
    mut connection: Pin<&mut Connection<T>>,
    socket: &Socket<T>,
    exchange: &Exchange,
    limits: &Limits,
    stages: &mut watch::Receiver<Stage>,
) -> End {
    let mut timer = pin!(sleep_until((clock::now() + limits.header_timeout).into()));
    let mut stopped = false;
    loop {
        let armed: Instant = timer.deadline().into();
        // Ready with none when the timer must fire earlier than it is armed for. That is rare: requests that arrive at
        // once do not touch the timer.
        let progress = poll_fn(|context| {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(Some(end_of(result, socket, exchange)));
            }
            if socket.poll_left(context).is_ready() {
                return Poll::Ready(Some(End::Left));
            }
            match exchange.deadline(limits) {
                Some((deadline, _)) if deadline < armed => Poll::Ready(None),
                _ => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            // Before requests are served, so that no reply misses it.
            changed = stages.changed(), if !stopped => {
                let stage = match changed {
                    Ok(()) => *stages.borrow_and_update(),
                    // The server was dropped.
                    Err(_) => Stage::Stopped,
                };
                stopped = stage == Stage::Stopped;
                exchange.set_stage(stage);
            }
            progress = progress => {
                if let Some(end) = progress {
                    return end;
                }
            }
            () = timer.as_mut() => {}
        }
        let now = clock::now();
        let due = exchange.deadline(limits);
        if let Some((deadline, due)) = due
            && deadline <= now
        {
            match due {
                Due::LateHead => return End::Refused(Refusal::late_head(limits.header_timeout)),
                // A request may have arrived that has not been read yet.
                Due::Idle if socket.has_input() => yield_now().await,
                Due::Idle => return End::Idle,
                Due::CheckPeer if socket.is_reset() => return End::Left,
                Due::CheckPeer => exchange.peer_seen(now),
            }
        }
        let next = exchange
            .deadline(limits)
            .map_or(now + FAR, |(deadline, _)| deadline);
        timer.as_mut().reset(next.into());
    }
}

/// Why the parser has finished.
fn end_of<T: Stream>(result: hyper::Result<()>, socket: &Socket<T>, exchange: &Exchange) -> End {
    let Err(error) = result else {
        return End::Closed;
    };
    let malformed = error.is_parse() || error.is_incomplete_message() && exchange.phase() == Phase::Head;
    match socket.refusal() {
        Some(431) if socket.announces_too_much() => End::Refused(Refusal::too_large()),
        Some(status) => End::Refused(Refusal::malformed(status, &error.to_string())),
        None if malformed && exchange.is_between_requests() => {
            End::Refused(Refusal::malformed(400, &error.to_string()))
        }
        None => End::Closed,
    }
}
