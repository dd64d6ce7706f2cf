//! Items of a requested weight, with which the server measures batches.

use plugin_sdk::serde_json::{Value as Json, json};

use super::made_up::{MAX_ELEMENTS, is_past, open_size};
use super::{Plan, Slot, Tried};
use crate::network::Dim;
use crate::task::{Sample, SampleTensor};

/// Creates items of a task.
pub(super) enum Sampler {
    /// Texts of any number of tokens.
    Texts,
    /// All items have about the same weight.
    One(Json),
    /// Items that differ from one that the model has computed in the sizes of open dimensions.
    Resized(Sample),
}

impl Sampler {
    /// `None` if the trial computed no item, or one that JSON cannot represent.
    pub(super) fn new(plan: &Plan, tried: &Tried) -> Option<Self> {
        let sample = tried.sample()?;
        if plan.texts.is_some() {
            return Some(Self::Texts);
        }
        if plan.images.is_some() {
            return plan.made_up_example(tried).map(Self::One);
        }
        let is_empty = sample.0.iter().any(|tensor| tensor.shape.contains(&0));
        let is_ranked = plan
            .inputs
            .iter()
            .all(|slot| slot.dims.is_some() && !slot.spec.sequence);
        (!is_empty && is_ranked && !sample.0.is_empty()).then(|| Self::Resized(sample.clone()))
    }
}

impl Plan {
    /// Whether [`item_of_weight`](Self::item_of_weight) returns items.
    pub(crate) fn creates_items(&self) -> bool {
        self.sampler.is_some()
    }

    /// An item that weighs about `weight`, as a client would send it. `None` if there is none.
    pub(crate) fn item_of_weight(&self, weight: u64) -> Option<Json> {
        match self.sampler.as_ref()? {
            Sampler::Texts => self.texts.as_ref()?.sample(weight).map(|text| json!(text)),
            Sampler::One(item) => Some(item.clone()),
            Sampler::Resized(sample) => self.to_example(&self.resized(sample, weight)?),
        }
    }

    /// An item whose open dimensions have a size that results in about the weight. Those that count previous results keep theirs.
    fn resized(&self, sample: &Sample, weight: u64) -> Option<Sample> {
        // The weight is the product of the open dimensions of one tensor.
        let rank = self.inputs.iter().map(Slot::growing_dims).max().unwrap_or(0);
        let size = match rank {
            0 => 1,
            rank => (weight as f64).powf(1.0 / rank as f64).round().max(1.0) as usize,
        };
        let past = self.past(sample).unwrap_or(size);
        let resize = |tensor: &SampleTensor| {
            let dims = self.inputs[tensor.slot].dims.as_ref()?;
            let sized = |(size_now, dim): (&usize, &Dim)| match dim {
                Dim::Fixed(_) => *size_now,
                Dim::Open(name) => open_size(name, size, past),
            };
            let shape: Vec<_> = tensor.shape.iter().zip(dims).map(sized).collect();
            let elements = shape
                .iter()
                .try_fold(1_usize, |product, size| product.checked_mul(*size))?;
            (elements <= MAX_ELEMENTS.max(tensor.values.len())).then(|| tensor.resized(shape))
        };
        let tensors: Option<_> = sample.0.iter().map(resize).collect();
        Some(Sample(tensors?, sample.1))
    }

    /// The size of a dimension of the item that counts previous results.
    fn past(&self, sample: &Sample) -> Option<usize> {
        sample.0.iter().find_map(|tensor| {
            let dims = self.inputs[tensor.slot].dims.as_ref()?;
            let counts = |dim: &Dim| matches!(dim, Dim::Open(name) if is_past(name) && !name.contains('+'));
            Some(tensor.shape[dims.iter().position(counts)?])
        })
    }
}

impl Slot {
    /// Number of open dimensions whose size depends on the weight of an item.
    fn growing_dims(&self) -> usize {
        let term_grows = |term: &str| !is_past(term) && term.trim().parse::<usize>().is_err();
        let grows = |dim: &&Dim| matches!(dim, Dim::Open(name) if name.split('+').any(term_grows));
        self.dims.iter().flatten().filter(grows).count()
    }
}
