//! Settings of the process, its listeners and TLS.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::place::UncomparedOrigin;
use crate::config::error::Origin;
use crate::resources::MemoryBudget;
use crate::secret::Secret;
use crate::tls::{TlsFiles, TlsSetting};

/// The process and its HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Address or host name to listen on.
    pub host: String,
    /// Port to listen on; 0 picks a free port.
    pub port: u16,
    /// gRPC port, if gRPC is enabled; 0 picks a free port.
    pub grpc_port: Option<u16>,
    /// Port for health checks, metrics and the management of models, if there is one; 0 picks a free port.
    pub management_port: Option<u16>,
    /// Address or host name that the management port listens on.
    pub management_host: String,
    /// Whether metrics and the loading of models are served by the management port only.
    pub management_only: bool,
    /// TLS of the other ports, if it is enabled.
    pub tls: Option<TlsSettings>,
    /// Number of threads that read requests and write replies.
    pub http_workers: NonZeroUsize,
    /// Maximum number of threads of each model that prepare items.
    pub prepare_threads: NonZeroUsize,
    /// Maximum number of open connections per port.
    pub max_connections: NonZeroUsize,
    /// Time after which an idle connection is closed; zero closes every connection after its reply.
    pub keep_alive: Duration,
    /// Timeout for receiving the head of a request.
    pub header_timeout: Duration,
    /// Timeout for receiving the body of a request.
    pub body_timeout: Duration,
    /// Maximum size of a body in bytes, before and after decompression.
    pub max_body_size: usize,
    /// Maximum number of bytes that all requests hold at the same time.
    pub max_inflight_bytes: usize,
    /// Maximum memory of the batches of all models that run at the same time.
    pub memory_budget: Option<MemoryBudget>,
    /// Maximum number of items in a request.
    pub max_items_per_request: NonZeroUsize,
    /// Maximum nesting depth of a JSON body.
    pub max_json_depth: NonZeroUsize,
    /// Default deadline of a request, for models that do not set their own.
    pub request_timeout: Duration,
    /// Time for which the server keeps serving after SIGTERM, without being ready.
    pub shutdown_delay: Duration,
    /// Maximum time to wait for requests in flight after that.
    pub drain_timeout: Duration,
    /// Timeout for loading and warming up the models of a reload.
    pub reload_timeout: Duration,
    /// Directories searched for plugins given by name, in this order.
    pub plugin_dirs: Vec<PathBuf>,
    /// Directory for temporary copies of plugins, from which they are loaded.
    pub scratch_dir: PathBuf,
    /// Whether plugins are loaded whose files other users can change.
    pub allow_writable_plugins: bool,
    /// Whether replies are compressed for clients that accept it.
    pub compression: bool,
    /// Origins whose web pages may call the server; `*` allows all.
    pub cors_allowed_origins: Vec<String>,
    /// Niceness of threads and processes that load or run models, 0 to 19.
    pub model_nice: u8,
    /// API keys. Without keys and without a key file, requests require no key.
    pub api_keys: Vec<Secret>,
    /// The file of named API keys.
    pub api_keys_file: Option<PathBuf>,
    /// The key that allows loading and unloading models.
    pub admin_key: Option<Secret>,
    /// Whether the API documentation is served.
    pub docs: bool,
    /// Whether the page for operators is served.
    pub ui: bool,
}

/// TLS of the HTTP and gRPC ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The files.
    pub files: TlsFiles,
    pub(in crate::config) cert_origin: UncomparedOrigin,
    pub(in crate::config) key_origin: UncomparedOrigin,
    pub(in crate::config) client_ca_origin: Option<UncomparedOrigin>,
}

impl TlsSettings {
    /// Where the name of a file is written.
    pub fn origin(&self, setting: TlsSetting) -> Origin {
        let origin = match setting {
            TlsSetting::Cert => Some(&self.cert_origin),
            TlsSetting::Key => Some(&self.key_origin),
            TlsSetting::ClientCa => self.client_ca_origin.as_ref(),
        };
        origin.unwrap_or(&self.cert_origin).0.clone()
    }
}
