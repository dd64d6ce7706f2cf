//! The gRPC side: the Open Inference Protocol with Triton's extensions, health, and reflection, on a port of its own.
//!
//! Owned by `app`, which binds it. It has threads of its own, beside those of HTTP; what it shares with HTTP is in
//! [`crate::api`]. A client that goes away drops the future of its call, and with it whatever of it still waits.

mod body_timeout;
mod call_layer;
mod connection_limit;
mod description_messages;
mod health_service;
mod infer_messages;
mod inference_service;
mod message_codec;
mod proto;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{oneshot, watch};
use tonic::codec::CompressionEncoding;

use crate::api::model_control::Control;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::registry::Registry;
use call_layer::CallLayer;
use inference_service::Inference;
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// The gRPC server, which listens and serves.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Knows when the server is to stop. Streams have no end of their own, so they ask.
#[derive(Clone)]
struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Waits until the server is told to stop. Being forgotten means the same.
    async fn told(mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Calls under way on one connection; further ones wait in it.
const CALLS_PER_CONNECTION: usize = 1024;

/// How often a connection without traffic is asked whether its client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Server {
    /// Listens and serves from now on.
    ///
    /// # Errors
    /// If the address cannot be listened on, or the system refuses a thread.
    pub fn bind(
        settings: &Settings,
        port: u16,
        registry: Arc<Registry>,
        metrics: &Arc<Metrics>,
        control: Control,
    ) -> io::Result<Self> {
        let server = &settings.server;
        // Bound before anything runs, so that a port that is taken is known at once.
        let listener = TcpListener::bind((server.host.as_str(), port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(server.http_workers.get())
            .thread_name("grpc worker")
            .enable_all()
            .build()?;
        let (stop, stopping) = watch::channel(false);
        let stopping = Stopping(stopping);
        let health = health_service::service(registry.clone(), stopping.clone());
        let inference = Inference::new(settings, registry, metrics.clone(), control, stopping.clone());
        let inference = GrpcInferenceServiceServer::new(inference)
            .max_decoding_message_size(server.max_body_size)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let calls = CallLayer::new(settings, metrics).map_err(io::Error::other)?;
        let router = tonic::transport::Server::builder()
            .layer(calls)
            .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(inference)
            .add_service(health)
            .add_service(reflection().build_v1().map_err(io::Error::other)?)
            .add_service(reflection().build_v1alpha().map_err(io::Error::other)?);
        let most_connections = server.max_connections.get();
        let (end, ended) = oneshot::channel();
        let serve = async move {
            let incoming = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => connection_limit::accept(listener, most_connections),
                Err(error) => return log::error!("gRPC cannot be served: {error}"),
            };
            let stopped = stopping.told();
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                log::error!("gRPC is served no more: {error}");
            }
        };
        let thread = thread::Builder::new().name("grpc".to_owned()).spawn(move || {
            runtime.block_on(serve);
            // Nobody may be waiting any more.
            let _ = end.send(());
        })?;
        Ok(Self {
            address,
            stop,
            ended,
            thread,
        })
    }

    /// Where it listens; of port 0, the port that was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server has ended although nobody asked it to; the log says why. Cancel-safe.
    pub async fn failed(&mut self) {
        // An error if its thread panicked.
        let _ = (&mut self.ended).await;
    }

    /// Stops accepting, and waits until every accepted call is answered or `deadline` has passed. Returns whether all were
    /// answered.
    pub async fn drain(self, deadline: Instant) -> bool {
        // It may have ended by itself, which its log says.
        let _ = self.stop.send(true);
        let ended = tokio::time::timeout_at(deadline.into(), self.ended).await.is_ok();
        if ended {
            // The thread ends right after it has said so; it does not panic.
            let _ = self.thread.join();
        }
        ended
    }
}

/// What reflection tells, in its present version and the one before, for which many tools still ask.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET]
        .into_iter()
        .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
}
