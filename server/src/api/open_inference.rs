//! Metadata, configuration, statistics and repository index of the Open Inference Protocol, with the field names of
//! the protocol. REST sends these types as JSON; gRPC converts them to messages with the same fields.

use serde::Serialize;

use super::call::{Call, VERSION};
use super::model_view::ModelView;
use super::tensors::{self, TensorSpec};
use crate::batching::Policy;
use crate::build_info;
use crate::engine::Total;
use crate::registry::ModelState;
use crate::values::DType;

/// Name of the server.
pub const SERVER_NAME: &str = "inference-server";

/// Version of the server.
pub const SERVER_VERSION: &str = build_info::VERSION;

/// Supported extensions of the protocol.
pub const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];

/// Inputs and outputs of a model.
#[derive(Debug, Serialize)]
pub struct ModelMetadata {
    /// The name in the request.
    pub name: String,
    /// Available versions.
    pub versions: [&'static str; 1],
    /// Framework or runtime of the model.
    pub platform: String,
    /// Input tensors.
    pub inputs: Vec<TensorMetadata>,
    /// Output tensors.
    pub outputs: Vec<TensorMetadata>,
}

/// Name, datatype and shape of a tensor.
#[derive(Debug, Serialize)]
pub struct TensorMetadata {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub datatype: &'static str,
    /// Shape. The first dimension is the batch dimension, unless the task is unbatched. -1 means any size.
    pub shape: Vec<i64>,
}

/// The subset of Triton's model configuration that applies to this server.
#[derive(Debug, Serialize)]
pub struct ModelConfig {
    /// The name in the request.
    pub name: String,
    /// Framework or runtime of the model.
    pub platform: String,
    /// Name of the plugin.
    pub backend: String,
    /// Maximum number of items in a batch, or zero for an unbatched task. If it is greater than zero, `dims`
    /// describes one item; otherwise the whole tensor.
    pub max_batch_size: usize,
    /// Input tensors.
    pub input: Vec<TensorConfig>,
    /// Output tensors.
    pub output: Vec<TensorConfig>,
    /// Number of workers.
    pub instance_group: [InstanceGroup; 1],
    /// Absent for unbatched tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
    /// Always one reply per request.
    pub model_transaction_policy: TransactionPolicy,
}

/// A tensor in the model configuration.
#[derive(Debug, Serialize)]
pub struct TensorConfig {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub data_type: &'static str,
    /// Shape of one item. -1 means any size.
    pub dims: Vec<i64>,
}

/// The workers of a model.
#[derive(Debug, Serialize)]
pub struct InstanceGroup {
    /// The name in the request.
    pub name: String,
    /// Always `KIND_CPU`; the server does not know which device the plugin uses.
    pub kind: &'static str,
    /// Number of workers.
    pub count: usize,
}

/// Batching settings.
#[derive(Debug, Serialize)]
pub struct DynamicBatching {
    /// Maximum time that an item waits for a fuller batch.
    pub max_queue_delay_microseconds: u64,
}

/// Number of replies per request.
#[derive(Debug, Serialize)]
pub struct TransactionPolicy {
    /// Always false.
    pub decoupled: bool,
}

/// Statistics of a model since it was loaded.
#[derive(Debug, Serialize)]
pub struct ModelStatistics {
    /// The name in the request.
    pub name: String,
    /// Always [`VERSION`].
    pub version: &'static str,
    /// Time of the last reply, in milliseconds since the Unix epoch.
    pub last_inference: u64,
    /// Number of items.
    pub inference_count: u64,
    /// Number of batches.
    pub execution_count: u64,
    /// Time spent in each stage.
    pub inference_stats: InferStatistics,
    /// Time spent per batch size.
    pub batch_stats: Vec<InferBatchStatistics>,
}

/// Time that requests spent in each stage.
#[derive(Debug, Serialize)]
pub struct InferStatistics {
    /// Successful requests.
    pub success: StatisticDuration,
    /// Failed requests.
    pub fail: StatisticDuration,
    /// Queuing.
    pub queue: StatisticDuration,
    /// Preparing items.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Encoding replies.
    pub compute_output: StatisticDuration,
    /// Always zero: there is no cache.
    pub cache_hit: StatisticDuration,
    /// Always zero: there is no cache.
    pub cache_miss: StatisticDuration,
}

/// Time spent on batches of one size.
#[derive(Debug, Serialize)]
pub struct InferBatchStatistics {
    /// Number of items in the batch.
    pub batch_size: u64,
    /// Always zero: items are prepared before they join a batch.
    pub compute_input: StatisticDuration,
    /// Running the model.
    pub compute_infer: StatisticDuration,
    /// Always zero: replies are encoded per request, after the batch.
    pub compute_output: StatisticDuration,
}

/// A count and a total duration.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StatisticDuration {
    /// Number of occurrences.
    pub count: u64,
    /// Total duration in nanoseconds.
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

/// An entry of the repository index.
#[derive(Debug, Serialize)]
pub struct IndexEntry {
    /// Configured name.
    pub name: String,
    /// Always [`VERSION`].
    pub version: &'static str,
    /// `READY`, `LOADING` or `UNAVAILABLE`.
    pub state: &'static str,
    /// Why the model is not ready; may be empty.
    pub reason: String,
}

/// Returns the metadata of a task under the name that the client used.
pub fn metadata(name: &str, call: &Call) -> ModelMetadata {
    let tensors = |specs: Vec<TensorSpec<'_>>| {
        let one = |spec: &TensorSpec<'_>| TensorMetadata {
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

/// Returns the configuration of a task under the name that the client used.
pub fn config(name: &str, call: &Call) -> ModelConfig {
    let tensors = |specs: Vec<TensorSpec<'_>>| {
        let one = |spec: TensorSpec<'_>| TensorConfig {
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

/// Triton's name for an element type.
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

/// Returns the statistics of a task under the name that the client used.
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

/// Returns the statistics of every loaded task that the client may use. A task is named after its model if it is the only one, otherwise
/// `model.task`.
pub fn all_statistics(view: &ModelView) -> Vec<ModelStatistics> {
    let mut all = Vec::new();
    for entry in view.models() {
        let tasks = entry.task_manifests();
        for (index, task) in tasks.iter().enumerate() {
            let name = match tasks.len() {
                1 => entry.name().to_owned(),
                _ => format!("{}.{}", entry.name(), task.name),
            };
            if !view.client().sees_task(entry.name(), &task.name) {
                continue;
            }
            if let Ok(call) = Call::ready(view.client(), entry, index) {
                all.push(statistics(&name, &call));
            }
        }
    }
    all
}

/// Lists the configured models that the client may use, or only those that are ready.
pub fn index(view: &ModelView, ready_only: bool) -> Vec<IndexEntry> {
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
    let models = view.models().filter(|entry| !ready_only || entry.is_ready());
    models.map(entry).collect()
}
