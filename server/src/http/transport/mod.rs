//! The transport: listens, accepts connections up to a limit, and serves HTTP/1.1 on each connection until it closes.
//!
//! hyper parses and writes HTTP, actix-web routes requests, and [`bridge`] converts between their types. hyper is
//! used directly because actix's dispatcher keeps one connection type per connection: an `upgrade` header that is not
//! accepted closes the connection, and a pipelined request affects whether the connection is kept after the preceding
//! reply.
//!
//! One task per listening socket accepts connections, on the runtime of the caller. Each worker thread has its own
//! runtime and its own instance of the application. A connection stays on the worker that it was dispatched to. The
//! transport does not know routes or protocols above HTTP.
//!
//! # Disconnects
//! While a request is being answered, the connection is still read, so that a disconnect is noticed and cancels the
//! request. A reset cancels it immediately. The end of the stream (FIN) is ambiguous: a client that has closed the
//! connection and one that has closed only its sending half look the same until something is written to them. An end
//! of stream within `HALF_CLOSE_WINDOW` of the last byte of the request counts as a half-close, and the request is
//! answered. A later one counts as a disconnect. See [`connection_state`].
//!
//! # Draining
//! From `Stage::Draining` on, every reply has `connection: close`, and connections are still accepted. At
//! `Stage::Stopped`, the transport accepts the backlog one last time, closes the listeners and idle connections, and
//! answers the requests in progress.

mod bridge;
mod connection;
mod connection_state;
mod listener;
mod rejected_head;
mod socket;
mod worker_threads;

use std::fmt::Debug;
use std::io::Result;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use actix_http::Request;
use actix_service::{IntoServiceFactory, ServiceFactory};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use futures_util::FutureExt;
use futures_util::future::{join_all, select_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use worker_threads::Workers;

pub(super) use listener::bind;
pub use worker_threads::Heartbeats;

/// Limits of the connections.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Maximum number of open connections.
    pub(super) max_connections: NonZeroUsize,
    /// Maximum idle time of a connection between requests. Zero closes the connection after each reply.
    pub(super) keep_alive: Duration,
    /// Maximum time for the head of a request to arrive.
    pub(super) header_timeout: Duration,
    /// Whether web pages of any origin can read replies, including replies to malformed requests.
    pub(super) any_origin: bool,
}

/// Maximum time between the last byte of a request and the end of the stream for a half-close, after which the client
/// waits for its reply.
const HALF_CLOSE_WINDOW: Duration = Duration::from_millis(100);

/// The stages of shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Still accepts connections and answers requests, but closes each connection after its reply.
    Draining,
    /// Finishes the requests in progress.
    Stopped,
}

/// Listening sockets and the threads that serve their connections.
pub(super) struct Transport {
    addresses: Vec<SocketAddr>,
    stage: watch::Sender<Stage>,
    acceptors: Vec<JoinHandle<()>>,
    workers: Workers,
}

impl Transport {
    /// Serves connections to `listeners` with the application that `factory` builds, once for each of `threads` workers.
    /// Must be called in a Tokio runtime, which accepts the connections.
    ///
    /// # Errors
    /// If a socket cannot be used or a thread cannot be started.
    pub(super) fn start<F, I, S, B>(
        listeners: Vec<TcpListener>,
        limits: Limits,
        threads: NonZeroUsize,
        factory: F,
    ) -> Result<Self>
    where
        F: Fn() -> I + Clone + Send + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error>
            + 'static,
        S::InitError: Debug,
        B: MessageBody + 'static,
    {
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr())
            .collect::<Result<_>>()?;
        let (stage, stages) = watch::channel(Stage::Serving);
        let permits = listener::connection_permits(limits.max_connections);
        let workers = Workers::start(threads, &limits, &stages, factory)?;
        let acceptors = listeners
            .into_iter()
            .map(|listener| {
                let accepting =
                    listener::accept(listener, permits.clone(), workers.dispatcher(), stages.clone())?;
                Ok(tokio::spawn(accepting))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            addresses,
            stage,
            acceptors,
            workers,
        })
    }

    /// The addresses that the transport listens on.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Signs of life of the workers.
    pub(super) fn heartbeats(&self) -> Heartbeats {
        self.workers.heartbeats()
    }

    /// Adds `connection: close` to every reply from now on.
    pub(super) fn start_draining(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Waits until an acceptor or a worker exits unexpectedly, for example by a panic. Cancel-safe.
    pub(super) async fn failed(&mut self) {
        let acceptors = self
            .acceptors
            .iter_mut()
            .map(|acceptor| acceptor.map(drop).boxed_local());
        let workers = self.workers.exits().map(FutureExt::boxed_local);
        select_all(acceptors.chain(workers)).await;
    }

    /// Stops accepting, closes idle connections, and waits until every accepted request is answered or `deadline`
    /// passes. Returns whether all requests were answered.
    pub(super) async fn stop(self, deadline: Instant) -> bool {
        self.stage.send_replace(Stage::Stopped);
        let acceptors = self.acceptors;
        let workers = self.workers;
        let stopped = async {
            join_all(acceptors).await;
            workers.join().await;
        };
        tokio::time::timeout_at(deadline.into(), stopped).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;
    use std::sync::{Arc, Mutex};

    use actix_web::{App, HttpResponse, web};

    use super::*;
    use crate::clock;

    fn limits() -> Limits {
        Limits {
            max_connections: NonZeroUsize::MIN,
            keep_alive: Duration::from_secs(1),
            header_timeout: Duration::from_secs(1),
            any_origin: false,
        }
    }

    #[tokio::test]
    async fn a_worker_that_is_stuck_gives_no_sign_of_life() {
        let (reached, is_reached) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let factory = move || {
            let (reached, released) = (reached.clone(), released.clone());
            let block = move || {
                let _ = reached.send(());
                // Blocks the event loop until the sender is dropped.
                let _ = released.lock().map(|released| released.recv());
                async { HttpResponse::Ok() }
            };
            App::new().route("/", web::get().to(block))
        };
        let listeners = bind(("127.0.0.1", 0)).expect("a port is free");
        let transport = Transport::start(listeners, limits(), NonZeroUsize::MIN, factory).expect("it starts");
        let heartbeats = transport.heartbeats();
        heartbeats.wait_for_all().await;

        let mut client = std::net::TcpStream::connect(transport.addresses()[0]).expect("it listens");
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .expect("it reads");
        let mut is_reached = is_reached;
        is_reached.recv().await.expect("the handler runs");
        let stuck = heartbeats.wait_for_all();
        tokio::pin!(stuck);
        assert!(
            tokio::time::timeout(Duration::from_millis(50), &mut stuck)
                .await
                .is_err()
        );
        drop(release);
        stuck.await;

        drop(client);
        let deadline = clock::now() + Duration::from_secs(60);
        assert!(transport.stop(deadline).await);
        // Nothing is left that could be stuck.
        heartbeats.wait_for_all().await;
    }

    #[tokio::test]
    async fn a_worker_that_panics_is_noticed() {
        let limits = limits();
        let factory = || {
            assert!(
                std::thread::current().name() == Some("main"),
                "no application on this thread"
            );
            App::new()
        };
        let listeners = bind(("127.0.0.1", 0)).expect("a port is free");
        let started = Transport::start(listeners, limits, NonZeroUsize::MIN, factory);
        let mut transport = started.expect("the threads start");
        transport.failed().await;
    }
}
