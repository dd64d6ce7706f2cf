//! Where one batch's outcomes come together.

use crate::error::ItemError;
use crate::model::{OutputSink, SinkStatus};
use crate::values::{Tensor, Value};

use super::{Outcome, check_weight};

/// The outcomes of one `predict_batch`, by item.
pub(super) struct BatchSink {
    outcomes: Vec<Option<Outcome>>,
    /// Weights that were stated with the outputs, by item.
    weights: Vec<(usize, u64)>,
    /// The items whose weights exceed the maximum, with the error.
    too_heavy: Vec<(usize, ItemError)>,
    /// The first thing that the plugin did against the contract.
    violation: Option<String>,
}

impl BatchSink {
    pub(super) fn new(items: usize) -> Self {
        Self {
            outcomes: std::iter::repeat_with(|| None).take(items).collect(),
            weights: Vec::new(),
            too_heavy: Vec::new(),
            violation: None,
        }
    }

    /// The weights that were stated with the outputs, by item.
    pub(super) fn take_weights(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.weights)
    }

    /// The outcomes, or what the plugin did wrong.
    pub(super) fn finish(mut self) -> Result<Vec<Option<Outcome>>, String> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        for (index, error) in self.too_heavy {
            if let Some(outcome @ Ok(_)) = &mut self.outcomes[index] {
                *outcome = Err(error);
            }
        }
        Ok(self.outcomes)
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
        if index >= self.outcomes.len() || self.weights.len() + self.too_heavy.len() >= self.outcomes.len() {
            return;
        }
        match check_weight(weight) {
            Ok(()) => self.weights.push((index, weight)),
            Err(error) => self.too_heavy.push((index, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::batching::MAX_WEIGHT;

    #[test]
    fn an_output_whose_weight_exceeds_the_maximum_fails_alone() {
        let mut sink = BatchSink::new(3);
        let output = || Value::Text(Bytes::from_static(b"output"));
        for (index, weight) in [MAX_WEIGHT, MAX_WEIGHT + 1, u64::MAX].into_iter().enumerate() {
            sink.emit(index, output(), false);
            sink.weigh(index, weight);
        }
        assert_eq!(sink.take_weights(), [(0, MAX_WEIGHT)]);
        let fault = |weight: u64| {
            Some(Err(ItemError::Fault(format!(
                "weight {weight} exceeds the maximum of 1099511627776"
            ))))
        };
        assert_eq!(
            sink.finish(),
            Ok(vec![Some(Ok(output())), fault(MAX_WEIGHT + 1), fault(u64::MAX)])
        );
    }
}
