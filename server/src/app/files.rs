//! Determines how many connections fit below the limit on open files, next to the configured models.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use plugin_abi::manifest;

use super::{AppError, INSPECT_TIMEOUT};
use crate::config::{Isolation, ModelSettings, ServerSettings, Settings};
use crate::isolation::OpenFiles;
use crate::loader::{self, FileTrust, ProbeProgram};
use crate::open_files::{self, Demand};

/// Raises the limit on open files as far as the system allows, and returns the number of connections per port that fit.
///
/// # Errors
/// The limit is too low for this configuration.
pub(super) fn connections(settings: &Settings, serves_grpc: bool) -> Result<NonZeroUsize, AppError> {
    let limit = open_files::raise_limit();
    let wanted = settings.server.max_connections;
    let others = [serves_grpc, settings.server.management_port.is_some()];
    let ports = 1 + others.into_iter().filter(|is_served| *is_served).count() as u64;
    // The plugin of a model without `isolation` decides whether it runs in processes. Plugins are probed only if the answer
    // matters, since each probe starts a process.
    let pessimistic = demand(settings, &|_| Some(manifest::Isolation::Process));
    if open_files::connections_within(limit, wanted, ports, pessimistic) == Ok(wanted) {
        return Ok(wanted);
    }
    let declared = declared_isolation(settings);
    let known = demand(settings, &|plugin| declared.get(plugin).copied().flatten());
    let fitting = open_files::connections_within(limit, wanted, ports, known)?;
    open_files::warn_if_fewer(limit, wanted, fitting);
    Ok(fitting)
}

fn demand(settings: &Settings, declared: &dyn Fn(&Path) -> Option<manifest::Isolation>) -> Demand {
    let files = OpenFiles::for_process(settings.server.prepare_threads.get());
    let processes: u64 = settings
        .models
        .iter()
        .filter(|model| model.isolation.process(declared(&model.plugin)).is_some())
        .map(|model| model.workers.get() as u64)
        .sum();
    Demand {
        models: settings.models.len() as u64,
        processes: processes * (files.running + files.starting),
        reload: processes * files.running,
    }
}

/// The isolation that plugins declare, for models that do not set `isolation`. A plugin that cannot be probed declares none:
/// its models fail to load in any case.
fn declared_isolation(settings: &Settings) -> BTreeMap<&Path, Option<manifest::Isolation>> {
    let mut declared = BTreeMap::new();
    for model in &settings.models {
        if matches!(model.isolation, Isolation::AsDeclared(_)) {
            declared
                .entry(model.plugin.as_path())
                .or_insert_with(|| isolation_declared_by(&settings.server, model));
        }
    }
    declared
}

fn isolation_declared_by(server: &ServerSettings, model: &ModelSettings) -> Option<manifest::Isolation> {
    let trust = FileTrust {
        sha256: model.sha256,
        allow_writable: server.allow_writable_plugins,
    };
    let probe = loader::probe_trusted_plugin(
        &ProbeProgram::this_server(),
        &[],
        (&model.plugin, &trust),
        &server.scratch_dir,
        INSPECT_TIMEOUT,
    );
    probe.ok()?.report.manifest.isolation
}
