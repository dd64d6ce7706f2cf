//! The access log: one line per request, in all protocols.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::request_options::request_id;
use super::telemetry::Telemetry;
use super::traces::{Scheme, Trace, TracedCall};
use crate::clock;
use crate::config::LoggingSettings;
use crate::routes;

/// What stands for the method of gRPC calls.
pub const GRPC: &str = "gRPC";

/// The head of a request, as the access log and traces describe it.
#[derive(Clone, Copy)]
pub struct IncomingHead<'a> {
    /// The HTTP method, or [`GRPC`].
    pub method: &'a str,
    /// The scheme of the client's URL; none for gRPC.
    pub scheme: Option<Scheme>,
    /// The path.
    pub path: &'a str,
    /// The address of the client.
    pub client: Option<SocketAddr>,
}

/// Decides which requests are logged, starts their traces, and generates ids for requests without one.
pub struct AccessLog {
    telemetry: Arc<Telemetry>,
    enabled: bool,
    exclude: Vec<String>,
    /// Random, so that generated ids differ between processes.
    prefix: u64,
    count: AtomicU64,
}

impl AccessLog {
    /// Creates the access log that the settings describe.
    pub fn new(settings: &LoggingSettings, telemetry: &Arc<Telemetry>) -> Self {
        Self {
            telemetry: telemetry.clone(),
            enabled: settings.access_log,
            exclude: settings.access_log_exclude.clone(),
            prefix: RandomState::new().build_hasher().finish(),
            count: AtomicU64::new(0),
        }
    }

    /// Starts the record of a request. `header` returns the value of a request header.
    pub fn start<'a>(
        self: &Arc<Self>,
        head: IncomingHead<'_>,
        header: impl Fn(&'static str) -> Option<&'a [u8]>,
    ) -> AccessRecord {
        let IncomingHead { method, path, .. } = head;
        let client = head.client.map(|client| client.ip());
        let entry = self.should_log(path).then(|| Entry {
            method: method.to_owned(),
            path: path.to_owned(),
            client,
            started: clock::now(),
        });
        let trace = self.telemetry.tracer.start(&header, || {
            let user_agent = header("user-agent").map(|name| String::from_utf8_lossy(name).into());
            TracedCall {
                method: (method != GRPC).then(|| method.to_owned()),
                scheme: head.scheme,
                path: path.into(),
                route: routes::find(path).map(|route| route.patterns[0]),
                client,
                user_agent,
            }
        });
        AccessRecord {
            trace,
            id: request_id(&header).map_or_else(|| self.next_id(), Into::into),
            entry,
            key: String::new(),
            status: CLIENT_CLOSED_REQUEST.into(),
        }
    }

    fn next_id(&self) -> Arc<str> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}{number:08x}", self.prefix).into()
    }

    fn should_log(&self, path: &str) -> bool {
        self.enabled && !self.exclude.iter().any(|pattern| path_matches(pattern, path))
    }
}

/// Whether a path matches a pattern. A `*` at the end of the pattern matches any suffix.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

/// The access log entry of a request in progress. It is written when the record is dropped; a record without a status
/// means that the client disconnected.
pub struct AccessRecord {
    id: Arc<str>,
    trace: Trace,
    /// None if the request is not logged.
    entry: Option<Entry>,
    /// Name of the key of the client, if it has one.
    key: String,
    status: i32,
}

struct Entry {
    method: String,
    path: String,
    client: Option<IpAddr>,
    started: Instant,
}

/// Status logged for a client that disconnected before its reply, as nginx does. It is never sent.
pub(super) const CLIENT_CLOSED_REQUEST: u16 = 499;

impl AccessRecord {
    /// The request id: from the client, or generated.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The trace of the request.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Sets the name of the key of the client.
    pub fn set_key(&mut self, name: Option<&str>) {
        if let Some(name) = name.filter(|_| self.entry.is_some()) {
            self.key = name.to_owned();
        }
    }

    /// Sets the status of the reply: an HTTP status, or a gRPC status code.
    pub fn set_status(&mut self, status: i32) {
        self.status = status;
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let Some(entry) = &self.entry else {
            return;
        };
        let elapsed = clock::now().saturating_duration_since(entry.started);
        let trace = self
            .trace
            .logged_id()
            .map(|trace| trace.to_string())
            .unwrap_or_default();
        let client = entry.client.map(|client| client.to_string()).unwrap_or_default();
        log::info!(
            target: "access",
            method = entry.method.as_str(),
            path = entry.path.as_str(),
            status = self.status,
            duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3,
            request_id = &*self.id,
            trace_id = trace.as_str(),
            client = client.as_str(),
            key = self.key.as_str();
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Facts, Overrides, Source, resolve};
    use crate::metrics::{Buckets, Metrics};

    #[test]
    fn by_default_everything_except_probes_is_logged() {
        let source = Source {
            file_name: "models.toml",
            text: "",
            base_dir: Path::new("/"),
        };
        let facts = Facts {
            executable_dir: PathBuf::new(),
            cores: NonZeroUsize::MIN,
            temp_dir: PathBuf::new(),
            memory: Some(8 << 30),
        };
        let settings =
            resolve(source, &BTreeMap::new(), &Overrides::none(), &facts).expect("the defaults are valid");
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are valid");
        let telemetry = Arc::new(Telemetry::of_metrics(Arc::new(metrics)));
        let log = AccessLog::new(&settings.logging, &telemetry);
        for route in crate::routes::ALL {
            for path in route.patterns {
                assert_eq!(log.should_log(path), !route.is_probe, "{path}");
            }
        }
    }

    #[test]
    fn a_pattern_can_end_in_an_asterisk() {
        assert!(path_matches("/health", "/health"));
        assert!(!path_matches("/health", "/healthy"));
        assert!(path_matches("/docs/*", "/docs/index.css"));
        assert!(!path_matches("/docs/*", "/docs"));
        assert!(path_matches("*", "/anything"));
    }
}
