//! One keep-alive connection to a server, and what comes back over it.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::uri::Authority;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Where a server is: `[http://]HOST[:PORT][/PREFIX]`.
#[derive(Clone, Debug)]
pub(super) struct ServerUrl {
    authority: Authority,
    prefix: String,
}

impl ServerUrl {
    /// Reads what the command line gives. The error is a hint for its author, and does not repeat what may be a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected HOST:PORT or http://HOST:PORT";
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(
                    "this command does not support TLS: give the address of the server itself, after the proxy that \
                     terminates TLS"
                        .to_owned(),
                );
            }
            Some(_) => return Err(EXPECTED.to_owned()),
        };
        if rest.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("put an IPv6 address in brackets, such as [{rest}]:8080"));
        }
        let uri: Uri = format!("http://{rest}")
            .parse()
            .map_err(|error| format!("{error}; {EXPECTED}"))?;
        let authority = uri.authority().ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err("a user and password in the URL are not supported: use --key or --header".to_owned());
        }
        // The parser of authorities accepts ports that are not numbers.
        let port = authority
            .as_str()
            .rsplit_once(':')
            .filter(|(_, port)| !port.ends_with(']'));
        if port.is_some_and(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(format!("the port is not a number from 0 to 65535; {EXPECTED}"));
        }
        if uri.query().is_some() || rest.contains('#') {
            return Err(format!("a query or fragment is not supported; {EXPECTED}"));
        }
        Ok(Self {
            authority: authority.clone(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
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
    /// Due before the measurement, and not answered by its end.
    Unanswered,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Connect => f.write_str("connect"),
            Self::Broken => f.write_str("broken"),
            Self::Unanswered => f.write_str("unanswered"),
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

    pub(super) fn unanswered() -> Self {
        Self::new(
            FailureKind::Unanswered,
            "sent before the measurement began, and not answered by its end",
        )
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

/// The addresses of a server's name; at least one.
pub(super) async fn resolve(url: &ServerUrl) -> Result<Vec<SocketAddr>, Failure> {
    let host = url.authority.host().trim_matches(['[', ']']);
    let port = url.authority.port_u16().unwrap_or(80);
    let unknown = |error| Failure::new(FailureKind::Connect, error);
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(unknown)?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if addresses.is_empty() {
        return Err(Failure::new(
            FailureKind::Connect,
            format_args!("`{host}` has no address"),
        ));
    }
    Ok(addresses)
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
    fn a_url_needs_no_scheme() {
        for (text, url) in [
            ("localhost:8080", "http://localhost:8080"),
            ("localhost", "http://localhost"),
            ("10.0.0.1:80/", "http://10.0.0.1:80"),
            ("[::1]:8080/ml", "http://[::1]:8080/ml"),
            ("HTTP://gpu-7:8080//", "http://gpu-7:8080"),
            (" gpu-7/a/b/ ", "http://gpu-7/a/b"),
        ] {
            let parsed = ServerUrl::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(parsed.to_string(), url, "{text:?}");
        }
    }

    #[test]
    fn an_invalid_url_is_rejected_with_a_hint_and_without_its_password() {
        for (text, part) in [
            ("https://gpu-7", "does not support TLS"),
            ("HTTPS://gpu-7", "does not support TLS"),
            ("ftp://gpu-7", "expected HOST:PORT"),
            ("", "expected HOST:PORT"),
            ("http://", "expected HOST:PORT"),
            ("/v1/models", "expected HOST:PORT"),
            ("gpu-7:http", "port is not a number"),
            ("gpu-7:70000", "port is not a number"),
            ("gpu-7:8080/?a=1", "query or fragment"),
            ("gpu-7:8080/#a", "query or fragment"),
            ("::1", "[::1]:8080"),
            ("me:s3cret@gpu-7", "--key"),
        ] {
            let error = ServerUrl::parse(text).expect_err(text);
            assert!(
                error.contains(part) && !error.contains("s3cret"),
                "{text:?}: {error}"
            );
        }
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
