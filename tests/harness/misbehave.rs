//! Commands for the plugin `misbehave`, and its reports.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::client::{Client, Pending, Reply};
use super::eventually::eventually;
use super::gate::Gate;
use super::server::Server;

/// Returns an item that echoes its value.
pub(crate) fn echo(value: impl Into<Json>) -> Json {
    json!({ "value": value.into() })
}

/// Returns items that echo their values.
pub(crate) fn echoes<T: Into<Json>>(values: impl IntoIterator<Item = T>) -> Json {
    values.into_iter().map(echo).collect()
}

/// Returns an item that requests an action.
pub(crate) fn perform(action: &str, value: impl Into<Json>) -> Json {
    json!({ "do": action, "value": value.into(), "message": format!("the message of {action}") })
}

/// The report of an item about its batch.
#[derive(Clone, Debug)]
pub(crate) struct Report(Json);

impl Report {
    pub(crate) fn value(&self) -> &Json {
        &self.0["value"]
    }

    /// Returns the number of items in the batch.
    pub(crate) fn batch_size(&self) -> u64 {
        self.number("batch_size")
    }

    /// Returns the index of the batch among those of the loaded model.
    pub(crate) fn batch(&self) -> u64 {
        self.number("batch")
    }

    /// Returns the values of all items of the batch.
    pub(crate) fn batch_values(&self) -> Vec<Json> {
        self.0["order"]
            .as_array()
            .expect("a report lists its batch")
            .clone()
    }

    /// Returns the setting `tag` of the model.
    pub(crate) fn tag(&self) -> &str {
        self.0["tag"].as_str().expect("a report has a tag")
    }

    fn number(&self, member: &str) -> u64 {
        self.0[member]
            .as_u64()
            .unwrap_or_else(|| panic!("no `{member}` in {}", self.0))
    }
}

impl Reply {
    /// Returns the reports of all items. Panics if an output is not a report.
    #[track_caller]
    pub(crate) fn reports(&self) -> Vec<Report> {
        assert_eq!(self.status, 200, "{}", self.text());
        self.outputs().into_iter().map(Report).collect()
    }

    /// Returns the report of the only item.
    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        let mut reports = self.reports();
        assert_eq!(reports.len(), 1, "{}", self.text());
        reports.remove(0)
    }

    /// Returns the echoed values, in order.
    #[track_caller]
    pub(crate) fn values(&self) -> Vec<Json> {
        self.reports()
            .iter()
            .map(|report| report.value().clone())
            .collect()
    }
}

/// A worker that is busy until it is released.
pub(crate) struct Occupied {
    gate: Gate,
    pending: Pending,
}

impl Occupied {
    /// Releases the worker and returns the report of its batch.
    pub(crate) fn release(self) -> Report {
        self.gate.open();
        self.pending.reply().report()
    }
}

impl Server {
    /// Occupies a worker of a model with a batch that runs until it is released. Waits until the batch runs. If the model has one
    /// worker, all other items are queued in the meantime.
    #[track_caller]
    pub(crate) fn occupy(&self, model: &str) -> Occupied {
        let path = (0..)
            .map(|number| self.dir().join(format!("gate-{number}")))
            .find(|path| !path.exists() && !reached(path).exists())
            .expect("there are always more names");
        let item = json!({"do": "wait", "path": path, "value": "occupies the model"});
        let pending = self.in_background({
            let model = model.to_owned();
            move |client: &Client| {
                let path = super::client::predict_path(&model, "text");
                let call = client.request("POST", &path).header("x-request-timeout", "10m");
                call.header("x-priority", "high")
                    .json(&json!({ "inputs": [item] }))
                    .try_send()
            }
        });
        eventually("the model to be busy", || {
            assert!(
                !pending.is_answered(),
                "the item that occupies the model returned immediately"
            );
            if reached(&path).exists() {
                Ok(())
            } else {
                Err("not yet")
            }
        });
        Occupied {
            gate: Gate::at(path),
            pending,
        }
    }

    /// Waits until this number of items of a task is queued.
    #[track_caller]
    pub(crate) fn wait_for_queued(&self, model: &str, task: &str, items: u64) {
        self.wait_for_metric(
            "inference_queue_items",
            &[("model", model), ("task", task)],
            items,
        );
    }
}

fn reached(path: &std::path::Path) -> PathBuf {
    let mut reached = path.as_os_str().to_owned();
    reached.push(".reached");
    reached.into()
}

/// Number of batches and items of a task, from the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    pub(crate) count: u64,
    pub(crate) items: u64,
}

impl Batches {
    /// Returns the counts of a task.
    pub(crate) fn of(server: &Server, model: &str, task: &str) -> Self {
        let metrics = server.metrics();
        let labels = [("model", model), ("task", task)];
        Self {
            count: metrics.count("inference_batch_size_count", &labels),
            items: metrics.count("inference_batch_size_sum", &labels),
        }
    }
}
