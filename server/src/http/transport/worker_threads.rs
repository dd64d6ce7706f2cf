//! The threads that serve connections. Each has its own runtime and its own instance of the application.

use std::fmt::Debug;
use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use actix_http::Request;
use actix_service::{IntoServiceFactory, ServiceFactory};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServiceResponse};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use super::bridge::{self, Application};
use super::connection;
use super::listener::Accepted;
use super::{Limits, Stage};

/// Number of blocking threads per worker, for large bodies, large replies and compression.
const BLOCKING_THREADS: usize = 4;

/// All worker threads.
pub(super) struct Workers {
    dispatcher: Dispatcher,
    heartbeats: Heartbeats,
    threads: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<()>,
    finished: oneshot::Receiver<()>,
}

/// Asks all workers for a sign of life.
#[derive(Clone)]
pub struct Heartbeats(Arc<[mpsc::UnboundedSender<oneshot::Sender<()>>]>);

impl Heartbeats {
    /// Waits until the event loop of each worker has reacted. Workers that have exited are ignored.
    pub async fn wait_for_all(&self) {
        let reactions = self.0.iter().map(async |worker| {
            let (reply, reaction) = oneshot::channel();
            let _ = worker.send(reply);
            // An error means that the worker has exited.
            let _ = reaction.await;
        });
        join_all(reactions).await;
    }
}

/// Dispatches each connection to the worker with the fewest connections.
#[derive(Clone)]
pub(super) struct Dispatcher(Arc<[Inbox]>);

struct Inbox {
    /// Bounded by the limit on open connections.
    connections: mpsc::UnboundedSender<(Accepted, Load)>,
    load: Arc<AtomicUsize>,
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
    pub(super) fn dispatch(&self, accepted: Accepted) {
        let least_loaded = self
            .0
            .iter()
            .min_by_key(|inbox| inbox.load.load(Ordering::Relaxed));
        if let Some(inbox) = least_loaded {
            // If the worker has exited, the connection is closed.
            let _ = inbox.connections.send((accepted, Load::new(&inbox.load)));
        }
    }
}

impl Workers {
    /// Starts the threads. Each builds the application with `factory`.
    pub(super) fn start<F, I, S, B>(
        threads: NonZeroUsize,
        limits: &Limits,
        stages: &watch::Receiver<Stage>,
        factory: F,
    ) -> io::Result<Self>
    where
        F: Fn() -> I + Clone + Send + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error>
            + 'static,
        S::InitError: Debug,
        B: MessageBody + 'static,
    {
        let mut inboxes = Vec::new();
        let mut heartbeats = Vec::new();
        let mut started = Vec::new();
        for number in 0..threads.get() {
            let (connections, inbox) = mpsc::unbounded_channel();
            let (heartbeat, requested_heartbeats) = mpsc::unbounded_channel();
            let (finish, finished) = oneshot::channel();
            let (factory, limits, stages) = (factory.clone(), limits.clone(), stages.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("http-blocking")
                .build()?;
            // The operating system truncates thread names after 15 bytes.
            let name = format!("actix-http-{number}");
            let handle = thread::Builder::new().name(name).spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    spawn_local(give_signs_of_life(requested_heartbeats));
                    let application = bridge::application(factory().into_factory()).await;
                    serve(&application, inbox, limits, stages).await;
                });
                // Results for disconnected clients are not needed.
                runtime.shutdown_background();
                // Fails if the server was dropped.
                let _ = finish.send(());
            })?;
            inboxes.push(Inbox {
                connections,
                load: Arc::default(),
            });
            heartbeats.push(heartbeat);
            started.push(Thread { handle, finished });
        }
        Ok(Self {
            dispatcher: Dispatcher(inboxes.into()),
            heartbeats: Heartbeats(heartbeats.into()),
            threads: started,
        })
    }

    pub(super) fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    pub(super) fn heartbeats(&self) -> Heartbeats {
        self.heartbeats.clone()
    }

    /// Returns a future per thread, which is ready when the thread exits.
    pub(super) fn exits(&mut self) -> impl Iterator<Item = impl Future<Output = ()>> {
        let finished = self.threads.iter_mut().map(|thread| &mut thread.finished);
        finished.map(async |finished| {
            // An error means that the thread panicked.
            let _ = finished.await;
        })
    }

    /// Waits until all connections are closed and joins the threads. Must be called when no more connections are
    /// dispatched.
    pub(super) async fn join(self) {
        drop(self.dispatcher);
        let threads = self.threads.into_iter().map(async |thread| {
            // An error means that the thread panicked, which `join` reports.
            let _ = thread.finished.await;
            if thread.handle.join().is_err() {
                log::error!("HTTP worker panicked");
            }
        });
        join_all(threads).await;
    }
}

/// Answers each request for a sign of life.
async fn give_signs_of_life(mut requests: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
    while let Some(reply) = requests.recv().await {
        // The asker may be gone.
        let _ = reply.send(());
    }
}

/// Serves connections until the inbox is closed and all connections are closed.
async fn serve(
    application: &Application,
    mut inbox: mpsc::UnboundedReceiver<(Accepted, Load)>,
    limits: Limits,
    stages: watch::Receiver<Stage>,
) {
    let limits = Rc::new(limits);
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    while let Some((accepted, load)) = inbox.recv().await {
        let Accepted { stream, peer, permit } = accepted;
        let Ok(stream) = configure(stream) else {
            // The client has already disconnected.
            continue;
        };
        let (application, limits, stages, open) =
            (application.clone(), limits.clone(), stages.clone(), open.clone());
        spawn_local(async move {
            connection::serve(stream, peer, application, limits, stages).await;
            drop((permit, load, open));
        });
    }
    drop(open);
    all_closed.recv().await;
}

fn configure(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}
