//! One attempt to deliver a message: resolves the host, checks its addresses, and sends the message to one of them.
//!
//! A name is resolved once for each connection, and the connection is opened to the address that was checked, so a name
//! whose address changes in between gains nothing. Each redirect is a new target with the same checks.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::WebhookSettings;
use super::target::{Host, Target, TargetError, check_target};
use crate::tls::{self, ClientTls};

/// Maximum number of redirects of an attempt.
const MAX_REDIRECTS: usize = 3;

/// Maximum number of addresses of a host that are tried.
const MAX_ADDRESSES: usize = 4;

/// A message, as it is sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// Identifier: the same for every attempt.
    pub id: String,
    /// When it is sent, in Unix seconds.
    pub timestamp: u64,
    /// Its signature.
    pub signature: String,
    /// Its body, in JSON.
    pub body: Bytes,
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempt {
    /// The receiver accepted the message, with this status.
    Delivered(u16),
    /// The receiver does not want this message, ever.
    Gone,
    /// The message is to be sent again.
    Failed {
        /// Why.
        reason: String,
        /// The status of the receiver, if there was a reply.
        status: Option<u16>,
        /// How long the receiver has asked the sender to wait.
        retry_after: Option<Duration>,
    },
    /// The target is not allowed.
    Rejected(TargetError),
}

impl Attempt {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            status: None,
            retry_after: None,
        }
    }
}

impl From<TargetError> for Attempt {
    fn from(error: TargetError) -> Self {
        Self::Rejected(error)
    }
}

/// Finds the addresses of a name.
pub trait Resolve: Send + Sync {
    /// The addresses of a name, with this port.
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The resolver of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Sends messages.
pub struct Sender {
    settings: WebhookSettings,
    resolver: Box<dyn Resolve>,
    tls: Option<ClientTls>,
}

impl Sender {
    /// A sender with these settings. Without `tls`, attempts to reach `https` URLs fail.
    pub fn new(settings: WebhookSettings, resolver: Box<dyn Resolve>, tls: Option<ClientTls>) -> Self {
        Self {
            settings,
            resolver,
            tls,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    /// Sends a message, in at most the time of `webhook_timeout`. Cancel-safe: the receiver may or may not have the message.
    pub async fn send(&self, url: &str, message: &Message) -> Attempt {
        let timeout = self.settings.timeout;
        match tokio::time::timeout(timeout, self.follow(url, message)).await {
            Ok(attempt) => attempt,
            Err(_) => Attempt::failed(format!("no reply within {timeout:?}")),
        }
    }

    async fn follow(&self, url: &str, message: &Message) -> Attempt {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let target = match check_target(&url, &self.settings) {
                Ok(target) => target,
                Err(error) => return error.into(),
            };
            let response = match self.request(&target, message).await {
                Ok(response) => response,
                Err(attempt) => return attempt,
            };
            let header = |name: HeaderName| {
                let value = response.headers().get(name)?;
                value.to_str().ok()
            };
            match response.status() {
                status if status.is_success() => return Attempt::Delivered(status.as_u16()),
                StatusCode::GONE => return Attempt::Gone,
                // The others ask for another method, or are no redirects.
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => match header(LOCATION).and_then(|to| target.redirect(to))
                {
                    Some(to) => url = to,
                    None => return Attempt::failed("a redirect without a usable `location`"),
                },
                status => {
                    let seconds = header(RETRY_AFTER).and_then(|value| value.trim().parse().ok());
                    return Attempt::Failed {
                        reason: format!("the receiver replied with status {}", status.as_u16()),
                        status: Some(status.as_u16()),
                        retry_after: seconds.map(Duration::from_secs),
                    };
                }
            }
        }
        Attempt::failed(format!("more than {MAX_REDIRECTS} redirects"))
    }

    /// Sends a message to an allowed address of the target.
    async fn request(
        &self,
        target: &Target,
        message: &Message,
    ) -> Result<Response<hyper::body::Incoming>, Attempt> {
        let request = request(target, message)
            .map_err(|error| Attempt::failed(format!("the request cannot be sent: {error}")))?;
        if !target.is_secure {
            return exchange(self.connect(target).await?, request).await;
        }
        let tls = self
            .tls
            .as_ref()
            .ok_or_else(|| Attempt::failed("this server trusts no certificates"))?;
        let stream = self.connect(target).await?;
        let stream = tls::connect(tls, &target.host.to_string(), stream).await;
        let stream = stream.map_err(|error| Attempt::failed(format!("the TLS handshake failed: {error}")))?;
        exchange(stream, request).await
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, Attempt> {
        let addresses = match &target.host {
            Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
            Host::Name(name) => self
                .resolver
                .resolve(name, target.port)
                .await
                .map_err(|error| Attempt::failed(format!("cannot resolve `{name}`: {error}")))?,
        };
        let mut failure = Attempt::failed(format!("the name `{}` has no address", target.host));
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            if let Err(error) = target.check_address(address.ip()) {
                failure = error.into();
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    failure = Attempt::failed(format!("cannot connect to `{}`: {error}", target.host));
                }
            }
        }
        Err(failure)
    }
}

fn request(target: &Target, message: &Message) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    Request::builder()
        .method(Method::POST)
        .uri(&target.path)
        .header(HOST, &target.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(
            USER_AGENT,
            concat!("inference-server/", env!("CARGO_PKG_VERSION")),
        )
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", message.timestamp)
        .header("webhook-signature", &message.signature)
        .body(Full::new(message.body.clone()))
}

/// Sends a request and receives the head of its reply. The body is not read.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<hyper::body::Incoming>, Attempt> {
    let broken = |error: hyper::Error| Attempt::failed(format!("the connection failed: {error}"));
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let reply = sender.send_request(request);
    tokio::pin!(reply, connection);
    tokio::select! {
        reply = &mut reply => reply.map_err(broken),
        // The reply may have arrived with the end of the connection.
        ended = &mut connection => match ended {
            Ok(()) => reply.await.map_err(broken),
            Err(error) => Err(broken(error)),
        },
    }
}
