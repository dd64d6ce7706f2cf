//! Arguments and results of a task's functions: items, batches and outcomes.

use std::ops::Deref;

use plugin_abi::RawItem;
use serde::de::DeserializeOwned;

use crate::error::{BatchError, ItemError};
use crate::input;
use crate::output::AnyOutput;
use crate::tensor::TensorOutput;

/// The decoded items of one batch, all of one task. Dereferences to a slice.
#[derive(Debug)]
pub struct Batch<'a, T> {
    items: Vec<T>,
    /// Index in `raw` of each of `items`. `None` if no item was left out.
    positions: Option<Vec<u32>>,
    raw: &'a [RawItem<'a>],
    worker: usize,
}

impl<'a, T> Batch<'a, T> {
    /// Decodes the items. Those that cannot be decoded are left out and passed to `failed`.
    pub(crate) fn decode(
        raw: &'a [RawItem<'a>],
        worker: u32,
        decode: impl Fn(&RawItem<'a>) -> Result<T, ItemError>,
        mut failed: impl FnMut(u32, ItemError),
    ) -> Self {
        let mut items = Vec::with_capacity(raw.len());
        let mut positions: Option<Vec<u32>> = None;
        for (index, item) in (0_u32..).zip(raw) {
            match decode(item) {
                Ok(item) => {
                    items.push(item);
                    if let Some(positions) = &mut positions {
                        positions.push(index);
                    }
                }
                Err(error) => {
                    // Items before the first failure keep their index.
                    positions.get_or_insert_with(|| (0..index).collect());
                    failed(index, error);
                }
            }
        }
        Self {
            items,
            positions,
            raw,
            worker: worker as usize,
        }
    }

    pub(crate) fn positions(&self) -> Option<Vec<u32>> {
        self.positions.clone()
    }

    /// Returns the index of the worker that runs this batch, less than [`LoadContext::workers`](crate::LoadContext). Batches
    /// with the same index never run concurrently, so it can be used as an index into a pool of sessions or buffers.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Computes one output for each item.
    ///
    /// # Errors
    /// Never fails. It returns a `Result` so that it can be the last expression of `predict`.
    pub fn map<O>(self, output: impl FnMut(T) -> O) -> BatchResult<O> {
        Ok(self.into_iter().map(output).collect())
    }

    /// Computes one outcome for each item: an output or an error.
    ///
    /// # Errors
    /// Same as [`map`](Self::map).
    pub fn try_map<O>(self, outcome: impl FnMut(T) -> Result<O, ItemError>) -> BatchResult<O> {
        Ok(self.into_iter().map(outcome).collect())
    }

    /// Computes one outcome for each item from the item and the `parameters` of its request. If the parameters cannot be
    /// deserialized into `P`, only that item fails.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # struct Greeter;
    /// # impl Model for Greeter {
    /// #     type Settings = NoSettings;
    /// #     fn load(_: NoSettings, _: &LoadContext) -> Result<Self, LoadError> { Ok(Self) }
    /// #     fn tasks() -> Tasks<Self> { Tasks::new().add("repeat", Repeat) }
    /// # }
    /// #[derive(Deserialize, JsonSchema)]
    /// #[serde(deny_unknown_fields)]
    /// struct Options {
    ///     times: usize,
    /// }
    ///
    /// struct Repeat;
    ///
    /// impl Task<Greeter> for Repeat {
    ///     type Input = Text;
    ///     type Output = Text;
    ///
    ///     fn describe(&self) -> TaskInfo {
    ///         TaskInfo::new("Repeats a name.").parameters::<Options>()
    ///     }
    ///
    ///     fn predict(&self, _model: &Greeter, batch: Batch<&str>) -> BatchResult<String> {
    ///         batch.try_map_with(|name, options: Options| Ok(name.repeat(options.times)))
    ///     }
    /// }
    /// # let model = plugin_sdk::testing::Harness::<Greeter>::load(json!({})).expect("loads");
    /// # assert_eq!(model.predict_with("repeat", &[json!("a")], &json!({"times": 2})), [Ok(json!("aa"))]);
    /// # assert!(model.predict("repeat", &[json!("a")])[0].is_err());
    /// ```
    ///
    /// # Errors
    /// Same as [`map`](Self::map).
    pub fn try_map_with<P: DeserializeOwned, O>(
        self,
        mut outcome: impl FnMut(T, P) -> Result<O, ItemError>,
    ) -> BatchResult<O> {
        let parameters: Vec<Result<P, ItemError>> =
            (0..self.len()).map(|index| self.parameters(index)).collect();
        let outcomes = self.into_iter().zip(parameters);
        Ok(outcomes
            .map(|(item, parameters)| outcome(item, parameters?))
            .collect())
    }

    /// Returns the `parameters` of the request to which item `index` of this batch belongs.
    ///
    /// # Errors
    /// They cannot be deserialized into `P`. The message is meant for the client.
    ///
    /// # Panics
    /// `index` is out of bounds.
    pub fn parameters<P: DeserializeOwned>(&self, index: usize) -> Result<P, ItemError> {
        let position = match &self.positions {
            Some(positions) => positions[index] as usize,
            None => index,
        };
        input::parameters(&self.raw[position])
    }
}

impl<T> Deref for Batch<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> IntoIterator for Batch<'_, T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'b, T> IntoIterator for &'b Batch<'_, T> {
    type Item = &'b T;
    type IntoIter = std::slice::Iter<'b, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// One item as passed to `prepare`.
#[derive(Debug)]
pub struct Item<'a, T> {
    /// The decoded input.
    pub value: T,
    raw: &'a RawItem<'a>,
}

impl<'a, T> Item<'a, T> {
    pub(crate) fn new(value: T, raw: &'a RawItem<'a>) -> Self {
        Self { value, raw }
    }

    /// Returns the `parameters` of the item's request.
    ///
    /// # Errors
    /// They cannot be deserialized into `P`. The message is meant for the client.
    pub fn parameters<P: DeserializeOwned>(&self) -> Result<P, ItemError> {
        input::parameters(self.raw)
    }
}

/// A prepared item with its weight and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<T> {
    pub(crate) value: T,
    pub(crate) weight: u64,
    pub(crate) group: u64,
}

impl<T> Prepared<T> {
    /// Creates a prepared item with weight 1 that can share a batch with any other.
    pub fn new(value: T) -> Self {
        Self {
            value,
            weight: 1,
            group: 0,
        }
    }

    /// Sets the weight: the cost of the item in units of your choice, such as tokens or pixels. 0 counts as 1.
    #[must_use]
    pub fn weight(mut self, weight: u64) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// Sets the group, such as a hash of the shape. Items of different groups never share a batch.
    #[must_use]
    pub fn group(mut self, group: u64) -> Self {
        self.group = group;
        self
    }
}

/// Result of `predict`: one outcome for each item, or the error of the whole batch.
pub type BatchResult<T> = Result<Outputs<T>, BatchError>;

/// The outcomes of a batch: one for each item, in the order of the items.
///
/// Collect it from an iterator of outputs, or of `Result<_, ItemError>` if individual items can fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs<T> {
    pub(crate) outcomes: Outcomes<T>,
    pub(crate) weights: Option<Vec<u64>>,
}

impl<T> From<Outcomes<T>> for Outputs<T> {
    fn from(outcomes: Outcomes<T>) -> Self {
        Self {
            outcomes,
            weights: None,
        }
    }
}

impl<T> Outputs<T> {
    /// Reports the weight of each item, in the order of the items, for a task that does not report it in `prepare`. For an
    /// embedding, this is the number of tokens in `usage`.
    #[must_use]
    pub fn weights(mut self, weights: Vec<u64>) -> Self {
        self.weights = Some(weights);
        self
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcomes<T> {
    Each(Vec<Result<T, ItemError>>),
    Rows(Vec<TensorOutput>),
}

impl<T: Rows> Outputs<T> {
    /// Creates the outcomes of all items from tensors whose first dimension is the batch: row `i` belongs to item `i`. This is
    /// the fastest form of output if no item fails.
    pub fn batch(tensors: T) -> Self {
        Outcomes::Rows(tensors.into_tensors()).into()
    }
}

impl Outputs<AnyOutput> {
    /// Like [`batch`](Outputs::batch), for a task with [`Any`](crate::Any) as output.
    pub fn rows(tensors: Vec<TensorOutput>) -> Self {
        Outcomes::Rows(tensors).into()
    }
}

/// Tensors that hold the outcomes of a whole batch, one row per item: a [`TensorOutput`] or a `Vec` of them.
pub trait Rows: sealed::Sealed {
    #[doc(hidden)]
    fn into_tensors(self) -> Vec<TensorOutput>;
}

impl Rows for TensorOutput {
    fn into_tensors(self) -> Vec<TensorOutput> {
        vec![self]
    }
}

impl Rows for Vec<TensorOutput> {
    fn into_tensors(self) -> Vec<TensorOutput> {
        self
    }
}

mod sealed {
    use super::TensorOutput;

    pub trait Sealed {}
    impl Sealed for TensorOutput {}
    impl Sealed for Vec<TensorOutput> {}
}

impl<T> FromIterator<T> for Outputs<T> {
    fn from_iter<I: IntoIterator<Item = T>>(outputs: I) -> Self {
        Outcomes::Each(outputs.into_iter().map(Ok).collect()).into()
    }
}

impl<T> FromIterator<Result<T, ItemError>> for Outputs<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, ItemError>>>(outcomes: I) -> Self {
        Outcomes::Each(outcomes.into_iter().collect()).into()
    }
}
