//! The access log: one line for every request, whatever protocol it comes in.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::request_options::{request_id, trace_id};
use crate::clock;
use crate::config::LoggingSettings;

/// Who is logged, and the ids of those who bring none.
#[derive(Debug)]
pub struct AccessLog {
    enabled: bool,
    exclude: Vec<String>,
    /// Differs between processes, so that ids do as well.
    prefix: u64,
    count: AtomicU64,
}

impl AccessLog {
    /// A log as the operator wants it.
    pub fn new(settings: &LoggingSettings) -> Self {
        Self {
            enabled: settings.access_log,
            exclude: settings.access_log_exclude.clone(),
            prefix: RandomState::new().build_hasher().finish(),
            count: AtomicU64::new(0),
        }
    }

    /// A request begins. `header` gives the value of one of its headers.
    pub fn visit<'a>(
        self: &Arc<Self>,
        method: impl Into<String>,
        path: impl Into<String>,
        client: Option<SocketAddr>,
        header: impl Fn(&'static str) -> Option<&'a [u8]>,
    ) -> Visit {
        Visit {
            id: request_id(&header).map_or_else(|| self.next_id(), str::to_owned),
            trace: trace_id(&header).unwrap_or_default().to_owned(),
            method: method.into(),
            path: path.into(),
            client: client.map(|client| client.ip().to_string()).unwrap_or_default(),
            started: clock::now(),
            status: CLIENT_GONE.into(),
            log: self.clone(),
        }
    }

    fn next_id(&self) -> String {
        format!(
            "{:016x}{:08x}",
            self.prefix,
            self.count.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn logs(&self, path: &str) -> bool {
        self.enabled && !self.exclude.iter().any(|pattern| path_matches(pattern, path))
    }
}

/// Whether a path falls under a pattern, which may end in a `*` for any rest.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern,
    }
}

/// A request on its way, for the log. Dropped unfinished, its client went away.
pub struct Visit {
    log: Arc<AccessLog>,
    id: String,
    trace: String,
    method: String,
    path: String,
    client: String,
    started: Instant,
    status: i32,
}

/// What nginx logs for a client that went away before the answer; it is never sent.
pub(super) const CLIENT_GONE: u16 = 499;

impl Visit {
    /// The client's own id of the request, or one that it was given.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The path that was asked.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// It is answered, with this status of its protocol.
    pub fn set_status(&mut self, status: i32) {
        self.status = status;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.log.logs(&self.path) {
            return;
        }
        let took = clock::now().saturating_duration_since(self.started);
        log::info!(
            target: "access",
            method = self.method.as_str(),
            path = self.path.as_str(),
            status = self.status,
            duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            request_id = self.id.as_str(),
            trace_id = self.trace.as_str(),
            client = self.client.as_str();
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

    #[test]
    fn by_default_probes_are_not_logged_and_everything_else_is() {
        let source = Source {
            file_name: "models.toml",
            text: "",
            base_dir: Path::new("/"),
        };
        let facts = Facts {
            executable_dir: PathBuf::new(),
            cores: NonZeroUsize::MIN,
            temp_dir: PathBuf::new(),
        };
        let settings =
            resolve(source, &BTreeMap::new(), &Overrides::none(), &facts).expect("the defaults are valid");
        let log = AccessLog::new(&settings.logging);
        for route in crate::routes::ALL {
            for path in route.patterns {
                assert_eq!(log.logs(path), !route.is_probe, "{path}");
            }
        }
    }

    #[test]
    fn a_pattern_may_end_in_a_star() {
        assert!(path_matches("/health", "/health"));
        assert!(!path_matches("/health", "/healthy"));
        assert!(path_matches("/docs/*", "/docs/index.css"));
        assert!(!path_matches("/docs/*", "/docs"));
        assert!(path_matches("*", "/anything"));
    }
}
