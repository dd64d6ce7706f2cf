//! Connections: listening, accepting up to a limit, and serving HTTP/1.1 on each connection until it closes.
//!
//! hyper parses and writes HTTP; actix-web routes. [`bridge`] translates between the two. hyper is used directly because
//! actix's own dispatcher keeps one connection type per connection: an upgrade offer that is not accepted ends the
//! connection, and a pipelined request changes how the reply before it treats the connection.
//!
//! One task accepts, on the runtime of the caller. Each of the worker threads has its own runtime and its own instance of
//! the application; a connection stays on the worker it was given to. Nothing here knows routes or protocols above HTTP.
//!
//! # Clients that leave
//! While a request is being answered, the connection is still read, so that a client that leaves is noticed and its
//! request is cancelled. A reset cancels at once. The end of the stream (FIN) is ambiguous: a client that closed and a
//! client that closed only its sending half look the same until something is written to them. The end of the stream
//! within [`HALF_CLOSE_WINDOW`] of the last byte of the request counts as a half-close, and the request is answered. Any
//! later one counts as a client that gave up. See [`connection_state`].
//!
//! # Draining
//! From [`Stage::Draining`] on, every reply carries `connection: close`, and connections are still accepted.
//! At [`Stage::Stopped`] the backlog is accepted one last time, the listeners are closed, idle connections are closed, and
//! requests in progress are answered.

mod bridge;
mod connection;
mod connection_state;
mod listener;
mod rejected_head;
mod socket;
mod worker_threads;

use std::fmt::Debug;
use std::io::Result;
use std::net::SocketAddr;
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

/// Limits of the connections.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Maximum number of open connections.
    pub(super) max_connections: NonZeroUsize,
    /// How long a connection may be idle between requests; zero closes each after its reply.
    pub(super) keep_alive: Duration,
    /// Maximum time for the head of a request to arrive.
    pub(super) header_timeout: Duration,
    /// Whether web pages of any origin may read replies, including those to requests that could not be parsed.
    pub(super) any_origin: bool,
}

/// The end of the stream this soon after the last byte of a request is a half-close: the client waits for its reply.
const HALF_CLOSE_WINDOW: Duration = Duration::from_millis(100);

/// How far the server has shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Still accepts connections and answers requests, and asks every client to reconnect.
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
    /// Listens on `address` and serves the application that `factory` builds, once for each of `threads` workers. Must be
    /// called within a tokio runtime, which then accepts the connections.
    ///
    /// # Errors
    /// The address cannot be listened on, or a thread cannot be started.
    pub(super) fn start<F, I, S, B>(
        address: (&str, u16),
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
        let listeners = listener::bind(address)?;
        let addresses = listeners
            .iter()
            .map(|listener| listener.local_addr())
            .collect::<Result<_>>()?;
        let (stage, stages) = watch::channel(Stage::Serving);
        let places = listener::places(limits.max_connections);
        let workers = Workers::start(threads, &limits, &stages, factory)?;
        let acceptors = listeners
            .into_iter()
            .map(|listener| {
                let accepting =
                    listener::accept(listener, places.clone(), workers.dispatcher(), stages.clone())?;
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

    /// The addresses it listens on.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Adds `connection: close` to every reply from now on.
    pub(super) fn start_draining(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Waits until an acceptor or a worker has ended although nobody asked it to, as by a panic. Cancel-safe.
    pub(super) async fn failed(&mut self) {
        let acceptors = self
            .acceptors
            .iter_mut()
            .map(|acceptor| acceptor.map(drop).boxed_local());
        let workers = self.workers.ended().map(FutureExt::boxed_local);
        select_all(acceptors.chain(workers)).await;
    }

    /// Stops accepting, closes idle connections, and waits until every accepted request is answered or `deadline` has
    /// passed. Returns whether all were answered.
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
    use actix_web::App;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_cannot_start_is_noticed() {
        let limits = Limits {
            max_connections: NonZeroUsize::MIN,
            keep_alive: Duration::from_secs(1),
            header_timeout: Duration::from_secs(1),
            any_origin: false,
        };
        let factory = || {
            assert!(
                std::thread::current().name() == Some("main"),
                "no application here"
            );
            App::new()
        };
        let started = Transport::start(("127.0.0.1", 0), limits, NonZeroUsize::MIN, factory);
        let mut transport = started.expect("it listens");
        transport.failed().await;
    }
}
