//! The threads that serve connections. Each has its own runtime and its own instance of the application.
//!
//! The thread `http-accept` accepts connections and answers probes and other cheap requests itself. It reads no bodies of
//! predictions, so it is rarely busy. Before its first other request, a connection moves to the worker with the fewest
//! connections, and stays there. A connection over TLS moves before its handshake, since the state of TLS cannot move and a
//! handshake is expensive; so does one over HTTP/2, whose streams share it.

use std::io;
use std::net::{self, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use super::bridge::Application;
use super::connection::{self, Host, Inbound};
use super::listener::{self, Accepted};
use super::{Limits, Stage, secure_connection};
use crate::tls::Certificates;

/// Number of blocking threads per thread, for large bodies, large replies and compression.
const BLOCKING_THREADS: usize = 4;

/// A listening socket of the thread that accepts connections.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) permits: Arc<Semaphore>,
    pub(super) is_management: bool,
    /// See [`Host`].
    pub(super) accepts: Option<fn(&[u8]) -> bool>,
    /// Set if the port requires TLS.
    pub(super) tls: Option<Arc<Certificates>>,
}

/// All threads.
pub(super) struct Threads {
    acceptor: Thread,
    dispatcher: Dispatcher,
    workers: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<()>,
    heartbeat: mpsc::UnboundedSender<oneshot::Sender<()>>,
    finished: oneshot::Receiver<()>,
}

/// Asks all threads for a sign of life.
#[derive(Clone)]
pub struct Heartbeats(Arc<[mpsc::UnboundedSender<oneshot::Sender<()>>]>);

impl Heartbeats {
    /// Waits until the event loop of each thread has reacted. Threads that have exited are ignored.
    pub async fn wait_for_all(&self) {
        let reactions = self.0.iter().map(async |thread| {
            let (reply, reaction) = oneshot::channel();
            let _ = thread.send(reply);
            // An error means that the thread has exited.
            let _ = reaction.await;
        });
        join_all(reactions).await;
    }
}

/// What every thread is started with.
#[derive(Clone)]
pub(super) struct ThreadConfig<F> {
    /// Builds the instance of the application for a thread.
    pub(super) factory: F,
    pub(super) limits: Limits,
    pub(super) stages: watch::Receiver<Stage>,
}

/// Dispatches each connection to the worker with the fewest connections.
#[derive(Clone)]
struct Dispatcher(Arc<[Inbox]>);

struct Inbox {
    /// Bounded by the limit on open connections.
    connections: mpsc::UnboundedSender<(Moved, Load)>,
    load: Arc<AtomicUsize>,
}

/// A connection on its way to a worker.
struct Moved {
    inbound: Inbound<net::TcpStream>,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    /// Set if the connection starts with a handshake.
    tls: Option<Arc<Certificates>>,
}

/// Counts a connection of a worker until it is dropped.
struct Load(Arc<AtomicUsize>);

impl Load {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Dispatcher {
    fn dispatch(&self, moved: Moved) {
        let least_loaded = self
            .0
            .iter()
            .min_by_key(|inbox| inbox.load.load(Ordering::Relaxed));
        if let Some(inbox) = least_loaded {
            // If the worker has exited, the connection is closed.
            let _ = inbox.connections.send((moved, Load::new(&inbox.load)));
        }
    }
}

impl Threads {
    /// Starts the workers and the thread that accepts the connections of `listeners`.
    pub(super) fn start<F, A>(
        workers: NonZeroUsize,
        listeners: Vec<Listener>,
        config: &ThreadConfig<F>,
    ) -> io::Result<Self>
    where
        F: AsyncFn() -> A + Clone + Send + 'static,
        A: Application,
    {
        let mut inboxes = Vec::new();
        let mut threads = Vec::new();
        for number in 0..workers.get() {
            let (connections, inbox) = mpsc::unbounded_channel();
            // The operating system truncates thread names after 15 bytes.
            let name = format!("actix-http-{number}");
            threads.push(Thread::start(name, config, async |server| {
                work(&server, inbox).await
            })?);
            inboxes.push(Inbox {
                connections,
                load: Arc::default(),
            });
        }
        let dispatcher = Dispatcher(inboxes.into());
        let workers = dispatcher.clone();
        let acceptor = Thread::start("http-accept".to_owned(), config, async |server| {
            accept_all(&server, listeners, workers).await;
        })?;
        Ok(Self {
            acceptor,
            dispatcher,
            workers: threads,
        })
    }

    pub(super) fn heartbeats(&self) -> Heartbeats {
        let threads = std::iter::once(&self.acceptor).chain(&self.workers);
        Heartbeats(threads.map(|thread| thread.heartbeat.clone()).collect())
    }

    /// Returns a future per thread, which is ready when the thread exits.
    pub(super) fn exits(&mut self) -> impl Iterator<Item = impl Future<Output = ()>> {
        let threads = std::iter::once(&mut self.acceptor).chain(&mut self.workers);
        threads.map(async |thread| {
            // An error means that the thread panicked.
            let _ = (&mut thread.finished).await;
        })
    }

    /// Waits until all connections are closed and joins the threads. Must be called after [`Stage::Stopped`] was
    /// announced.
    pub(super) async fn join(self) {
        // Until then, connections can move to the workers.
        self.acceptor.join().await;
        drop(self.dispatcher);
        join_all(self.workers.into_iter().map(Thread::join)).await;
    }
}

impl Thread {
    fn start<F, A, W>(name: String, config: &ThreadConfig<F>, work: W) -> io::Result<Self>
    where
        F: AsyncFn() -> A + Clone + Send + 'static,
        A: Application,
        W: AsyncFnOnce(Rc<ThreadServer<A>>) + Send + 'static,
    {
        let (finish, finished) = oneshot::channel();
        let (heartbeat, requested_heartbeats) = mpsc::unbounded_channel();
        let config = config.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("http-blocking")
            .build()?;
        let handle = thread::Builder::new().name(name).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                spawn_local(give_signs_of_life(requested_heartbeats));
                let (open, mut all_closed) = mpsc::channel(1);
                let server = Rc::new(ThreadServer {
                    application: Rc::new((config.factory)().await),
                    limits: config.limits,
                    stages: config.stages,
                    open,
                });
                work(server).await;
                all_closed.recv().await;
            });
            // Results for disconnected clients are not needed.
            runtime.shutdown_background();
            // Fails if the server was dropped.
            let _ = finish.send(());
        })?;
        Ok(Self {
            handle,
            heartbeat,
            finished,
        })
    }

    async fn join(self) {
        // An error means that the thread panicked, which `join` reports.
        let _ = self.finished.await;
        if self.handle.join().is_err() {
            log::error!("HTTP thread panicked");
        }
    }
}

/// Answers each request for a sign of life.
async fn give_signs_of_life(mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    while let Some(reply) = requests.recv().await {
        // The asker may be gone.
        let _ = reply.send(());
    }
}

/// What the connections of one thread share.
struct ThreadServer<A> {
    application: Rc<A>,
    limits: Limits,
    stages: watch::Receiver<Stage>,
    /// Dropped when the last connection is closed.
    open: mpsc::Sender<()>,
}

impl<A: Application> ThreadServer<A> {
    fn host(&self, is_management: bool, accepts: Option<fn(&[u8]) -> bool>) -> Rc<Host<A>> {
        Rc::new(Host {
            application: self.application.clone(),
            limits: self.limits.clone(),
            is_management,
            accepts,
        })
    }
}

/// Serves connections until the inbox is closed.
async fn work<A: Application>(server: &ThreadServer<A>, mut inbox: mpsc::UnboundedReceiver<(Moved, Load)>) {
    let host = server.host(false, None);
    while let Some((moved, load)) = inbox.recv().await {
        let Moved {
            inbound,
            peer,
            permit,
            tls,
        } = moved;
        let Ok(inbound) = inbound.map(TcpStream::from_std) else {
            // The client has already disconnected.
            continue;
        };
        let (host, stages, open) = (host.clone(), server.stages.clone(), server.open.clone());
        spawn_local(async move {
            match tls {
                // Boxed, because connections without TLS have no such future.
                Some(certificates) => {
                    let stream = inbound.stream;
                    Box::pin(secure_connection::serve(
                        stream,
                        peer,
                        host,
                        stages,
                        &certificates,
                    ))
                    .await;
                }
                None => drop(connection::serve(inbound, peer, host, stages).await),
            }
            drop((permit, load, open));
        });
    }
}

/// Accepts connections until the server stops.
async fn accept_all<A: Application>(server: &ThreadServer<A>, listeners: Vec<Listener>, workers: Dispatcher) {
    let accepting = listeners.into_iter().map(|listener| {
        let host = server.host(listener.is_management, listener.accepts);
        let workers = &workers;
        let serve = move |accepted: Accepted| {
            if let Some(certificates) = &listener.tls {
                return move_before_handshake(accepted, certificates, workers);
            }
            let (host, stages, open) = (host.clone(), server.stages.clone(), server.open.clone());
            let workers = workers.clone();
            spawn_local(async move {
                serve_or_move(accepted, host, stages, &workers).await;
                drop(open);
            });
        };
        async move {
            let stages = server.stages.clone();
            if let Err(error) = listener::accept(listener.socket, listener.permits, stages, serve).await {
                log::error!("cannot accept connections: {error}");
            }
        }
    });
    join_all(accepting).await;
}

/// Moves a new connection to a worker, which runs the handshake.
fn move_before_handshake(accepted: Accepted, certificates: &Arc<Certificates>, workers: &Dispatcher) {
    let Accepted { stream, peer, permit } = accepted;
    // An error means that the client has already disconnected.
    if stream.set_nodelay(true).is_ok()
        && let Ok(stream) = stream.into_std()
    {
        workers.dispatch(Moved {
            inbound: Inbound::new(stream),
            peer,
            permit,
            tls: Some(certificates.clone()),
        });
    }
}

/// Serves a new connection until it is closed or moves to a worker.
async fn serve_or_move<A: Application>(
    accepted: Accepted,
    host: Rc<Host<A>>,
    stages: watch::Receiver<Stage>,
    workers: &Dispatcher,
) {
    let Accepted { stream, peer, permit } = accepted;
    if stream.set_nodelay(true).is_err() {
        // The client has already disconnected.
        return;
    }
    let Some(inbound) = connection::serve(Inbound::new(stream), peer, host, stages).await else {
        return;
    };
    if let Ok(inbound) = inbound.map(TcpStream::into_std) {
        workers.dispatch(Moved {
            inbound,
            peer,
            permit,
            tls: None,
        });
    }
}
