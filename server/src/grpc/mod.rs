//! The gRPC server: the Open Inference Protocol with Triton's extensions, health checks and reflection, on a separate
//! port.
//!
//! `app` owns and binds it. It has its own threads. Everything that it shares with HTTP is in [`crate::api`]. When a
//! client disconnects, the future of its call is dropped, which cancels its queued items.

mod call_body;
mod call_layer;
mod connections;
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

use crate::api::model_control::ModelControl;
use crate::api::{ApiKeys, Telemetry};
use crate::byte_budget::ByteBudget;
use crate::config::Settings;
use crate::registry::Registry;
use crate::tls::Certificates;
use call_layer::CallLayer;
use connections::ConnectionLimits;
use inference_service::Inference;
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;

/// A running gRPC server.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    exited: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Signals that the server is shutting down. Streams end when it does, because nothing else ends them.
#[derive(Clone)]
struct ShutdownSignal(watch::Receiver<bool>);

impl ShutdownSignal {
    /// Waits until the server shuts down or is dropped.
    async fn wait(mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Maximum number of concurrent calls per connection. Further calls wait.
const MAX_CALLS_PER_CONNECTION: usize = 1024;

/// Interval of HTTP/2 keep-alive pings on idle connections.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

impl Server {
    /// Starts serving connections to a socket, which require TLS if there are certificates.
    ///
    /// # Errors
    /// If the socket cannot be used or a thread cannot be started.
    pub fn serve(
        settings: &Settings,
        (listener, certificates): (TcpListener, Option<Arc<Certificates>>),
        registry: Arc<Registry>,
        telemetry: &Arc<Telemetry>,
        control: ModelControl,
        keys: ApiKeys,
        budget: Arc<ByteBudget>,
    ) -> io::Result<Self> {
        let server = &settings.server;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(server.http_workers.get())
            .thread_name("grpc worker")
            .enable_all()
            .build()?;
        let (stop, shutdown) = watch::channel(false);
        let shutdown = ShutdownSignal(shutdown);
        let health = health_service::service(registry.clone(), shutdown.clone());
        let inference = Inference::new(
            settings,
            registry,
            telemetry.clone(),
            control,
            shutdown.clone(),
            budget.clone(),
        );
        let inference = GrpcInferenceServiceServer::new(inference)
            .max_decoding_message_size(server.max_body_size)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let calls = CallLayer::new(settings, telemetry, keys, budget.clone()).map_err(io::Error::other)?;
        let router = tonic::transport::Server::builder()
            .layer(calls)
            .concurrency_limit_per_connection(MAX_CALLS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .add_service(inference)
            .add_service(health)
            .add_service(reflection().build_v1().map_err(io::Error::other)?)
            .add_service(reflection().build_v1alpha().map_err(io::Error::other)?);
        let limits = ConnectionLimits {
            max_connections: server.max_connections.get(),
            handshake_timeout: server.header_timeout,
        };
        let (end, exited) = oneshot::channel();
        let serve = async move {
            let incoming = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => connections::accept(listener, limits, certificates),
                Err(error) => return log::error!("gRPC server failed to start: {error}"),
            };
            let stopped = shutdown.wait();
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                log::error!("gRPC server failed: {error}");
            }
        };
        let thread = thread::Builder::new().name("grpc".to_owned()).spawn(move || {
            runtime.block_on(serve);
            // Fails if the server was dropped.
            let _ = end.send(());
        })?;
        Ok(Self {
            address,
            stop,
            exited,
            thread,
        })
    }

    /// The address that the server listens on. If port 0 was configured, it contains the assigned port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server exits unexpectedly. The log contains the reason. Cancel-safe.
    pub async fn failed(&mut self) {
        // An error means that the thread panicked.
        let _ = (&mut self.exited).await;
    }

    /// Stops accepting calls, and waits until every accepted call is answered or `deadline` passes. Returns whether
    /// all calls were answered.
    pub async fn drain(self, deadline: Instant) -> bool {
        // Fails if the server has already exited, which was logged.
        let _ = self.stop.send(true);
        let exited = tokio::time::timeout_at(deadline.into(), self.exited)
            .await
            .is_ok();
        if exited {
            // The thread exits immediately after the signal and does not panic.
            let _ = self.thread.join();
        }
        exited
    }
}

/// Builder of the reflection services: `v1`, and `v1alpha`, which many tools still use.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    [proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET]
        .into_iter()
        .fold(tonic_reflection::server::Builder::configure(), |builder, set| {
            builder.register_encoded_file_descriptor_set(set)
        })
}
