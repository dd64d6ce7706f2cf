//! The state of a server: as it is read from `/v1/models`, and as it is printed.

use serde::{Deserialize, Serialize};

/// The state of a server, in the order and with the names of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ServerStatus {
    pub(super) url: String,
    /// As `/readyz` reports it.
    pub(super) ready: bool,
    pub(super) models: Vec<ModelStatus>,
}

/// The state of a model. Figures cover the last ten seconds; `None` if there are none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ModelStatus {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) ready: bool,
    pub(super) generation: Option<u64>,
    pub(super) requests_per_second: Option<f64>,
    pub(super) latency_p50_seconds: Option<f64>,
    pub(super) latency_p99_seconds: Option<f64>,
    pub(super) queued_items: u64,
    pub(super) batch_fill: Option<f64>,
    pub(super) worker_busy_share: Option<f64>,
    /// Failed items and rejected requests.
    pub(super) errors_per_second: Option<f64>,
    pub(super) explanation: Vec<Finding>,
}

/// A finding about a model or one of its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Finding {
    /// `None` if it is about the model.
    #[serde(skip_deserializing)]
    pub(super) task: Option<String>,
    pub(super) code: String,
    pub(super) message: String,
}

/// The reply of `/v1/models`.
#[derive(Debug, Deserialize)]
pub(super) struct ModelList {
    data: Vec<Model>,
}

/// The parts of the description of a model that are needed here. Those that earlier servers do not have are optional.
#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    state: String,
    ready: bool,
    generation: Option<u64>,
    recent: Option<Recent>,
    #[serde(default)]
    explanation: Vec<Finding>,
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Task {
    name: String,
    #[serde(default)]
    queued_items: u64,
    #[serde(default)]
    explanation: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Recent {
    requests_per_second: f64,
    failed_items_per_second: f64,
    rejections_per_second: f64,
    latency_p50_seconds: Option<f64>,
    latency_p99_seconds: Option<f64>,
    batch_fill: Option<f64>,
    worker_busy_share: Option<f64>,
}

impl ServerStatus {
    pub(super) fn new(url: String, ready: bool, list: ModelList) -> Self {
        Self {
            url,
            ready,
            models: list.data.into_iter().map(ModelStatus::from).collect(),
        }
    }
}

impl From<Model> for ModelStatus {
    fn from(model: Model) -> Self {
        let queued_items = model.tasks.iter().map(|task| task.queued_items).sum();
        let of_tasks = model.tasks.into_iter().flat_map(|task| {
            let name = task.name;
            task.explanation.into_iter().map(move |finding| Finding {
                task: Some(name.clone()),
                ..finding
            })
        });
        let recent = model.recent.as_ref();
        Self {
            name: model.name,
            state: model.state,
            ready: model.ready,
            generation: model.generation,
            requests_per_second: recent.map(|recent| recent.requests_per_second),
            latency_p50_seconds: recent.and_then(|recent| recent.latency_p50_seconds),
            latency_p99_seconds: recent.and_then(|recent| recent.latency_p99_seconds),
            queued_items,
            batch_fill: recent.and_then(|recent| recent.batch_fill),
            worker_busy_share: recent.and_then(|recent| recent.worker_busy_share),
            errors_per_second: recent
                .map(|recent| recent.failed_items_per_second + recent.rejections_per_second),
            explanation: model.explanation.into_iter().chain(of_tasks).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A server with a busy model and one that failed to load.
    pub(in crate::status) fn example() -> ServerStatus {
        let list = json!({"data": [
            {
                "name": "minilm", "state": "ready", "ready": true, "generation": 3,
                "recent": {
                    "requests_per_second": 1250.4, "failed_items_per_second": 0.5, "rejections_per_second": 2.0,
                    "latency_p50_seconds": 0.0042, "latency_p99_seconds": 0.031, "batch_fill": 0.42,
                    "worker_busy_share": 0.97,
                },
                "explanation": [{"code": "limit_queue", "message": "items wait 12 ms"}],
                "tasks": [
                    {"name": "query", "queued_items": 12, "explanation": []},
                    {"name": "passage", "queued_items": 30,
                     "explanation": [{"code": "batches_weight", "message": "batches are closed by weight"}]},
                ],
            },
            {
                "name": "words", "state": "failed", "ready": false, "recent": null, "tasks": [],
                "explanation": [{"code": "load_failed", "message": "no such\nfile \u{1b}[31m"}],
            },
        ]});
        let list = serde_json::from_value(list).expect("it is a list of models");
        ServerStatus::new("http://gpu-7:8080".to_owned(), false, list)
    }

    #[test]
    fn a_model_has_the_items_and_findings_of_its_tasks() {
        let status = example();
        let model = &status.models[0];
        assert_eq!((model.queued_items, model.errors_per_second), (42, Some(2.5)));
        let findings: Vec<_> = model
            .explanation
            .iter()
            .map(|finding| (finding.task.as_deref(), finding.code.as_str()))
            .collect();
        assert_eq!(
            findings,
            [(None, "limit_queue"), (Some("passage"), "batches_weight")]
        );
        assert_eq!(status.models[1].requests_per_second, None);
    }

    #[test]
    fn models_of_an_earlier_server_have_no_figures() {
        let list =
            json!({"data": [{"name": "m", "state": "ready", "ready": true, "tasks": [{"name": "t"}]}]});
        let list = serde_json::from_value(list).expect("it is a list of models");
        let status = ServerStatus::new(String::new(), true, list);
        assert_eq!(
            (status.models[0].queued_items, status.models[0].batch_fill),
            (0, None)
        );
    }
}
