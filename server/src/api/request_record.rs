//! One inference request, for the metrics by model. The same for every protocol.

use std::sync::Arc;
use std::time::Instant;

use super::access_log::CLIENT_GONE;
use super::call::Call;
use super::failure::Failure;
use crate::clock;
use crate::metrics::{Metrics, Protocol};
use crate::registry::{ModelEntry, Snapshot};

/// A request from its arrival to its answer. It counts once, when it is dropped: with the status of its answer, or as one
/// whose client went away if it has none. A request to a model that is not known does not count, as its name is the client's
/// choice.
pub struct RequestRecord {
    metrics: Arc<Metrics>,
    protocol: Protocol,
    received: Instant,
    address: Option<Address>,
    status: u16,
}

/// What a request is addressed to.
enum Address {
    Task(Call),
    /// A model, none of whose tasks answers.
    Model(Arc<ModelEntry>),
}

impl RequestRecord {
    /// A request that arrived at `received` and is not answered yet.
    pub fn new(metrics: &Arc<Metrics>, protocol: Protocol, received: Instant) -> Self {
        Self {
            metrics: metrics.clone(),
            protocol,
            received,
            address: None,
            status: CLIENT_GONE,
        }
    }

    /// Records what the request is addressed to. `name` is what the client called it: if there is no such task, or the model
    /// does not serve, the request still counts for the model.
    pub fn addressed(&mut self, snapshot: &Snapshot, name: &str, call: &Result<Call, Failure>) {
        self.address = match call {
            Ok(call) => Some(Address::Task(call.clone())),
            Err(_) => snapshot
                .named(name)
                .map(|(entry, _)| Address::Model(entry.clone())),
        };
    }

    /// When the request arrived.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// Records the HTTP status of the answer.
    pub fn answered(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let (model, task) = match &self.address {
            Some(Address::Task(call)) => (call.entry.name(), Some(call.manifest().name.as_str())),
            Some(Address::Model(entry)) => (entry.name(), None),
            None => return,
        };
        let took = clock::now().saturating_duration_since(self.received);
        self.metrics.count_request(model, task, |requests| {
            requests.observe(self.protocol, self.status, took);
        });
    }
}
