//! The task `padded_memory`: allocates as much memory as a model that pads its items, with known coefficients.

use std::hint::black_box;
use std::mem;
use std::time::Duration;

use memmap2::MmapMut;
use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;

use crate::{Misbehave, actions};

/// Size of the pages that are written.
const PAGE: usize = 4096;

/// Memory and time of a batch of B items whose heaviest has the weight L.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MemoryCosts {
    /// Bytes of any batch.
    c0: u64,
    /// Bytes for each item.
    c1: u64,
    /// Bytes for each of `B·L`.
    c2: u64,
    /// Bytes for each of `B·L²`.
    c3: u64,
    /// Nanoseconds for each of `B·L`.
    ns_per_weight: u64,
    /// Maximum weight of an item.
    max_weight: u64,
    /// Memory of a batch in bytes above which it fails with an out-of-memory error.
    available: Option<u64>,
    /// Memory of a batch in bytes above which the process is killed, as by the kernel when memory runs out.
    killed_above: Option<u64>,
    /// Bytes that the creation of each item leaves behind.
    kept_by_sample: usize,
}

impl Default for MemoryCosts {
    fn default() -> Self {
        Self {
            c0: 0,
            c1: 0,
            c2: 0,
            c3: 0,
            ns_per_weight: 0,
            max_weight: 4096,
            available: None,
            killed_above: None,
            kept_by_sample: 0,
        }
    }
}

impl MemoryCosts {
    /// Number of bytes that a batch allocates.
    fn bytes(&self, items: u64, heaviest: u64) -> u64 {
        let padded = items.saturating_mul(heaviest);
        let terms = [
            self.c0,
            self.c1.saturating_mul(items),
            self.c2.saturating_mul(padded),
            self.c3.saturating_mul(padded).saturating_mul(heaviest),
        ];
        terms.into_iter().fold(0, u64::saturating_add)
    }
}

/// An item of a given weight.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weighed {
    weight: u64,
}

/// What the batch of an item allocated.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Allocated {
    /// Number of bytes.
    bytes: u64,
    /// Number of items in the batch.
    batch_size: usize,
}

/// The task.
pub(crate) struct PaddedMemory;

impl PreparedTask<Misbehave> for PaddedMemory {
    type Input = Json<Weighed>;
    type Output = Json<Allocated>;
    type Prepared = u64;

    fn describe(&self) -> TaskInfo {
        TaskInfo::new("Allocates memory for a padded batch.")
            .samples()
            .example(json!({"weight": 1}))
    }

    fn prepare(&self, model: &Misbehave, item: Item<Weighed>) -> Result<Prepared<u64>, ItemError> {
        let (weight, max) = (item.value.weight, model.settings.padded_memory.max_weight);
        if weight > max {
            return Err(ItemError::invalid(format_args!(
                "`weight` is {weight}, expected at most {max}"
            )));
        }
        Ok(Prepared::new(weight).weight(weight))
    }

    fn predict(&self, model: &Misbehave, batch: Batch<&u64>) -> BatchResult<Allocated> {
        let costs = &model.settings.padded_memory;
        let heaviest = batch.iter().map(|weight| **weight).max().unwrap_or(0);
        let items = batch.len() as u64;
        let bytes = costs.bytes(items, heaviest);
        if costs.available.is_some_and(|available| bytes > available) {
            return Err(BatchError::out_of_memory(format_args!(
                "a batch needs {bytes} bytes"
            )));
        }
        if costs.killed_above.is_some_and(|limit| bytes > limit) {
            actions::kill();
        }
        // The allocator of the C library would keep a part of it.
        let mut memory = MmapMut::map_anon(bytes.max(1) as usize).map_err(BatchError::out_of_memory)?;
        // Memory is resident once it has been written to.
        for page in memory.chunks_mut(PAGE) {
            page[0] = 1;
        }
        black_box(memory.as_ptr());
        let nanos = costs.ns_per_weight.saturating_mul(items).saturating_mul(heaviest);
        actions::pause(Duration::from_nanos(nanos));
        drop(memory);
        let batch_size = batch.len();
        batch.map(|_| Allocated { bytes, batch_size })
    }

    fn sample(&self, model: &Misbehave, weight: u64) -> Option<JsonValue> {
        let costs = &model.settings.padded_memory;
        mem::forget(black_box(vec![1_u8; costs.kept_by_sample]));
        (weight <= costs.max_weight).then(|| json!({"weight": weight}))
    }
}
