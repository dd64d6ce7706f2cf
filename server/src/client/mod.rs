//! An HTTP client of a server, for commands: its address and headers, a keep-alive connection, and the failures of requests.

mod args;
mod headers;
mod query_error;

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::uri::Authority;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::tls::{self, ClientTls};

pub(crate) use args::client_tls;
pub use args::{ServerArgs, ServerArgsError, Variables};
pub use headers::HeaderError;
pub(crate) use headers::override_with;
pub use query_error::QueryError;

/// Address of a server: `[http[s]://]HOST[:PORT][/PREFIX]`.
#[derive(Clone, Debug)]
pub(crate) struct ServerUrl {
    is_secure: bool,
    authority: Authority,
    prefix: String,
}

impl ServerUrl {
    /// Parses an argument of the command line. The error is a hint, which does not contain the text, since that may contain a
    /// password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected HOST:PORT, http://HOST:PORT or https://HOST:PORT";
        let text = text.trim();
        let (is_secure, rest) = match text.split_once("://") {
            None => (false, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
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
        // `Authority` accepts ports that are not numbers.
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
            is_secure,
            authority: authority.clone(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether requests are sent over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// `SCHEME://HOST:PORT`
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// The host name or IP address, without brackets.
    fn host(&self) -> &str {
        self.authority.host().trim_matches(['[', ']'])
    }

    /// `HOST:PORT`, the value of the header `host`.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The path of a route, with the prefix.
    pub(crate) fn path(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }

    /// The URL of a route.
    pub(crate) fn url_of(&self, route: &str) -> String {
        format!("{self}{route}")
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.prefix)
    }
}

/// Kind of failure of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// The status was not 200.
    Status(u16),
    /// There was no reply within the timeout.
    Timeout,
    /// The connection could not be opened.
    Connect,
    /// The connection was closed before the reply was complete.
    Broken,
    /// The request was due before the measurement and was not answered by its end.
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

/// Failure of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// The message of the server or the operating system.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { kind, message }
    }

    fn broken(error: &hyper::Error) -> Self {
        let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
        Self::new(FailureKind::Broken, format_args!("{error}{cause}"))
    }

    fn handshake(error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::InvalidData => "; check --cacert",
            _ => "",
        };
        Self::new(
            FailureKind::Connect,
            format_args!("the TLS handshake failed: {error}{hint}"),
        )
    }

    pub(crate) fn unanswered() -> Self {
        Self::new(
            FailureKind::Unanswered,
            "sent before the measurement, and not answered by its end",
        )
    }

    pub(crate) fn timeout(after: Duration) -> Self {
        Self::new(FailureKind::Timeout, format_args!("no reply within {after:?}"))
    }
}

/// A reply, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Received {
    /// The message of an error reply.
    pub(crate) fn message(&self) -> String {
        message_of(&self.body).unwrap_or_else(|| "the reply is empty".to_owned())
    }
}

/// An address of a server, to which connections are opened.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// The name of the server and the settings of TLS.
    tls: Option<(Rc<str>, ClientTls)>,
}

/// A connection, used by one client at a time.
pub(crate) struct Connection {
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
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(FailureKind::Connect, error);
        let stream = TcpStream::connect(endpoint.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &endpoint.tls {
            Some((host, tls)) => {
                let connected = tls::connect(tls, host, stream).await;
                Self::over(connected.map_err(|error| Failure::handshake(&error))?).await
            }
            None => Self::over(stream).await,
        }
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Result<Self, Failure> {
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::broken(&error))?;
        let driver = tokio::task::spawn_local(async move {
            // The pending request returns the same error.
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Whether another request can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request and reads the reply. The body of a successful reply is discarded.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(), Failure> {
        let mut response = self.respond(request).await?;
        if response.status().as_u16() != 200 {
            return Err(error_reply(response).await?);
        }
        while let Some(frame) = response.body_mut().frame().await {
            frame.map_err(|error| Failure::broken(&error))?;
        }
        Ok(())
    }

    /// Like [`send`](Self::send), but returns the body of the reply.
    pub(crate) async fn fetch(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        let response = self.respond(request).await?;
        if response.status().as_u16() != 200 {
            return Err(error_reply(response).await?);
        }
        read(response).await
    }

    /// Like [`send`](Self::send), but returns the status and the body of any reply.
    pub(crate) async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Received, Failure> {
        let response = self.respond(request).await?;
        Ok(Received {
            status: response.status().as_u16(),
            body: read(response).await?,
        })
    }

    async fn respond(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        // After a reply, the connection may not be ready for the next request immediately.
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

/// The failure that a reply with a status other than 200 describes.
async fn error_reply(response: Response<Incoming>) -> Result<Failure, Failure> {
    let status = response.status();
    let body = read(response).await?;
    let message = message_of(&body).unwrap_or_else(|| status.to_string());
    Ok(Failure::new(FailureKind::Status(status.as_u16()), message))
}

/// Maximum length of a message, in characters: the body may be a whole HTML page.
const MAX_MESSAGE_LENGTH: usize = 500;

/// The message of an error reply: `error.message`, `error`, or the whole text.
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
    (!text.is_empty()).then(|| text.chars().take(MAX_MESSAGE_LENGTH).collect())
}

/// The addresses of a server, at least one. `tls` is required if the URL is secure.
pub(crate) async fn resolve(url: &ServerUrl, tls: Option<&ClientTls>) -> Result<Vec<Endpoint>, Failure> {
    let host = url.host();
    let default_port = if url.is_secure { 443 } else { 80 };
    let port = url.authority.port_u16().unwrap_or(default_port);
    let failed = |error: io::Error| Failure::new(FailureKind::Connect, error);
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    let tls = tls.map(|tls| (Rc::from(host), tls.clone()));
    let endpoint = |address| Endpoint {
        address,
        tls: tls.clone(),
    };
    let addresses: Vec<Endpoint> = addresses.map(endpoint).collect();
    if addresses.is_empty() {
        return Err(Failure::new(
            FailureKind::Connect,
            format_args!("the name `{host}` has no address"),
        ));
    }
    Ok(addresses)
}

/// Connects to the first address that accepts: a host name can have addresses on which the server does not listen. Must be
/// called within a `LocalSet`.
pub(crate) async fn connect(endpoints: &[Endpoint]) -> Result<(&Endpoint, Connection), Failure> {
    let mut result = Err(Failure::new(
        FailureKind::Connect,
        "the name of the server has no address",
    ));
    for endpoint in endpoints {
        result = Connection::open(endpoint)
            .await
            .map(|connection| (endpoint, connection));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Runs `work` until `deadline`; after that, it fails with a timeout of this length.
pub(crate) async fn with_deadline<T>(
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
    fn a_url_has_an_authority_and_a_prefix() {
        let url = ServerUrl::parse("http://[::1]:8080/models/").expect("the URL is valid");
        assert_eq!(url.to_string(), "http://[::1]:8080/models");
        assert_eq!(url.path("/metrics"), "/models/metrics");
        assert_eq!(url.authority(), "[::1]:8080");
        let bare = ServerUrl::parse("http://localhost").expect("the URL is valid");
        assert_eq!(bare.path("/metrics"), "/metrics");
    }

    #[test]
    fn the_scheme_of_a_url_is_optional() {
        for (text, url) in [
            ("localhost:8080", "http://localhost:8080"),
            ("localhost", "http://localhost"),
            ("10.0.0.1:80/", "http://10.0.0.1:80"),
            ("[::1]:8080/ml", "http://[::1]:8080/ml"),
            ("HTTP://gpu-7:8080//", "http://gpu-7:8080"),
            (" gpu-7/a/b/ ", "http://gpu-7/a/b"),
            ("HTTPS://gpu-7:8443/ml", "https://gpu-7:8443/ml"),
        ] {
            let parsed = ServerUrl::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!(parsed.to_string(), url, "{text:?}");
        }
    }

    #[test]
    fn an_invalid_url_is_rejected_with_a_hint_and_without_its_password() {
        for (text, part) in [
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
    fn the_message_is_found_in_every_form_of_error_reply() {
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
