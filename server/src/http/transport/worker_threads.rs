//! The threads that serve connections, each with its own runtime and its own instance of the application.

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

/// Threads of each worker for long computations: large bodies, large replies, compression.
const BLOCKING_THREADS: usize = 4;

/// All workers.
pub(super) struct Workers {
    dispatcher: Dispatcher,
    threads: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<()>,
    finished: oneshot::Receiver<()>,
}

/// Gives each connection to the worker that has the fewest.
#[derive(Clone)]
pub(super) struct Dispatcher(Arc<[Inbox]>);

struct Inbox {
    /// Bounded by the number of connections that may be open.
    connections: mpsc::UnboundedSender<(Accepted, Load)>,
    load: Arc<AtomicUsize>,
}

/// A connection as counted for its worker.
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
        let idlest = self
            .0
            .iter()
            .min_by_key(|inbox| inbox.load.load(Ordering::Relaxed));
        if let Some(inbox) = idlest {
            // A worker that has ended closes the connection.
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
        let mut started = Vec::new();
        for number in 0..threads.get() {
            let (connections, inbox) = mpsc::unbounded_channel();
            let (finish, finished) = oneshot::channel();
            let (factory, limits, stages) = (factory.clone(), limits.clone(), stages.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name("http-blocking")
                .build()?;
            // Short enough for the operating system, which cuts names off after 15 bytes.
            let name = format!("actix-http-{number}");
            let handle = thread::Builder::new().name(name).spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    let application = bridge::application(factory().into_factory()).await;
                    serve(&application, inbox, limits, stages).await;
                });
                // What a client that left had computed there is of no use to anyone.
                runtime.shutdown_background();
                // The receiver may have stopped waiting.
                let _ = finish.send(());
            })?;
            inboxes.push(Inbox {
                connections,
                load: Arc::default(),
            });
            started.push(Thread { handle, finished });
        }
        Ok(Self {
            dispatcher: Dispatcher(inboxes.into()),
            threads: started,
        })
    }

    pub(super) fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    /// For each thread, its end.
    pub(super) fn ended(&mut self) -> impl Iterator<Item = impl Future<Output = ()>> {
        let finished = self.threads.iter_mut().map(|thread| &mut thread.finished);
        finished.map(async |finished| {
            // An error if the thread panicked.
            let _ = finished.await;
        })
    }

    /// Waits until every connection is closed, once no more are dispatched, and joins the threads.
    pub(super) async fn join(self) {
        drop(self.dispatcher);
        let threads = self.threads.into_iter().map(async |thread| {
            // Dropped if the thread panicked, which the join reports.
            let _ = thread.finished.await;
            if thread.handle.join().is_err() {
                log::error!("an HTTP worker panicked");
            }
        });
        join_all(threads).await;
    }
}

/// Serves connections until no more come and all are closed.
async fn serve(
    application: &Application,
    mut inbox: mpsc::UnboundedReceiver<(Accepted, Load)>,
    limits: Limits,
    stages: watch::Receiver<Stage>,
) {
    let limits = Rc::new(limits);
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    while let Some((accepted, load)) = inbox.recv().await {
        let Accepted { stream, peer, place } = accepted;
        let Ok(stream) = configure(stream) else {
            // The client is gone already.
            continue;
        };
        let (application, limits, stages, open) =
            (application.clone(), limits.clone(), stages.clone(), open.clone());
        spawn_local(async move {
            connection::serve(stream, peer, application, limits, stages).await;
            drop((place, load, open));
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
