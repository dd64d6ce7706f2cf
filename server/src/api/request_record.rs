//! The metrics record of an inference request, shared by all protocols.

use std::sync::Arc;
use std::time::Instant;

use super::access_log::CLIENT_CLOSED_REQUEST;
use super::call::Call;
use super::failure::Failure;
use crate::clock;
use crate::metrics::{Metrics, Protocol};
use crate::registry::{ModelEntry, Snapshot};

/// Measures a request from its arrival to its reply. It is counted once, when the record is dropped: with the status
/// of the reply, or as a disconnect if there is none. Requests to unknown models are not counted, because clients
/// must not create label values.
pub struct RequestRecord {
    metrics: Arc<Metrics>,
    protocol: Protocol,
    received: Instant,
    address: Option<Address>,
    status: u16,
}

/// The model, and the task if it is known.
enum Address {
    Task(Call),
    /// A model that is not ready, or that has no such task.
    Model(Arc<ModelEntry>),
}

impl RequestRecord {
    /// Starts the record of a request that arrived at `received`.
    pub fn new(metrics: &Arc<Metrics>, protocol: Protocol, received: Instant) -> Self {
        Self {
            metrics: metrics.clone(),
            protocol,
            received,
            address: None,
            status: CLIENT_CLOSED_REQUEST,
        }
    }

    /// Sets the model and task. If the task is unknown or the model is not ready, the request is counted for the
    /// model that `name`, from the request, refers to.
    pub fn set_address(&mut self, snapshot: &Snapshot, name: &str, call: &Result<Call, Failure>) {
        self.address = match call {
            Ok(call) => Some(Address::Task(call.clone())),
            Err(_) => snapshot
                .named(name)
                .map(|(entry, _)| Address::Model(entry.clone())),
        };
    }

    /// Arrival time of the request.
    pub fn received(&self) -> Instant {
        self.received
    }

    /// Finishes the record with the HTTP status of the reply.
    pub fn finish(mut self, status: u16) {
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
        let elapsed = clock::now().saturating_duration_since(self.received);
        self.metrics.count_request(model, task, |requests| {
            requests.observe(self.protocol, self.status, elapsed);
        });
    }
}
