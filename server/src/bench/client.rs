//! One keep-alive connection to a server, and what comes back over it.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Where a server is: `http://HOST[:PORT][/PREFIX]`.
#[derive(Clone, Debug)]
pub(super) struct ServerUrl {
    authority: Authority,
    prefix: String,
}

impl ServerUrl {
    /// The error is a hint for whoever wrote it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{error}, expected http://HOST:PORT"))?;
        if uri.scheme() == Some(&Scheme::HTTPS) {
            return Err(
                "this command speaks plain http only: ask the server itself, behind what does TLS for it"
                    .to_owned(),
            );
        }
        match (uri.scheme() == Some(&Scheme::HTTP), uri.authority(), uri.query()) {
            (true, Some(authority), None) => Ok(Self {
                authority: authority.clone(),
                prefix: uri.path().trim_end_matches('/').to_owned(),
            }),
            _ => Err("expected http://HOST:PORT".to_owned()),
        }
    }

    /// `HOST:PORT`, as the header `host` has it.
    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The path of a route, as the request line has it.
    pub(super) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

/// The ways in which a request comes to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// Answered with another status than 200.
    Status(u16),
    /// Not answered in time.
    Timeout,
    /// No connection could be made.
    Connect,
    /// The connection ended before the answer.
    Broken,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connect => f.write_str("connect"),
            Self::Broken => f.write_str("broken"),
        }
    }
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// In the words of the server or the system.
    pub(super) message: String,
}

impl Failure {
    fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { kind, message }
    }

    fn broken(error: &hyper::Error) -> Self {
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        Self::new(FailureKind::Broken, format_args!("{error}{cause}"))
    }

    pub(super) fn timeout(after: Duration) -> Self {
        Self::new(FailureKind::Timeout, format_args!("no answer within {after:?}"))
    }
}

/// A connection that one caller uses at a time.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects. Must be called within a `LocalSet`.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let refused = |error| Failure::new(FailureKind::Connect, error);
        let stream = TcpStream::connect(address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::broken(&error))?;
        let driver = tokio::task::spawn_local(async move {
            // Whoever waits for an answer is told the same error.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Whether another request may be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request, and reads the whole answer if its status is not 200. The answer to a successful one is read, but not
    /// kept.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(), Failure> {
        let mut response = self.respond(request).await?;
        if response.status().as_u16() != 200 {
            return Err(refusal(response).await?);
        }
        while let Some(frame) = response.body_mut().frame().await {
            frame.map_err(|error| Failure::broken(&error))?;
        }
        Ok(())
    }

    /// As [`send`](Self::send), and keeps the answer.
    pub(super) async fn fetch(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let response = self.respond(request).await?;
        if response.status().as_u16() != 200 {
            return Err(refusal(response).await?);
        }
        read(response).await
    }

    async fn respond(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        // After one answer the connection may need a moment until it takes the next request.
        let ready = self.sender.ready().await;
        ready.map_err(|error| Failure::broken(&error))?;
        let response = self.sender.send_request(request).await;
        response.map_err(|error| Failure::broken(&error))
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|error| Failure::broken(&error))?.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> Result<Failure, Failure> {
    let status = response.status();
    let body = read(response).await?;
    let message = message_of(&body).unwrap_or_else(|| status.to_string());
    Ok(Failure::new(FailureKind::Status(status.as_u16()), message))
}

/// Messages are shown to people: more of a page in HTML helps nobody.
const LONGEST_MESSAGE: usize = 500;

/// What a server says went wrong: `error.message`, or `error`, or the text as it is.
fn message_of(body: &[u8]) -> Option<String> {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let of_json = json.as_ref().and_then(|json| {
        let error = &json["error"];
        error["message"].as_str().or_else(|| error.as_str())
    });
    let text = match of_json {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    (!text.is_empty()).then(|| text.chars().take(LONGEST_MESSAGE).collect())
}

/// The first address of a server's name.
pub(super) async fn resolve(url: &ServerUrl) -> Result<SocketAddr, Failure> {
    let host = url.authority.host().trim_matches(['[', ']']);
    let port = url.authority.port_u16().unwrap_or(80);
    let unknown = |error| Failure::new(FailureKind::Connect, error);
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(unknown)?;
    addresses
        .next()
        .ok_or_else(|| Failure::new(FailureKind::Connect, format_args!("`{host}` has no address")))
}

/// Waits for something, but not for ever.
pub(super) async fn until<T>(
    deadline: Instant,
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::timeout(timeout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_place_and_a_prefix() {
        let url = ServerUrl::parse("http://[::1]:8080/models/").expect("it is one");
        assert_eq!(url.to_string(), "http://[::1]:8080/models");
        assert_eq!(url.path("/metrics"), "/models/metrics");
        assert_eq!(url.authority(), "[::1]:8080");
        let bare = ServerUrl::parse("http://localhost").expect("it is one");
        assert_eq!(bare.path("/metrics"), "/metrics");
    }

    #[test]
    fn messages_are_found_in_each_shape_of_an_error() {
        for (body, message) in [
            (
                r#"{"error":{"code":"not_found","message":"no model"}}"#,
                Some("no model"),
            ),
            (r#"{"error":"no model"}"#, Some("no model")),
            ("  no model\n", Some("no model")),
            ("", None),
        ] {
            assert_eq!(message_of(body.as_bytes()).as_deref(), message);
        }
    }
}
