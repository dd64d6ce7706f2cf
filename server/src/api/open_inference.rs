//! What the server and its models tell of themselves in the Open Inference Protocol, in the words of that protocol. REST
//! sends these as JSON, gRPC as messages of the same shape.

use serde::Serialize;

use super::call::{Call, VERSION};
use super::tensors::{self, Spec};
use crate::batching::Policy;
use crate::engine::Total;
use crate::registry::{ModelState, Snapshot};
use crate::values::DType;

/// The name of the server.
pub const SERVER_NAME: &str = "inference-server";

/// The version of the server.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the server has beyond the core of the protocol.
pub const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// What tensors a model takes and gives.
#[derive(Debug, Serialize)]
pub struct ModelMetadata {
    /// As the client asked.
    pub name: String,
    /// All that there are.
    pub versions: [&'static str; 1],
    /// Framework of the model.
    pub platform: String,
    /// What it takes.
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    pub outputs: Vec<TensorMetadata>,
}

/// One tensor of a model.
#[derive(Debug, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: &'static str,
    /// Its dimensions; the first counts items, unless the task is unbatched. -1 is any size.
    pub shape: Vec<i64>,
}

/// Triton's configuration of a model, as far as it means something here.
#[derive(Debug, Serialize)]
pub struct ModelConfig {
    /// As the client asked.
    pub name: String,
    /// Framework of the model.
    pub platform: String,
    /// Name of the plugin.
    pub backend: String,
    /// Maximum number of items in a batch. If it is greater than zero, `dims` are the dimensions of one item; it is zero for
    /// an unbatched task, where they are those of the whole tensor.
    pub max_batch_size: usize,
    /// What it takes.
    pub input: Vec<TensorConfig>,
    /// What it gives.
    pub output: Vec<TensorConfig>,
    /// Workers.
    pub instance_group: [InstanceGroup; 1],
    /// How items wait for a fuller batch; absent for an unbatched task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
    /// One reply for each request.
    pub model_transaction_policy: TransactionPolicy,
}

/// One tensor of a model, in its configuration.
#[derive(Debug, Serialize)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub data_type: &'static str,
    /// Dimensions of one item; -1 is any size.
    pub dims: Vec<i64>,
}

/// What runs a model.
#[derive(Debug, Serialize)]
pub struct InstanceGroup {
    /// As the client asked for the model.
    pub name: String,
    /// `KIND_CPU`; what a plugin makes of it is not known here.
    pub kind: &'static str,
    /// Workers.
    pub count: usize,
}

/// How items wait for a fuller batch.
#[derive(Debug, Serialize)]
pub struct DynamicBatching {
    /// Longest wait.
    pub max_queue_delay_microseconds: u64,
}

/// How many replies a request has.
#[derive(Debug, Serialize)]
pub struct TransactionPolicy {
    /// Never.
    pub decoupled: bool,
}

/// What a model has done since it was loaded.
#[derive(Debug, Serialize)]
pub struct ModelStatistics {
    /// As the client asked.
    pub name: String,
    /// The only one.
    pub version: &'static str,
    /// When a request was answered last, in Unix milliseconds.
    pub last_inference: u64,
    /// Items.
    pub inference_count: u64,
    /// Batches.
    pub execution_count: u64,
    /// Where the time of its requests went.
    pub inference_stats: InferStatistics,
    /// Where the time of its batches went, by their size.
    pub batch_stats: Vec<InferBatchStatistics>,
}

/// Where the time of requests went.
#[derive(Debug, Serialize)]
pub struct InferStatistics {
    /// Requests that succeeded.
    pub success: StatisticDuration,
    /// Requests that failed.
    pub fail: StatisticDuration,
    /// Waiting.
    pub queue: StatisticDuration,
    /// Preparing items.
    pub compute_input: StatisticDuration,
    /// In the model.
    pub compute_infer: StatisticDuration,
    /// Writing replies.
    pub compute_output: StatisticDuration,
    /// There is no cache.
    pub cache_hit: StatisticDuration,
    /// There is no cache.
    pub cache_miss: StatisticDuration,
}

/// Where the time of the batches of one size went.
#[derive(Debug, Serialize)]
pub struct InferBatchStatistics {
    /// Items.
    pub batch_size: u64,
    /// Nothing: items are prepared before they are in a batch.
    pub compute_input: StatisticDuration,
    /// In the model.
    pub compute_infer: StatisticDuration,
    /// Nothing: replies are written after it, request by request.
    pub compute_output: StatisticDuration,
}

/// How often, and how long in all.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StatisticDuration {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

impl From<Total> for StatisticDuration {
    fn from(total: Total) -> Self {
        Self {
            count: total.count,
            ns: total.time.as_nanos() as u64,
        }
    }
}

/// One model in the list of models.
#[derive(Debug, Serialize)]
pub struct IndexEntry {
    /// Configured name.
    pub name: String,
    /// The only one.
    pub version: &'static str,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why it is not ready; may be empty.
    pub reason: String,
}

/// What tensors the model that a client calls `name` takes and gives.
pub fn metadata(name: &str, call: &Call) -> ModelMetadata {
    let tensors = |specs: Vec<Spec<'_>>| {
        let one = |spec: &Spec<'_>| TensorMetadata {
            name: spec.name.to_owned(),
            datatype: spec.dtype.name(),
            shape: spec.shape(),
        };
        specs.iter().map(one).collect()
    };
    ModelMetadata {
        name: name.to_owned(),
        versions: [VERSION],
        platform: call.generation.manifest.platform.clone(),
        inputs: tensors(tensors::inputs(call.manifest())),
        outputs: tensors(tensors::outputs(call.manifest())),
    }
}

/// How the model that a client calls `name` is run.
pub fn config(name: &str, call: &Call) -> ModelConfig {
    let tensors = |specs: Vec<Spec<'_>>| {
        let one = |spec: Spec<'_>| TensorConfig {
            name: spec.name.to_owned(),
            data_type: data_type(spec.dtype),
            dims: spec.item_shape,
        };
        specs.into_iter().map(one).collect()
    };
    let batching = call.entry.tasks[call.task].batching;
    let unbatched = call.manifest().unbatched;
    let max_delay = match batching.policy {
        Policy::Adaptive { max_delay } | Policy::Fixed { max_delay } => max_delay,
        Policy::Greedy | Policy::Off => std::time::Duration::ZERO,
    };
    ModelConfig {
        name: name.to_owned(),
        platform: call.generation.manifest.platform.clone(),
        backend: call.generation.plugin.name.clone(),
        max_batch_size: if unbatched {
            0
        } else {
            batching.max_batch_size.get()
        },
        input: tensors(tensors::inputs(call.manifest())),
        output: tensors(tensors::outputs(call.manifest())),
        instance_group: [InstanceGroup {
            name: name.to_owned(),
            kind: "KIND_CPU",
            count: call.entry.settings.workers.get(),
        }],
        dynamic_batching: (!unbatched).then_some(DynamicBatching {
            max_queue_delay_microseconds: max_delay.as_micros() as u64,
        }),
        model_transaction_policy: TransactionPolicy { decoupled: false },
    }
}

/// Triton's name of a type of elements.
fn data_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "TYPE_BOOL",
        DType::Uint8 => "TYPE_UINT8",
        DType::Uint16 => "TYPE_UINT16",
        DType::Uint32 => "TYPE_UINT32",
        DType::Uint64 => "TYPE_UINT64",
        DType::Int8 => "TYPE_INT8",
        DType::Int16 => "TYPE_INT16",
        DType::Int32 => "TYPE_INT32",
        DType::Int64 => "TYPE_INT64",
        DType::Fp16 => "TYPE_FP16",
        DType::Fp32 => "TYPE_FP32",
        DType::Fp64 => "TYPE_FP64",
        DType::Bf16 => "TYPE_BF16",
        DType::Bytes => "TYPE_STRING",
    }
}

/// What the model that a client calls `name` has done.
pub fn statistics(name: &str, call: &Call) -> ModelStatistics {
    let totals = call.generation.engine.totals(call.task);
    let execution_count = totals.batches.values().map(|total| total.count).sum();
    let batches = totals
        .batches
        .into_iter()
        .map(|(size, total)| InferBatchStatistics {
            batch_size: size as u64,
            compute_input: StatisticDuration::default(),
            compute_infer: total.into(),
            compute_output: StatisticDuration::default(),
        });
    ModelStatistics {
        name: name.to_owned(),
        version: VERSION,
        last_inference: totals.last_unix_millis,
        inference_count: totals.items,
        execution_count,
        inference_stats: InferStatistics {
            success: totals.succeeded.into(),
            fail: totals.failed.into(),
            queue: totals.queue.into(),
            compute_input: totals.prepare.into(),
            compute_infer: totals.inference.into(),
            compute_output: totals.encode.into(),
            cache_hit: StatisticDuration::default(),
            cache_miss: StatisticDuration::default(),
        },
        batch_stats: batches.collect(),
    }
}

/// The statistics of every task that is loaded: by the name of its model, if it is the only one, else as `model.task`.
pub fn all_statistics(snapshot: &Snapshot) -> Vec<ModelStatistics> {
    let mut all = Vec::new();
    for entry in snapshot.models() {
        let tasks = entry.task_manifests();
        for (index, task) in tasks.iter().enumerate() {
            let name = match tasks.len() {
                1 => entry.name().to_owned(),
                _ => format!("{}.{}", entry.name(), task.name),
            };
            if let Ok(call) = Call::ready(entry, index) {
                all.push(statistics(&name, &call));
            }
        }
    }
    all
}

/// The configured models, or those of them that serve.
pub fn index(snapshot: &Snapshot, ready_only: bool) -> Vec<IndexEntry> {
    let entry = |entry: &std::sync::Arc<crate::registry::ModelEntry>| {
        let (state, reason) = match (&entry.state, entry.reason()) {
            (ModelState::Loading, _) => ("LOADING", String::new()),
            (ModelState::Unloaded, _) => ("UNAVAILABLE", "unloaded".to_owned()),
            (_, Some(reason)) => ("UNAVAILABLE", reason),
            (_, None) => ("READY", String::new()),
        };
        IndexEntry {
            name: entry.name().to_owned(),
            version: VERSION,
            state,
            reason,
        }
    };
    let models = snapshot.models().filter(|entry| !ready_only || entry.is_ready());
    models.map(entry).collect()
}
