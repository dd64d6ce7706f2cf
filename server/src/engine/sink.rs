//! Where one batch's outcomes come together.

use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};
use crate::values::{Tensor, Value};

use super::Outcome;

/// The outcomes of one `predict_batch`, by item.
pub(super) struct BatchSink {
    outcomes: Vec<Option<Outcome>>,
    /// Weights that were stated with the outputs, by item.
    weights: Vec<(usize, u64)>,
    /// The first thing that the plugin did against the contract.
    violation: Option<String>,
}

impl BatchSink {
    pub(super) fn new(items: usize) -> Self {
        Self {
            outcomes: std::iter::repeat_with(|| None).take(items).collect(),
            weights: Vec::new(),
            violation: None,
        }
    }

    /// The weights that were stated with the outputs, by item.
    pub(super) fn take_weights(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.weights)
    }

    /// The outcomes, or what the plugin did wrong.
    pub(super) fn finish(self) -> Result<Vec<Option<Outcome>>, String> {
        match self.violation {
            None => Ok(self.outcomes),
            Some(violation) => Err(violation),
        }
    }

    fn settle(&mut self, index: usize, outcome: Outcome) -> SinkStatus {
        let items = self.outcomes.len();
        match self.outcomes.get_mut(index) {
            Some(slot @ None) => {
                *slot = Some(outcome);
                SinkStatus::Accepted
            }
            Some(Some(_)) => self.refuse(format!("the plugin answered item {index} of its batch twice")),
            None => self.refuse(format!(
                "the plugin answered item {index} of a batch of {items} items"
            )),
        }
    }

    fn refuse(&mut self, violation: String) -> SinkStatus {
        self.violation.get_or_insert(violation);
        SinkStatus::Rejected
    }
}

impl OutputSink for BatchSink {
    fn emit(&mut self, index: usize, value: Value, more: bool) -> SinkStatus {
        if more {
            return SinkStatus::NotStreaming;
        }
        self.settle(index, Ok(value))
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        let items = self.outcomes.len();
        let mut rows: Vec<Vec<Tensor>> = std::iter::repeat_with(|| Vec::with_capacity(tensors.len()))
            .take(items)
            .collect();
        for tensor in tensors {
            let (name, shape) = (tensor.name().to_owned(), tensor.shape().to_vec());
            let Some(tensor_rows) = tensor.into_rows(items) else {
                return self.refuse(format!(
                    "the plugin answered a batch of {items} items with tensor `{name}` of shape {shape:?}; \
                     its first dimension must be {items}"
                ));
            };
            for (row, tensor) in rows.iter_mut().zip(tensor_rows) {
                row.push(tensor);
            }
        }
        for (index, row) in rows.into_iter().enumerate() {
            if self.settle(index, Ok(Value::Tensors(row))) == SinkStatus::Rejected {
                return SinkStatus::Rejected;
            }
        }
        SinkStatus::Accepted
    }

    fn fail(&mut self, index: usize, error: ItemError) -> SinkStatus {
        self.settle(index, Err(error))
    }

    fn weigh(&mut self, index: usize, weight: u64) {
        // At most one for each item, so that a plugin cannot make the list grow.
        if index < self.outcomes.len() && self.weights.len() < self.outcomes.len() {
            self.weights.push((index, weight));
        }
    }
}
