//! Settings of a model and of its tasks.

use super::fill_in_defaults;
use super::paths::Paths;
use crate::config::error::{Location, Origin};
use crate::config::file::{ModelTable, TaskTable};
use crate::config::keys::{IsolationName, WrittenEmbeddings, WrittenModel};
use crate::config::lints;
use crate::config::section::{Located, Section as _};
use crate::config::settings::{
    BatchingLayers, CalibrationSource, EmbeddingSettings, Isolation, ModelPlaces, ModelSettings,
    ProcessSettings, ServerSettings, TaskOverrides, UncomparedLocation, written_value,
};
use crate::resources::Resources;

/// The settings of one model. `None` if a required key is missing, which has been reported already.
pub(super) fn model_settings(
    table: ModelTable,
    server: &ServerSettings,
    layers: &BatchingLayers,
    paths: &Paths<'_>,
) -> Option<ModelSettings> {
    let mut built_in = WrittenModel::empty();
    fill_in_defaults(&mut built_in);
    let process_keys = lints::process_keys(&table.keys)
        .into_iter()
        .map(|(key, origin)| (key, place_of(origin, &table.header)))
        .collect();
    let keys = table.keys.or(&built_in);
    let embeddings = embedding_settings(table.embeddings);
    let plugin = keys.plugin?;
    let mut plugin_files = paths.plugin(&plugin.value, &server.plugin_dirs).into_iter();
    let process = ProcessSettings {
        on_crash: written_value(keys.on_crash),
        predict_timeout: written_value(keys.predict_timeout),
        restart_delay: written_value(keys.restart_delay),
        max_restart_delay: written_value(keys.max_restart_delay),
    };
    Some(ModelSettings {
        name: keys.name?.value,
        sha256: keys.sha256.map(|located| located.value),
        plugin: plugin_files.next()?,
        plugin_alternatives: plugin_files.collect(),
        isolation: match keys.isolation.map(|located| located.value) {
            Some(IsolationName::Thread) => Isolation::Thread,
            Some(IsolationName::Process) => Isolation::Process(process),
            None => Isolation::AsDeclared(process),
        },
        workers: written_value(keys.workers),
        resources: Resources {
            max_memory: keys.max_memory.map(|located| located.value as u64),
            cpus: keys.cpus.map(|located| located.value),
            env: table.env.map(|env| env.variables).unwrap_or_default(),
            sandbox: written_value(keys.sandbox),
        },
        memory_budget: keys.memory_budget.map(|located| located.value),
        calibration: keys.calibration.map(|located| match located.value.as_str() {
            "auto" => CalibrationSource::Auto,
            file => CalibrationSource::File(paths.base_dir.join(file)),
        }),
        calibration_timeout: written_value(keys.calibration_timeout),
        nice: keys.nice.map(|located| located.value),
        warm_up: written_value(keys.warm_up),
        description: keys.description.map(|located| located.value),
        request_timeout: keys
            .request_timeout
            .map_or(server.request_timeout, |located| located.value),
        embeddings,
        settings: table.settings.value,
        base_dir: paths.base_dir.to_owned(),
        batching: BatchingLayers {
            file: table.batching.or(&layers.file),
            ..layers.clone()
        },
        tasks: table.tasks.into_iter().map(task_overrides).collect(),
        places: ModelPlaces {
            plugin: place_of(&plugin.origin, &table.header),
            default_task: keys
                .default_task
                .as_ref()
                .map(|located| place_of(&located.origin, &table.header)),
            process_keys,
            model: UncomparedLocation(table.header),
            settings: table.settings.places,
        },
        default_task: keys.default_task.map(|located| located.value),
    })
}

fn embedding_settings(written: WrittenEmbeddings) -> EmbeddingSettings {
    let mut built_in = WrittenEmbeddings::empty();
    fill_in_defaults(&mut built_in);
    let keys = written.or(&built_in);
    let prompt = |written: Option<Located<String>>| written.map(|located| located.value);
    EmbeddingSettings {
        dimensions: written_value(keys.dimensions),
        token_ids: written_value(keys.token_ids),
        search_query: prompt(keys.search_query),
        search_document: prompt(keys.search_document),
        classification: prompt(keys.classification),
        clustering: prompt(keys.clustering),
    }
}

fn task_overrides(table: TaskTable) -> (String, TaskOverrides) {
    let overrides = TaskOverrides {
        batching: table.batching,
        route: table.route,
        header: UncomparedLocation(table.header),
    };
    (table.name, overrides)
}

fn place_of(origin: &Origin, header: &Location) -> UncomparedLocation {
    match origin {
        Origin::File(location) => UncomparedLocation(location.clone()),
        Origin::Environment(_) | Origin::Flag(_) | Origin::BuiltIn => UncomparedLocation(header.clone()),
    }
}
