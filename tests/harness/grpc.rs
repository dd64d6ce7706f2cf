//! A gRPC client that can send messages in parts, which client libraries cannot.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::http::request;
use hyper::{Request, Response};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::tls;

/// A connection.
pub(crate) struct Grpc {
    address: SocketAddr,
    client: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Grpc {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        let connected = Self::over(address, socket).await;
        connected.expect("an HTTP/2 handshake")
    }

    /// Connects over TLS.
    pub(crate) async fn connect_secure(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = tls::connect(address, config).await?;
        Self::over(address, socket).await.map_err(io::Error::other)
    }

    async fn over(
        address: SocketAddr,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, h2::Error> {
        let (client, connection) = h2::client::handshake(socket).await?;
        Ok(Self {
            address,
            client,
            connection: tokio::spawn(connection),
        })
    }

    /// Closes the connection abruptly.
    pub(crate) async fn cut(self) {
        self.connection.abort();
        // Its socket is closed when the runtime has dropped it.
        let _ = self.connection.await;
    }

    /// Whether the server reports that it is live.
    pub(crate) async fn is_live(&mut self) -> bool {
        let (answer, mut body) = self.begin("ServerLive", b"\0\0\0\0\0");
        body.send_data(Bytes::new(), true).expect("the call is open");
        let mut answer = answer.await.expect("an answer").into_body();
        // Field 1 is true.
        answer.data().await.and_then(Result::ok).as_deref() == Some(b"\0\0\0\0\x02\x08\x01")
    }

    /// Whether the health service reports that a service is serving. `None` if it does not know the service.
    pub(crate) async fn is_serving(&mut self, service: &str) -> Option<bool> {
        let length = u8::try_from(service.len()).expect("a short name");
        // A message with a string in field 1.
        let message = [&[0, 0, 0, 0, length + 2, 0x0a, length][..], service.as_bytes()].concat();
        let (answer, mut body) = self.begin_at("/grpc.health.v1.Health/Check", message);
        body.send_data(Bytes::new(), true).expect("the call is open");
        let answer = answer.await.expect("an answer");
        if answer.headers().contains_key("grpc-status") {
            return None;
        }
        match answer.into_body().data().await.and_then(Result::ok).as_deref() {
            Some(b"\0\0\0\0\x02\x08\x01") => Some(true),
            Some(b"\0\0\0\0\x02\x08\x02") => Some(false),
            other => panic!("unexpected reply of the health service: {other:?}"),
        }
    }

    /// Starts a call of the inference service with the beginning of a message, and leaves it open.
    pub(crate) fn begin(
        &mut self,
        method: &str,
        message: &'static [u8],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        self.begin_at(&format!("/inference.GRPCInferenceService/{method}"), message)
    }

    /// Starts a call of any path.
    pub(crate) fn begin_at(
        &mut self,
        path: &str,
        message: impl Into<Bytes>,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        self.begin_request(path, message, |request| request)
    }

    /// Like [`begin`](Self::begin), with a key.
    pub(crate) fn begin_with_key(
        &mut self,
        method: &str,
        message: &'static [u8],
        key: &str,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let path = format!("/inference.GRPCInferenceService/{method}");
        self.begin_request(&path, message, |request| {
            request.header("authorization", format!("Bearer {key}"))
        })
    }

    /// Like [`begin`](Self::begin), with a message that is compressed with gzip.
    pub(crate) fn begin_compressed(
        &mut self,
        method: &str,
        message: impl Into<Bytes>,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let path = format!("/inference.GRPCInferenceService/{method}");
        self.begin_request(&path, message, |request| request.header("grpc-encoding", "gzip"))
    }

    /// Like [`begin_at`](Self::begin_at), with further headers.
    pub(crate) fn begin_request(
        &mut self,
        path: &str,
        message: impl Into<Bytes>,
        with: impl FnOnce(request::Builder) -> request::Builder,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let url = format!("http://{}{path}", self.address);
        let request = Request::post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = with(request).body(()).expect("a request");
        let (answer, mut body) = self.client.send_request(request, false).expect("it takes calls");
        // A server that has rejected the call does not take its message any more.
        let _ = body.send_data(message.into(), false);
        (answer, body)
    }
}

/// Returns the status and the message of a reply without content.
pub(crate) fn status(answer: &Response<RecvStream>) -> (&str, String) {
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let message = header("grpc-message").unwrap_or_default();
    (
        header("grpc-status").expect("it has failed"),
        message.replace("%20", " ").replace("%60", "`"),
    )
}
