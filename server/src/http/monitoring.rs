//! Routes that report the state of the server: models, health and metrics.
//!
//! They read a snapshot and never wait for a model.

use std::time::Duration;

use actix_web::http::header::{ACCEPT, HeaderValue, VARY};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use prometheus::{Encoder as _, TextEncoder};
use serde_json::{Value as Json, json};

use super::offload::run_by_size;
use super::respond;
use super::server::Shared;
use super::task_routes::TaskPath;
use super::v1;
use crate::api::{Call, Code, Failure, ModelExplanation, TaskExplanation, explain_model};
use crate::jobs::Jobs;
use crate::metrics::{OPEN_METRICS, write_open_metrics};
use crate::model::Health;
use crate::registry::{ModelEntry, ModelState};

/// Replies about more models than this are written on a blocking thread.
pub(super) const MAX_INLINE_MODELS: usize = 8;

/// `GET /v1/models`: one reply for clients of OpenAI (`data`) and KServe V1 (`models`).
pub(super) async fn models(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let view = shared.view(&request);
    let operator = view.client().is_admin();
    let write = {
        let view = view.clone();
        let is_draining = shared.registry.is_draining();
        let jobs = shared.jobs.clone();
        move || {
            let models = view
                .models()
                .map(|entry| describe(entry, is_draining, operator, &jobs));
            let models: Vec<Json> = models.collect();
            json!({"object": "list", "data": models, "models": models}).to_string()
        }
    };
    match run_by_size(view.models().count(), MAX_INLINE_MODELS, write).await {
        Ok(text) => respond::json(200, text),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// `GET /v1/models/{model}`
pub(super) async fn model(request: HttpRequest, shared: Data<Shared>, path: Path<TaskPath>) -> HttpResponse {
    let (view, name) = (shared.view(&request), &path.model);
    match Call::find(&view, name, None) {
        Ok((entry, task)) => {
            let operator = view.client().is_admin();
            let mut model = describe(entry, shared.registry.is_draining(), operator, &shared.jobs);
            rename(&mut model, name, task);
            respond::json(200, model.to_string())
        }
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// Gives the description of a model the name in the request. For `model.task`, only that task is included.
fn rename(model: &mut Json, name: &str, task: Option<usize>) {
    model["id"] = name.into();
    model["name"] = name.into();
    if let Some(task) = task {
        let task = model["tasks"][task].take();
        model["default_task"] = task["name"].clone();
        model["tasks"] = json!([task]);
    }
}

/// Describes a model. Operators see the full reasons of failures; clients see the public form.
fn describe(entry: &ModelEntry, is_draining: bool, operator: bool, jobs: &Jobs) -> Json {
    let ModelExplanation {
        explanation,
        recent,
        tasks: explained,
    } = explain_model(entry, is_draining, operator);
    let mut model = json!({
        "id": entry.name(),
        "object": "model",
        "created": 0,
        "owned_by": "inference-server",
        "name": entry.name(),
        "ready": entry.is_ready(),
        "state": state_name(entry),
        "model_version_status": v1::model_status::version_status(entry),
        "explanation": explanation,
        "recent": recent,
        "tasks": tasks(entry, explained),
    });
    if let Some(description) = entry.description() {
        model["description"] = description.into();
    }
    if let Some(jobs) = jobs.of_model(entry.name()) {
        let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
        model["jobs"] = json!({
            "queued": jobs.queued,
            "running": jobs.running,
            "oldest_queued_age_seconds": seconds(jobs.oldest_queued),
            "oldest_running_age_seconds": seconds(jobs.oldest_running),
        });
    }
    if let Some(reason) = entry.reason_for(operator) {
        model["reason"] = reason.into();
    }
    if let Some(error) = &entry.last_reload_error {
        model["last_reload_error"] = error.text(operator).into();
    }
    if let Some(generation) = entry.generation() {
        let plugin = &generation.plugin;
        model["created"] = generation.created.into();
        model["generation"] = generation.number.into();
        model["platform"] = generation.manifest.platform.as_str().into();
        model["details"] = json!(generation.manifest.details);
        model["plugin"] = json!({
            "name": plugin.name,
            "version": plugin.version,
            "description": plugin.description,
            "sdk_version": plugin.sdk_version,
        });
        let is_predicted = |task| generation.engine.memory(task).is_some();
        if (0..generation.manifest.tasks.len()).any(is_predicted) {
            model["memory"] = json!({
                "budget_bytes": generation.engine.memory_budget(),
                "reserved_bytes": generation.engine.reserved_memory(),
            });
        }
        if let Some(task) = entry
            .default_task
            .and_then(|index| generation.manifest.tasks.get(index))
        {
            model["default_task"] = task.name.as_str().into();
        }
    }
    model
}

fn tasks(entry: &ModelEntry, explained: Vec<TaskExplanation>) -> Vec<Json> {
    let estimates = |task| {
        entry
            .generation()
            .and_then(|generation| generation.engine.estimates(task))
    };
    let engine = entry.generation().map(|generation| &generation.engine);
    let memory = |task| engine.and_then(|engine| engine.memory(task));
    let padding_share = |task| engine.and_then(|engine| engine.padding_share(task));
    let trial = |task| {
        entry.generation().map(|generation| {
            let trial = generation.trial(task);
            json!({"outcome": trial.name(), "reason": trial.reason()})
        })
    };
    entry
        .task_manifests()
        .iter()
        .zip(&entry.tasks)
        .zip(explained)
        .enumerate()
        .map(|(task, ((manifest, settings), explained))| {
            json!({
                "name": manifest.name,
                "description": manifest.description,
                "input": manifest.input,
                "output": manifest.output,
                "parameters_schema": manifest.parameters_schema,
                "examples": manifest.examples,
                "unbatched": manifest.unbatched,
                "trial": trial(task),
                "policy": settings.batching.policy.name(),
                "learned": estimates(task).as_deref(),
                "memory": memory(task),
                "padding_share": padding_share(task),
                "max_batch_size": settings.batching.max_batch_size,
                "max_batch_weight": settings.batching.max_batch_weight,
                "max_queue_size": settings.max_queue_size,
                "route": settings.route,
                "queued_items": explained.queued_items,
                "recent": explained.recent,
                "explanation": explained.explanation,
            })
        })
        .collect()
}

pub(super) fn state_name(entry: &ModelEntry) -> &'static str {
    match (&entry.state, entry.health()) {
        (ModelState::Loading, _) => "loading",
        (ModelState::Failed { .. }, _) => "failed",
        (ModelState::Unloaded, _) => "unloaded",
        (ModelState::Ready(_), Some(Health::Recovering { .. })) => "recovering",
        (ModelState::Ready(_), Some(Health::CrashLoop { .. })) => "crash loop",
        (ModelState::Ready(_), Some(Health::Failed { .. })) => "failed",
        (ModelState::Ready(_), Some(Health::Ready) | None) if entry.is_untried() => "untried",
        (ModelState::Ready(_), Some(Health::Ready) | None) => "ready",
    }
}

/// `GET /health`: the state of every model; 503 unless all are ready.
pub(super) async fn health(shared: Data<Shared>) -> HttpResponse {
    let ready = shared.registry.is_ready();
    let status = match (shared.registry.is_draining(), ready) {
        (true, _) => "stopping",
        (false, true) => "ok",
        (false, false) => "not ready",
    };
    let snapshot = shared.registry.snapshot();
    let models: serde_json::Map<String, Json> = snapshot
        .models()
        .map(|entry| (entry.name().to_owned(), state_name(entry).into()))
        .collect();
    let body = json!({"status": status, "ready": ready, "models": models});
    respond::json(if ready { 200 } else { 503 }, body.to_string())
}

/// `GET /livez`: does not depend on models.
pub(super) async fn live() -> HttpResponse {
    respond::json(200, "{\"live\":true}")
}

/// `GET /readyz`
pub(super) async fn ready(shared: Data<Shared>) -> HttpResponse {
    let ready = shared.registry.is_ready();
    respond::json(if ready { 200 } else { 503 }, json!({"ready": ready}).to_string())
}

/// `GET /metrics`, in the OpenMetrics format for clients that prefer it.
pub(super) async fn metrics(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    let metrics = shared.metrics.clone();
    let accept = request.headers().get(ACCEPT).map(HeaderValue::as_bytes);
    let open = accept.is_some_and(prefers_open_metrics);
    let write = move || {
        if open {
            return Ok(write_open_metrics(&metrics).into_bytes());
        }
        let mut text = Vec::new();
        let result = TextEncoder::new().encode(&metrics.registry().gather(), &mut text);
        result.map(|()| text).map_err(|error| {
            log::error!("failed to write the metrics: {error}");
            Failure::new(Code::Internal, "failed to write the metrics")
        })
    };
    // With many models, the text can have several megabytes.
    let models = shared.registry.snapshot().models().count();
    match run_by_size(models, MAX_INLINE_MODELS, write).await.flatten() {
        Ok(text) => respond::status(200)
            .content_type(match open {
                true => OPEN_METRICS,
                false => "text/plain; version=0.0.4; charset=utf-8",
            })
            .insert_header((VARY, HeaderValue::from_static("accept")))
            .body(text),
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// Whether the header `accept` has OpenMetrics 1.0.0 with a quality of at least that of plain text.
fn prefers_open_metrics(accept: &[u8]) -> bool {
    let (mut open, mut plain) = (0.0, 0.0_f64);
    for range in String::from_utf8_lossy(accept).to_ascii_lowercase().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (mut quality, mut is_known_version) = (1.0, true);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => is_known_version = value.trim().trim_matches('"') == "1.0.0",
                _ => {}
            }
        }
        match media_type {
            "application/openmetrics-text" if is_known_version => open = f64::max(open, quality),
            "text/plain" => plain = plain.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_written_for_clients_that_prefer_it() {
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4",
            "Application/OpenMetrics-Text",
        ] {
            assert!(prefers_open_metrics(accept.as_bytes()), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/plain, application/openmetrics-text;q=0.9",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=high",
        ] {
            assert!(!prefers_open_metrics(accept.as_bytes()), "{accept}");
        }
    }
}
