//! Reads the state of a server.

use std::cell::Cell;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{HeaderMap, Request};

use super::args::{Environment, StatusArgs};
use super::error::StatusError;
use super::reply::{ModelList, ServerStatus};
use crate::client::{
    Connection, Failure, FailureKind, QueryError, ServerUrl, client_tls, connect, override_with, resolve,
    with_deadline,
};
use crate::tls::ClientTls;
use crate::{clock, json};

/// The route of the readiness of the server, and the one that lists the models.
const READINESS: &str = "/readyz";
const MODELS: &str = "/v1/models";

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
        let (readiness, models) = (self.request(READINESS)?, self.request(MODELS)?);
        let deadline = clock::now() + self.timeout;
        let requested = Cell::new(READINESS);
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
            requested.set(MODELS);
            Ok((ready, connection.fetch(models).await?))
        });
        let failed = |failure| QueryError::new::<Environment>(&self.url, requested.get(), failure);
        let (ready, body) = reply.await.map_err(failed)?;
        let list: ModelList = json::from_slice(&body).map_err(|source| StatusError::Foreign {
            url: self.url.url_of(MODELS),
            source,
        })?;
        Ok(ServerStatus::new(self.url(), ready, list))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let endpoints = resolve(&self.url, self.tls.as_ref()).await?;
        Ok(connect(&endpoints).await?.1)
    }

    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, StatusError> {
        let request = Request::get(self.url.path(path)).header(HOST, self.url.authority());
        let mut request = request
            .body(Full::new(Bytes::new()))
            .map_err(|source| StatusError::Build {
                url: self.url.url_of(path),
                source,
            })?;
        override_with(request.headers_mut(), &self.headers);
        Ok(request)
    }
}
