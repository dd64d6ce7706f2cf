//! Settings of the process, its listeners and TLS.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::Facts;
use super::paths::Paths;
use crate::config::features::Features;
use crate::config::keys::{WrittenServer, WrittenTls};
use crate::config::section::Located;
use crate::config::settings::{ServerSettings, TlsSettings, UncomparedOrigin, written_value};
use crate::tls::TlsFiles;

pub(super) fn server_settings(
    written: WrittenServer,
    tls: WrittenTls,
    paths: &Paths<'_>,
    facts: &Facts,
) -> ServerSettings {
    let or_cores =
        |written: Option<Located<NonZeroUsize>>| written.map_or(facts.cores, |located| located.value);
    let api_keys_file = written.api_keys_file.map(|located| paths.directory(located));
    let directory = |written: Option<Located<String>>, default: &Path| {
        written.map_or_else(|| default.to_owned(), |located| paths.directory(located))
    };
    let max_body_size = written_value(written.max_body_size);
    let max_inflight_bytes = written.max_inflight_bytes.map_or_else(
        || default_inflight_bytes(facts.memory).max(max_body_size),
        |given| given.value,
    );
    let host = written_value(written.host);
    ServerSettings {
        management_host: written
            .management_host
            .map_or_else(|| host.clone(), |located| located.value),
        management_only: written_value(written.management_only),
        tls: tls_settings(tls, paths),
        host,
        port: written_value(written.port),
        grpc_port: written.grpc_port.map(|located| located.value),
        management_port: written.management_port.map(|located| located.value),
        http_workers: or_cores(written.http_workers),
        prepare_threads: or_cores(written.prepare_threads),
        max_connections: written_value(written.max_connections),
        keep_alive: written_value(written.keep_alive),
        header_timeout: written_value(written.header_timeout),
        body_timeout: written_value(written.body_timeout),
        max_body_size,
        max_inflight_bytes,
        memory_budget: written.memory_budget.map(|located| located.value),
        max_items_per_request: written_value(written.max_items_per_request),
        max_json_depth: written_value(written.max_json_depth),
        request_timeout: written_value(written.request_timeout),
        shutdown_delay: written_value(written.shutdown_delay),
        drain_timeout: written_value(written.drain_timeout),
        reload_timeout: written_value(written.reload_timeout),
        plugin_dirs: plugin_dirs(written.plugin_dir.map(|located| paths.directory(located)), facts),
        scratch_dir: directory(written.scratch_dir, &facts.temp_dir),
        allow_writable_plugins: written_value(written.allow_writable_plugins),
        compression: written_value(written.compression),
        cors_allowed_origins: written_value(written.cors_allowed_origins),
        model_nice: written_value(written.model_nice),
        api_keys: written_value(written.api_keys),
        api_keys_file,
        admin_key: written.admin_key.map(|located| located.value),
        docs: written_value(written.docs) && Features::BUILT.docs,
        ui: written_value(written.ui) && Features::BUILT.ui,
    }
}

/// The files of the certificate. `None` if one of the two required ones is missing, which has been reported if the other is
/// set.
fn tls_settings(written: WrittenTls, paths: &Paths<'_>) -> Option<TlsSettings> {
    let place = |written: Option<Located<String>>| {
        let located = written?;
        let origin = UncomparedOrigin(located.origin.clone());
        Some((paths.directory(located), origin))
    };
    let (cert, cert_origin) = place(written.cert)?;
    let (key, key_origin) = place(written.key)?;
    let (client_ca, client_ca_origin) = place(written.client_ca).unzip();
    Some(TlsSettings {
        files: TlsFiles { cert, key, client_ca },
        cert_origin,
        key_origin,
        client_ca_origin,
    })
}

/// The directories searched for plugins: the configured one, that of the executable, and that of an installation, such as
/// `/usr/lib/inference-server` for `/usr/bin`.
fn plugin_dirs(configured: Option<PathBuf>, facts: &Facts) -> Vec<PathBuf> {
    let bin = &facts.executable_dir;
    let installed = bin.parent().map(|prefix| prefix.join("lib/inference-server"));
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in configured.into_iter().chain([bin.clone()]).chain(installed) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// The default of `max_inflight_bytes` if the system does not report how much memory there is.
const UNKNOWN_MEMORY_BUDGET: u64 = 1 << 30;

/// A quarter of the memory that the server can use: models need the rest.
fn default_inflight_bytes(memory: Option<u64>) -> usize {
    let quarter = memory.map_or(UNKNOWN_MEMORY_BUDGET, |memory| memory / 4);
    usize::try_from(quarter).unwrap_or(usize::MAX)
}
