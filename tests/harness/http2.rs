//! An HTTP/2 client that shows what HTTP client libraries hide: streams, resets and GOAWAY.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response};
use rustls::ClientConfig;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::tls;

/// A connection.
pub(crate) struct Http2 {
    scheme: &'static str,
    address: SocketAddr,
    client: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A complete reply.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http2 {
    /// Connects without TLS, knowing that the server speaks HTTP/2.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        Self::over("http", address, socket)
            .await
            .expect("an HTTP/2 handshake")
    }

    /// Connects over TLS.
    pub(crate) async fn connect_secure(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = tls::connect(address, config).await?;
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over("https", address, socket)
            .await
            .map_err(io::Error::other)
    }

    async fn over(
        scheme: &'static str,
        address: SocketAddr,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, h2::Error> {
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .max_send_buffer_size(64 << 20)
            .handshake(socket)
            .await?;
        Ok(Self {
            scheme,
            address,
            client,
            connection: tokio::spawn(connection),
        })
    }

    /// Waits until the server has ended the connection. Returns the error, if it did not end it with GOAWAY.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        // While there is a client, the connection does not end by itself.
        let Self {
            client: _client,
            connection,
            ..
        } = self;
        connection.await.expect("the client does not panic")
    }

    /// Closes the connection abruptly.
    pub(crate) async fn cut(self) {
        self.connection.abort();
        // Its socket is closed when the runtime has dropped it.
        let _ = self.connection.await;
    }

    /// Starts a request, and leaves its body open.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.start(method, path, headers, false).await
    }

    async fn start(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        is_complete: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://{}{path}", self.scheme, self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client = self.client.clone().ready().await?;
        self.client
            .send_request(request.body(()).expect("a request"), is_complete)
    }

    /// Sends a request without a body and returns the reply.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, h2::Error> {
        let (response, _) = self.start(method, path, headers, true).await?;
        answer(response.await?).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        let answer = self.send("GET", path, &[]).await;
        answer.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Sends a JSON body. The reply arrives when the returned future is polled.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: &Json,
    ) -> Result<impl Future<Output = Result<Answer, h2::Error>> + use<>, h2::Error> {
        let headers = [("content-type", "application/json")];
        let (response, mut stream) = self.begin("POST", path, &headers).await?;
        stream.send_data(Bytes::from(body.to_string()), true)?;
        Ok(async move {
            // Until the reply has arrived, the rest of the body may be waiting for the window of the server.
            let received = response.await;
            drop(stream);
            answer(received?).await
        })
    }
}

/// Reads the body of a reply.
pub(crate) async fn answer(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part?;
        stream.flow_control().release_capacity(part.len())?;
        body.extend_from_slice(&part);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}
