//! Settings that take effect only after a restart of the server.

use super::settings::{JobSettings, LoggingSettings, ServerSettings, Settings};
use crate::metrics::Buckets;

/// The keys whose values differ between two structs of a section. The keys after `;` are ignored, since they take effect on a
/// reload. A field that is in neither list is a compile error.
macro_rules! changed {
    ($section:literal, $type:ident, $old:expr, $new:expr, [$($field:ident => $key:literal),* ; $($applied:ident),*]) => {{
        let ($type { $($field: _,)* $($applied: _,)* }, old, new) = ($old, $old, $new);
        [$((old.$field != new.$field).then_some(concat!("`", $key, "` in [", $section, "]"))),*]
    }};
}

impl Settings {
    /// The keys that differ in `new` and take effect only after a restart, each with its section.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let server = changed!("server", ServerSettings, &self.server, &new.server, [
            host => "host",
            port => "port",
            grpc_port => "grpc_port",
            management_port => "management_port",
            management_host => "management_host",
            management_only => "management_only",
            tls => "tls",
            http_workers => "http_workers",
            prepare_threads => "prepare_threads",
            max_connections => "max_connections",
            keep_alive => "keep_alive",
            header_timeout => "header_timeout",
            body_timeout => "body_timeout",
            max_body_size => "max_body_size",
            max_inflight_bytes => "max_inflight_bytes",
            memory_budget => "memory_budget",
            max_items_per_request => "max_items_per_request",
            max_json_depth => "max_json_depth",
            shutdown_delay => "shutdown_delay",
            drain_timeout => "drain_timeout",
            reload_timeout => "reload_timeout",
            scratch_dir => "scratch_dir",
            allow_writable_plugins => "allow_writable_plugins",
            compression => "compression",
            cors_allowed_origins => "cors_allowed_origins",
            model_nice => "model_nice",
            api_keys => "api_keys",
            api_keys_file => "api_keys_file",
            admin_key => "admin_key",
            docs => "docs",
            ui => "ui";
            request_timeout, plugin_dirs
        ]);
        let logging = changed!("logging", LoggingSettings, &self.logging, &new.logging, [
            level => "level",
            format => "format",
            access_log => "access_log",
            access_log_exclude => "access_log_exclude",
            slow_request_log => "slow_request_log";
        ]);
        // Its settings are merged from several keys.
        let tracing = [(self.tracing != new.tracing).then_some("[tracing]")];
        let metrics = changed!("metrics", Buckets, &self.metrics, &new.metrics, [
            inference => "inference_buckets",
            requests => "request_buckets",
            stages => "stage_buckets";
        ]);
        let jobs = changed!("jobs", JobSettings, &self.jobs, &new.jobs, [
            enabled => "enabled",
            store => "store",
            max_queued_jobs => "max_queued_jobs",
            max_job_size => "max_job_size",
            max_result_size => "max_result_size",
            max_disk_size => "max_disk_size",
            retention => "retention",
            max_attempts => "max_attempts",
            lease => "lease",
            webhook_secret => "webhook_secret",
            webhook_allowed_hosts => "webhook_allowed_hosts",
            webhook_timeout => "webhook_timeout",
            webhook_concurrency => "webhook_concurrency";
        ]);
        server
            .into_iter()
            .chain(logging)
            .chain(tracing)
            .chain(metrics)
            .chain(jobs)
            .flatten()
            .collect()
    }
}
