//! The transport: listens, accepts connections up to a limit, and serves HTTP/1.1 or HTTP/2 on each connection until it
//! closes, with or without TLS.
//!
//! hyper parses and writes HTTP, and [`bridge`] passes requests to the application. hyper is used directly because
//! actix's dispatcher keeps one connection type per connection: an `upgrade` header that is not
//! accepted closes the connection, and a pipelined request affects whether the connection is kept after the preceding
//! reply.
//!
//! Each thread has its own runtime and its own instance of the application. One thread accepts connections and answers
//! the requests that the application wants to be answered promptly; see [`worker_threads`]. The transport does not know
//! routes or protocols above HTTP.
//!
//! # Versions
//! Over TLS, client and server negotiate the version with ALPN. Without TLS, and over TLS without ALPN, a client that knows
//! that the server speaks HTTP/2 starts with its preface; see [`version`]. [`connection`] serves HTTP/1.1 and [`http2`]
//! HTTP/2, with the same limits, the same draining, and the same requests for the application.
//!
//! # Disconnects
//! While a request is being answered, the connection is still read, so that a disconnect is noticed and cancels the
//! request. A reset cancels it immediately. The end of the stream (FIN) is ambiguous: a client that has closed the
//! connection and one that has closed only its sending half look the same until something is written to them. An end
//! of stream within `HALF_CLOSE_WINDOW` of the last byte of the request counts as a half-close, and the request is
//! answered. A later one counts as a disconnect. See [`connection_state`]. Over HTTP/2, the end of the stream is always a
//! disconnect, since no client half-closes it.
//!
//! # Draining
//! From `Stage::Draining` on, every reply has `connection: close`, or follows GOAWAY, and connections are still accepted. At
//! `Stage::Stopped`, the transport accepts the backlog one last time, closes the listeners and idle connections, and
//! answers the requests in progress.

mod bodies;
mod bridge;
mod connection;
mod connection_state;
mod connection_timer;
mod http2;
mod http2_socket;
mod http2_state;
mod http2_streams;
mod listener;
mod rejected_head;
mod secure_connection;
mod socket;
mod version;
mod worker_threads;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::sync::watch;

use crate::tls::Certificates;
use worker_threads::{Listener, ThreadConfig, Threads};

pub(super) use bridge::{Application, ReceivedRequest};
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
pub(super) const HALF_CLOSE_WINDOW: Duration = Duration::from_millis(100);

/// The stages of shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Still accepts connections and answers requests, but closes each connection after its reply.
    Draining,
    /// Finishes the requests in progress.
    Stopped,
}

/// Listening sockets.
pub(super) struct Sockets {
    pub(super) main: Vec<TcpListener>,
    pub(super) management: Vec<TcpListener>,
    /// The certificate of `main`, if that requires TLS. `management` never does.
    pub(super) tls: Option<Arc<Certificates>>,
}

/// Listening sockets and the threads that serve their connections.
pub(super) struct Transport {
    addresses: Vec<SocketAddr>,
    management_addresses: Vec<SocketAddr>,
    stage: watch::Sender<Stage>,
    threads: Threads,
}

impl Transport {
    /// Serves connections to `sockets` with the application that `factory` builds, once for each thread. Requests that
    /// start with bytes for which `is_urgent` is true are answered by the thread that accepts connections, and so are
    /// all requests at the management port.
    ///
    /// # Errors
    /// If a socket cannot be used or a thread cannot be started.
    pub(super) fn start<F, A>(
        sockets: Sockets,
        limits: Limits,
        workers: NonZeroUsize,
        is_urgent: fn(&[u8]) -> bool,
        factory: F,
    ) -> io::Result<Self>
    where
        F: AsyncFn() -> A + Clone + Send + 'static,
        A: Application,
    {
        let Sockets {
            main,
            management,
            tls,
        } = sockets;
        let local_addresses = |sockets: &[TcpListener]| -> io::Result<Vec<SocketAddr>> {
            sockets.iter().map(TcpListener::local_addr).collect()
        };
        let (main_addresses, management_addresses) = (local_addresses(&main)?, local_addresses(&management)?);
        let permits = || listener::connection_permits(limits.max_connections);
        // Each port has its own limit, so that clients of one cannot use up the connections of the other.
        let (main_permits, management_permits) = (permits(), permits());
        let main = main.into_iter().map(|socket| Listener {
            socket,
            permits: main_permits.clone(),
            is_management: false,
            accepts: Some(is_urgent),
            tls: tls.clone(),
        });
        let management = management.into_iter().map(|socket| Listener {
            socket,
            permits: management_permits.clone(),
            is_management: true,
            accepts: None,
            tls: None,
        });
        let listeners = main.chain(management).collect();
        let (stage, stages) = watch::channel(Stage::Serving);
        let config = ThreadConfig {
            factory,
            limits,
            stages,
        };
        Ok(Self {
            addresses: main_addresses,
            management_addresses,
            stage,
            threads: Threads::start(workers, listeners, &config)?,
        })
    }

    /// The addresses that the transport listens on.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The addresses of the management port.
    pub(super) fn management_addresses(&self) -> &[SocketAddr] {
        &self.management_addresses
    }

    /// Signs of life of the threads.
    pub(super) fn heartbeats(&self) -> Heartbeats {
        self.threads.heartbeats()
    }

    /// Closes each connection after its reply from now on.
    pub(super) fn start_draining(&self) {
        self.stage.send_replace(Stage::Draining);
    }

    /// Waits until a thread exits unexpectedly, for example by a panic. Cancel-safe.
    pub(super) async fn failed(&mut self) {
        select_all(self.threads.exits().map(FutureExt::boxed_local)).await;
    }

    /// Stops accepting, closes idle connections, and waits until every accepted request is answered or `deadline`
    /// passes. Returns whether all requests were answered.
    pub(super) async fn stop(self, deadline: Instant) -> bool {
        self.stage.send_replace(Stage::Stopped);
        tokio::time::timeout_at(deadline.into(), self.threads.join())
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::rc::Rc;
    use std::sync::{Mutex, mpsc};

    use actix_web::HttpResponse;
    use actix_web::body::BoxBody;

    use super::*;
    use crate::clock;

    /// Blocks the event loop with its requests.
    struct Blocking {
        reached: tokio::sync::mpsc::UnboundedSender<()>,
        /// Until the sender is dropped.
        released: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Application for Blocking {
        type Body = BoxBody;

        async fn answer(self: Rc<Self>, _: ReceivedRequest) -> HttpResponse {
            let _ = self.reached.send(());
            let _ = self.released.lock().map(|released| released.recv());
            HttpResponse::Ok().finish()
        }
    }

    fn limits() -> Limits {
        Limits {
            max_connections: NonZeroUsize::MIN,
            keep_alive: Duration::from_secs(1),
            header_timeout: Duration::from_secs(1),
            any_origin: false,
        }
    }

    fn sockets() -> Sockets {
        Sockets {
            main: bind(("127.0.0.1", 0)).expect("a port is free"),
            management: Vec::new(),
            tls: None,
        }
    }

    async fn a_stuck_thread_gives_no_sign_of_life(is_urgent: fn(&[u8]) -> bool) {
        let (reached, mut is_reached) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let factory = async move || Blocking {
            reached: reached.clone(),
            released: released.clone(),
        };
        let started = Transport::start(sockets(), limits(), NonZeroUsize::MIN, is_urgent, factory);
        let transport = started.expect("the threads start");
        let heartbeats = transport.heartbeats();
        heartbeats.wait_for_all().await;

        let mut client = std::net::TcpStream::connect(transport.addresses()[0]).expect("it listens");
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            .expect("it reads");
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
    async fn a_worker_that_is_stuck_gives_no_sign_of_life() {
        a_stuck_thread_gives_no_sign_of_life(|_| false).await;
    }

    #[tokio::test]
    async fn an_acceptor_that_is_stuck_gives_no_sign_of_life() {
        a_stuck_thread_gives_no_sign_of_life(|_| true).await;
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_noticed() {
        let factory = async || -> Blocking {
            assert!(
                std::thread::current().name() == Some("main"),
                "no application on this thread"
            );
            unreachable!("this thread is not the main thread")
        };
        let started = Transport::start(sockets(), limits(), NonZeroUsize::MIN, |_| true, factory);
        let mut transport = started.expect("the threads start");
        transport.failed().await;
    }
}
