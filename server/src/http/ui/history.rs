//! The last ten minutes of a task for the charts of its page, as columns, and one second in the same form.

use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::state;
use crate::api::ModelView;
use crate::api::live::{ModelPoint, TaskPoint, WorkerPoint};
use crate::batching::DispatchReason;
use crate::engine::SIZE_CLASSES;
use crate::http::offload::run_blocking;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;

/// The task of a page.
#[derive(Deserialize)]
pub(super) struct TaskQuery {
    /// Its name.
    pub(super) task: Option<String>,
}

/// `GET /ui/history/{model}?task=…`
pub(super) async fn history(
    request: HttpRequest,
    shared: Data<Shared>,
    model: Path<String>,
    query: Query<TaskQuery>,
) -> HttpResponse {
    let view = ModelView::new(shared.registry.snapshot(), request.client());
    let task = match find_task(&view, &model, query.task.as_deref()) {
        Ok(task) => task,
        Err(failure) => return respond::failure(&request, &failure),
    };
    let feed = state(&shared).feed.clone();
    let write = move || {
        let points = feed.history(&model);
        let points = points.iter().filter_map(|point| {
            let task = point.tasks.get(task?)?;
            Some(write_point(point, task))
        });
        json!({
            "reasons": DispatchReason::ALL.map(DispatchReason::as_str),
            "sizes": size_names(),
            "points": points.collect::<Vec<_>>(),
        })
        .to_string()
    };
    match run_blocking(write).await {
        Ok(text) => {
            let mut response = respond::json(200, text);
            let headers = response.headers_mut();
            headers.insert(
                CACHE_CONTROL,
                actix_web::http::header::HeaderValue::from_static("no-store"),
            );
            response
        }
        Err(failure) => respond::failure(&request, &failure),
    }
}

/// The index of a task that the client may use: the named one, or else the first. `None` if the model is not serving.
///
/// # Errors
/// The model or the task does not exist, or the client may not use it.
pub(super) fn find_task(
    view: &ModelView,
    model: &str,
    task: Option<&str>,
) -> Result<Option<usize>, crate::api::Failure> {
    let entry = view.model(model)?;
    let tasks = entry.task_manifests();
    if entry.generation().is_none() {
        return Ok(None);
    }
    let names = || tasks.iter().map(|task| task.name.as_str());
    let client = view.client();
    match task {
        Some(task) => {
            client.check_task(model, task)?;
            match entry.task_index(task) {
                Some(index) => Ok(Some(index)),
                None => Err(crate::api::Failure::unknown_task(model, task, names())),
            }
        }
        None => {
            let default = entry.default_task.unwrap_or_default();
            let mut order = [default].into_iter().chain(0..tasks.len());
            Ok(order.find(|index| {
                tasks
                    .get(*index)
                    .is_some_and(|task| client.sees_task(model, &task.name))
            }))
        }
    }
}

/// The names of the classes of sizes.
fn size_names() -> Vec<String> {
    let name = |class: usize| match class {
        0 => "1".to_owned(),
        1 => "2".to_owned(),
        class if class + 1 == SIZE_CLASSES => format!("> {}", 1 << (class - 1)),
        class => format!("{}–{}", (1 << (class - 1)) + 1, 1 << class),
    };
    (0..SIZE_CLASSES).map(name).collect()
}

/// One second of a task: `[time, requests, errors, queued, [p50, p99 of the request and of each stage…], sizes, reasons, workers,
/// processes, restarts]`. Trailing zeros of counts are omitted. A worker is the part of the second in which it ran batches, in
/// percent, or -1 while it is restarting.
pub(super) fn write_point(point: &ModelPoint, task: &TaskPoint) -> Json {
    let percentiles = [&task.latency].into_iter().chain(&task.stages);
    let percentiles = percentiles.flat_map(|percentiles| match percentiles {
        Some(millis) => millis.map(short),
        None => [Json::Null, Json::Null],
    });
    let workers = point.workers.iter().map(|worker| match worker {
        WorkerPoint::Busy(percent) => i16::from(*percent),
        WorkerPoint::Restarting => -1,
    });
    let workers: Vec<i16> = workers.collect();
    json!([
        point.unix_seconds,
        short(task.requests),
        short(task.errors),
        task.queued,
        percentiles.collect::<Vec<_>>(),
        trimmed(&task.sizes),
        trimmed(&task.reasons),
        workers,
        point.processes,
        point.restarts,
    ])
}

/// A number with three significant digits.
fn short(value: f32) -> Json {
    if value == 0.0 || !value.is_finite() {
        return json!(0);
    }
    let value = f64::from(value);
    let factor = 10_f64.powi(2 - value.abs().log10().floor() as i32);
    match (value * factor).round() / factor {
        value if factor <= 1.0 => json!(value.round() as i64),
        value => json!(value),
    }
}

fn trimmed(counts: &[u16]) -> &[u16] {
    let end = counts
        .iter()
        .rposition(|count| *count > 0)
        .map_or(0, |last| last + 1);
    &counts[..end]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A second in which everything has many digits.
    pub(in crate::http::ui) fn busy_point() -> ModelPoint {
        ModelPoint {
            unix_seconds: 1_764_510_000,
            workers: vec![WorkerPoint::Busy(100); 16].into(),
            processes: Some(32),
            restarts: 65_535,
            tasks: vec![TaskPoint {
                requests: 123_456.7,
                errors: 12_345.67,
                latency: Some([123.456, 1234.567]),
                stages: [Some([0.123_456, 12_345.678]); 4],
                queued: 65_536,
                sizes: [65_535; SIZE_CLASSES],
                reasons: [65_535; DispatchReason::ALL.len()],
            }]
            .into(),
        }
    }

    #[test]
    fn a_second_is_written_in_few_bytes() {
        let point = busy_point();
        let text = write_point(&point, &point.tasks[0]).to_string();
        assert!(text.len() < 340, "{} bytes: {text}", text.len());
        assert!(
            text.starts_with("[1764510000,123000,12300,65536,[123,1230,0.123,12300,0.123,"),
            "{text}"
        );
    }

    #[test]
    fn an_idle_second_is_short() {
        let point = ModelPoint {
            unix_seconds: 5,
            workers: vec![WorkerPoint::Busy(0), WorkerPoint::Restarting].into(),
            processes: None,
            restarts: 0,
            tasks: Box::default(),
        };
        let task = TaskPoint {
            requests: 0.0,
            errors: 0.0,
            latency: None,
            stages: [None; 4],
            queued: 0,
            sizes: [0; SIZE_CLASSES],
            reasons: [0; DispatchReason::ALL.len()],
        };
        assert_eq!(
            write_point(&point, &task).to_string(),
            "[5,0,0,0,[null,null,null,null,null,null,null,null,null,null],[],[],[0,-1],null,0]"
        );
    }

    #[test]
    fn the_classes_of_sizes_are_named_by_their_range() {
        assert_eq!(
            size_names(),
            [
                "1",
                "2",
                "3–4",
                "5–8",
                "9–16",
                "17–32",
                "33–64",
                "65–128",
                "129–256",
                "> 256"
            ]
        );
    }
}
