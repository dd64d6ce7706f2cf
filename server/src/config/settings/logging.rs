//! Settings of the log.

use std::time::Duration;

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggingSettings {
    /// A filter in the syntax of `env_logger`.
    pub level: String,
    /// Format of a line.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Paths that the access log omits; a `*` at the end matches any suffix.
    pub access_log_exclude: Vec<String>,
    /// Which requests are logged as slow.
    pub slow_request_log: SlowRequests,
}

/// Format of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which requests are logged as slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlowRequests {
    /// None.
    Off,
    /// Those that take longer than this.
    Above(Duration),
    /// Those that take longer than this percentile, 0 to 100, of the requests of their task in the last minute.
    Percentile(f64),
}
