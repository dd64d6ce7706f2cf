//! Reads the state of a server.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{HeaderMap, Request};

use super::args::StatusArgs;
use super::error::StatusError;
use super::reply::{ModelList, ServerStatus};
use crate::client::{Connection, Failure, FailureKind, ServerUrl, client_tls, resolve, with_deadline};
use crate::tls::ClientTls;
use crate::{clock, json};

/// A server, and how it is asked.
pub(super) struct Source {
    url: ServerUrl,
    headers: HeaderMap,
    /// Set if the URL is secure.
    tls: Option<ClientTls>,
    timeout: Duration,
}

impl Source {
    pub(super) fn new(args: &StatusArgs) -> Result<Self, StatusError> {
        let server = &args.server;
        Ok(Self {
            tls: client_tls(&server.url, &server.trust()?)?,
            url: server.url.clone(),
            headers: server.headers()?,
            timeout: args.timeout,
        })
    }

    /// The address of the server.
    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    /// Reads the state over a new connection. Must be called within a `LocalSet`.
    pub(super) async fn read(&self) -> Result<ServerStatus, StatusError> {
        let (readiness, models) = (self.request("/readyz")?, self.request("/v1/models")?);
        let deadline = clock::now() + self.timeout;
        let reply = with_deadline(deadline, self.timeout, async {
            let mut connection = self.connect().await?;
            let ready = match connection.fetch(readiness).await {
                Ok(_) => true,
                Err(failure) if failure.kind == FailureKind::Status(503) => false,
                Err(failure) => return Err(failure),
            };
            // The server may close a connection after an error.
            if !connection.is_usable() {
                connection = self.connect().await?;
            }
            Ok((ready, connection.fetch(models).await?))
        });
        let (ready, body) = reply.await.map_err(|failure| self.error(failure))?;
        let list: ModelList = json::from_slice(&body).map_err(|source| StatusError::Foreign {
            url: self.address_of("/v1/models"),
            source,
        })?;
        Ok(ServerStatus::new(self.url(), ready, list))
    }

    /// Connects to the first address that accepts: a host name can have addresses on which the server does not listen.
    async fn connect(&self) -> Result<Connection, Failure> {
        let mut result = Err(Failure::timeout(self.timeout));
        for endpoint in resolve(&self.url, self.tls.as_ref()).await? {
            result = Connection::open(&endpoint).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, StatusError> {
        let request = Request::get(self.url.path(path)).header(HOST, self.url.authority());
        let mut request = request
            .body(Full::new(Bytes::new()))
            .map_err(|source| StatusError::Build {
                url: self.address_of(path),
                source,
            })?;
        // Headers of the command line replace headers of the same name.
        for name in self.headers.keys() {
            request.headers_mut().remove(name);
        }
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        Ok(request)
    }

    fn address_of(&self, path: &str) -> String {
        format!("{}{}", self.url.origin(), self.url.path(path))
    }

    fn error(&self, failure: Failure) -> StatusError {
        match failure.kind {
            FailureKind::Connect => StatusError::NoServer {
                url: self.url(),
                why: failure.message,
            },
            kind => StatusError::Request {
                url: self.address_of("/v1/models"),
                kind,
                message: failure.message,
            },
        }
    }
}
