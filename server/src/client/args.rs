//! The arguments with which commands reach a server.

use std::fmt::Debug;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;

use clap::Args;
use hyper::HeaderMap;

use super::{HeaderError, ServerUrl, headers};
use crate::secret::Secret;
use crate::tls::{ClientTls, Trust};

/// Names of the environment variables of a command.
pub trait Variables: Clone + Copy + Debug + Send + Sync + 'static {
    /// The variable of `--url`.
    const URL: &'static str;
    /// The variable of `--key`.
    const KEY: &'static str;
}

/// Where a server is, which certificates it may have, and the headers of every request.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs<V: Variables> {
    /// Address of the server: HOST:PORT or http[s]://HOST[:PORT][/PREFIX]
    #[arg(
        long, value_name = "URL", env = V::URL, default_value = "http://127.0.0.1:8080", value_parser = ServerUrl::parse
    )]
    pub(crate) url: ServerUrl,
    /// API key, sent as `authorization: Bearer KEY`; other users can see command lines, so prefer the variable
    #[arg(long, env = V::KEY, hide_env_values = true)]
    key: Option<Secret>,
    /// File with the certificates, in PEM, that sign those of the server; those of the system by default
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Accept every certificate of the server
    #[arg(long, conflicts_with = "cacert")]
    insecure: bool,
    /// Header to add to every request; can be repeated
    #[arg(long, short = 'H', value_name = "NAME:VALUE")]
    header: Vec<Secret>,
    #[arg(skip)]
    variables: PhantomData<V>,
}

/// Why a server cannot be reached with these arguments.
#[derive(Debug, thiserror::Error)]
pub enum ServerArgsError {
    /// A header or the key is invalid.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A choice of trusted certificates, for a connection that is not encrypted.
    #[error("--cacert and --insecure require a URL that starts with https://")]
    NotSecure,
    /// The trusted certificates cannot be read.
    #[error("cannot read the trusted certificates of {trust}")]
    Trust {
        /// Where they are.
        trust: Trust,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ServerArgsError {
    /// 2 for errors in the command line, like clap; 1 for all others.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Header(_) | Self::NotSecure => 2,
            Self::Trust { .. } => 1,
        }
    }
}

impl<V: Variables> ServerArgs<V> {
    /// Which certificates are accepted if the URL is secure.
    ///
    /// # Errors
    /// Certificates are chosen, and the URL is not secure.
    pub(crate) fn trust(&self) -> Result<Trust, ServerArgsError> {
        let trust = match (&self.cacert, self.insecure) {
            (Some(file), _) => Trust::File(file.clone()),
            (None, true) => Trust::Anything,
            (None, false) => Trust::System,
        };
        match trust == Trust::System || self.url.is_secure() {
            true => Ok(trust),
            false => Err(ServerArgsError::NotSecure),
        }
    }

    /// The headers of every request.
    ///
    /// # Errors
    /// A header or the key is invalid.
    pub(crate) fn headers(&self) -> Result<HeaderMap, ServerArgsError> {
        Ok(headers::read(&self.header, self.key.as_ref())?)
    }
}

/// The settings of connections to a server at this address. `None` if they are not encrypted.
///
/// # Errors
/// The trusted certificates cannot be read.
pub(crate) fn client_tls(url: &ServerUrl, trust: &Trust) -> Result<Option<ClientTls>, ServerArgsError> {
    let tls = url.is_secure().then(|| ClientTls::new(trust)).transpose();
    tls.map_err(|source| ServerArgsError::Trust {
        trust: trust.clone(),
        source,
    })
}
