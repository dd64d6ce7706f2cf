//! The sink of a batch in the child process. It keeps outcomes until the batch is done. Only parts of outputs are sent to the
//! server immediately, and the server replies with their status.

use super::channel::{Channel, ChannelError};
use super::messages::{Outcome, Reply, Request};
use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};
use crate::values::{Tensor, Value};

/// Collects the outcomes of one batch.
pub(super) struct ChildSink<'a> {
    channel: &'a mut Channel,
    outcomes: Vec<Outcome>,
    /// Whether each item of the batch has an outcome.
    settled: Vec<bool>,
    /// Positions in the batch of the items that the model runs. Items that could not be prepared are missing.
    positions: Vec<usize>,
    /// Number of weights that the model has set.
    weights: usize,
}

impl<'a> ChildSink<'a> {
    /// A sink for a batch of `items` items.
    pub(super) fn new(channel: &'a mut Channel, items: usize) -> Self {
        Self {
            channel,
            outcomes: Vec::with_capacity(items),
            settled: vec![false; items],
            positions: Vec::new(),
            weights: 0,
        }
    }

    /// Sets the positions of the items that the model runs. From now on, an index refers to this list.
    pub(super) fn set_positions(&mut self, positions: Vec<usize>) {
        self.positions = positions;
    }

    /// Fails an item that the model does not run.
    pub(super) fn fail_at(&mut self, position: usize, error: ItemError) {
        self.settled[position] = true;
        self.outcomes.push(Outcome::Failure {
            index: position as u32,
            error,
        });
    }

    /// All outcomes, in the order in which they were emitted.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// Records the outcome of item `index` unless it has one.
    fn settle(&mut self, index: usize, outcome: impl FnOnce(u32) -> Outcome) -> SinkStatus {
        match self.positions.get(index) {
            Some(&position) if !self.settled[position] => {
                self.settled[position] = true;
                self.outcomes.push(outcome(position as u32));
                SinkStatus::Accepted
            }
            _ => SinkStatus::Rejected,
        }
    }

    fn send_part(&mut self, position: usize, value: Value) -> Result<SinkStatus, ChannelError> {
        let index = position as u32;
        self.channel
            .send_without_reclaim(Reply::Part { index, value }.encode())?;
        let message = self.channel.receive()?;
        match Request::decode(&message) {
            Ok(Request::PartStatus(status)) => Ok(status),
            _ => Err(ChannelError::Malformed(
                "expected the status of a part".to_owned(),
            )),
        }
    }
}

impl OutputSink for ChildSink<'_> {
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus {
        if !more {
            return self.settle(index, |index| Outcome::Output { index, value });
        }
        match self.positions.get(index) {
            Some(&position) if !self.settled[position] => match self.send_part(position, value) {
                Ok(status) => status,
                Err(error @ (ChannelError::TooLong { .. } | ChannelError::NoMemory(_))) => {
                    self.fail_at(
                        position,
                        ItemError::Fault(format!(
                            "a part of the output cannot be sent to the server: {error}"
                        )),
                    );
                    SinkStatus::Rejected
                }
                // A server that does not reply has exited, so the output is not needed.
                Err(_) => SinkStatus::Cancelled,
            },
            _ => SinkStatus::Rejected,
        }
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        let items = self.positions.len();
        let has_wrong_rows = |tensor: &Tensor| tensor.shape().first() != Some(&(items as u64));
        if tensors.iter().any(has_wrong_rows) || self.positions.iter().any(|&position| self.settled[position])
        {
            return SinkStatus::Rejected;
        }
        if items == self.settled.len() {
            self.settled.fill(true);
            self.outcomes.push(Outcome::Rows(tensors));
            return SinkStatus::Accepted;
        }
        // Sent individually, because the server would also expect rows for the items that the model does not run.
        let mut columns: Vec<_> = tensors
            .into_iter()
            .filter_map(|tensor| tensor.into_rows(items))
            .map(Vec::into_iter)
            .collect();
        for index in 0..items {
            let row = columns.iter_mut().filter_map(Iterator::next).collect();
            self.settle(index, |index| Outcome::Output {
                index,
                value: Value::Tensors(row),
            });
        }
        SinkStatus::Accepted
    }

    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus {
        self.settle(index, |index| Outcome::Failure { index, error })
    }

    fn weigh(&mut self, index: usize, weight: u64) {
        // At most one for each item, so that a plugin cannot make the list grow without limit.
        if let Some(&position) = self.positions.get(index)
            && self.weights < self.positions.len()
        {
            self.weights += 1;
            let index = position as u32;
            self.outcomes.push(Outcome::Weight { index, weight });
        }
    }
}
