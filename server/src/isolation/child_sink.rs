//! The sink of a batch in the child: keeps what the model says until the batch is done. Only a part of an output, of which
//! more follows, goes to the server at once, which then says what became of it.

use super::lane::{Lane, LaneError};
use super::messages::{Outcome, Reply, Request};
use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};
use crate::values::{Tensor, Value};

/// See the module.
pub(super) struct Collector<'a> {
    lane: &'a mut Lane,
    outcomes: Vec<Outcome>,
    /// Whether each item of the batch has its outcome.
    settled: Vec<bool>,
    /// The place in the batch of each item that the model was given: those that could be prepared.
    places: Vec<usize>,
    /// How many weights have been stated.
    weights: usize,
}

impl<'a> Collector<'a> {
    /// For a batch of so many items.
    pub(super) fn new(lane: &'a mut Lane, items: usize) -> Self {
        Self {
            lane,
            outcomes: Vec::with_capacity(items),
            settled: vec![false; items],
            places: Vec::new(),
            weights: 0,
        }
    }

    /// From now on items are counted as the model sees them: those at these places alone.
    pub(super) fn only(&mut self, places: Vec<usize>) {
        self.places = places;
    }

    /// An item that the model will not see.
    pub(super) fn fail_at(&mut self, place: usize, error: ItemError) {
        self.settled[place] = true;
        self.outcomes.push(Outcome::Failure {
            index: place as u32,
            error,
        });
    }

    /// All that was said, in its order.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// Takes an outcome of the item that the model calls `index`, unless it has one.
    fn settle(&mut self, index: usize, outcome: impl FnOnce(u32) -> Outcome) -> SinkStatus {
        match self.places.get(index) {
            Some(&place) if !self.settled[place] => {
                self.settled[place] = true;
                self.outcomes.push(outcome(place as u32));
                SinkStatus::Accepted
            }
            _ => SinkStatus::Rejected,
        }
    }

    fn send_part(&mut self, place: usize, value: Value) -> Result<SinkStatus, LaneError> {
        let index = place as u32;
        self.lane.interject(Reply::Part { index, value }.encode())?;
        let message = self.lane.receive()?;
        match Request::decode(&message) {
            Ok(Request::Status(status)) => Ok(status),
            _ => Err(LaneError::Nonsense("no status of a part".to_owned())),
        }
    }
}

impl OutputSink for Collector<'_> {
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus {
        if !more {
            return self.settle(index, |index| Outcome::Output { index, value });
        }
        match self.places.get(index) {
            Some(&place) if !self.settled[place] => match self.send_part(place, value) {
                Ok(status) => status,
                Err(error @ (LaneError::TooLong { .. } | LaneError::NoMemory(_))) => {
                    self.fail_at(
                        place,
                        ItemError::Fault(format!("a part of the output cannot be sent: {error}")),
                    );
                    SinkStatus::Rejected
                }
                // A server that does not answer is gone, and so is the client.
                Err(_) => SinkStatus::Cancelled,
            },
            _ => SinkStatus::Rejected,
        }
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        let items = self.places.len();
        let misshapen = |tensor: &Tensor| tensor.shape().first() != Some(&(items as u64));
        if tensors.iter().any(misshapen) || self.places.iter().any(|&place| self.settled[place]) {
            return SinkStatus::Rejected;
        }
        if items == self.settled.len() {
            self.settled.fill(true);
            self.outcomes.push(Outcome::Rows(tensors));
            return SinkStatus::Accepted;
        }
        // The server would expect rows for the items that the model has not seen, too.
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
        // At most one for each item, so that a plugin cannot make the list grow.
        if let Some(&place) = self.places.get(index)
            && self.weights < self.places.len()
        {
            self.weights += 1;
            let index = place as u32;
            self.outcomes.push(Outcome::Weight { index, weight });
        }
    }
}
