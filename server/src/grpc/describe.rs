//! What the server and its models tell of themselves, as messages.

use serde_json::Value as Json;

use super::wire;
use super::wire::model_repository_parameter::ParameterChoice;
use crate::api::describe;

impl From<describe::ModelMetadata> for wire::ModelMetadataResponse {
    fn from(metadata: describe::ModelMetadata) -> Self {
        let tensors = |tensors: Vec<describe::TensorMetadata>| tensors.into_iter().map(Into::into).collect();
        Self {
            name: metadata.name,
            versions: metadata.versions.map(str::to_owned).to_vec(),
            platform: metadata.platform,
            inputs: tensors(metadata.inputs),
            outputs: tensors(metadata.outputs),
        }
    }
}

impl From<describe::TensorMetadata> for wire::model_metadata_response::TensorMetadata {
    fn from(tensor: describe::TensorMetadata) -> Self {
        Self {
            name: tensor.name,
            datatype: tensor.datatype.to_owned(),
            shape: tensor.shape,
        }
    }
}

impl From<describe::ModelConfig> for wire::ModelConfig {
    fn from(config: describe::ModelConfig) -> Self {
        let data_type = |name: &str| {
            wire::DataType::from_str_name(name)
                .unwrap_or(wire::DataType::TypeInvalid)
                .into()
        };
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        Self {
            name: config.name,
            platform: config.platform,
            backend: config.backend,
            max_batch_size: number(config.max_batch_size),
            input: config
                .input
                .into_iter()
                .map(|tensor| wire::ModelInput {
                    name: tensor.name,
                    data_type: data_type(tensor.data_type),
                    dims: tensor.dims,
                })
                .collect(),
            output: config
                .output
                .into_iter()
                .map(|tensor| wire::ModelOutput {
                    name: tensor.name,
                    data_type: data_type(tensor.data_type),
                    dims: tensor.dims,
                })
                .collect(),
            instance_group: config
                .instance_group
                .into_iter()
                .map(|group| wire::ModelInstanceGroup {
                    name: group.name,
                    count: number(group.count),
                    kind: wire::model_instance_group::Kind::from_str_name(group.kind)
                        .unwrap_or_default()
                        .into(),
                })
                .collect(),
            dynamic_batching: config
                .dynamic_batching
                .map(|batching| wire::ModelDynamicBatching {
                    max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
                }),
            model_transaction_policy: Some(wire::ModelTransactionPolicy {
                decoupled: config.model_transaction_policy.decoupled,
            }),
        }
    }
}

impl From<describe::ModelStatistics> for wire::ModelStatistics {
    fn from(statistics: describe::ModelStatistics) -> Self {
        Self {
            name: statistics.name,
            version: statistics.version.to_owned(),
            last_inference: statistics.last_inference,
            inference_count: statistics.inference_count,
            execution_count: statistics.execution_count,
            inference_stats: Some(statistics.inference_stats.into()),
            batch_stats: statistics.batch_stats.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<describe::StatisticDuration> for wire::StatisticDuration {
    fn from(duration: describe::StatisticDuration) -> Self {
        Self {
            count: duration.count,
            ns: duration.ns,
        }
    }
}

impl From<describe::InferBatchStatistics> for wire::InferBatchStatistics {
    fn from(statistics: describe::InferBatchStatistics) -> Self {
        Self {
            batch_size: statistics.batch_size,
            compute_input: Some(statistics.compute_input.into()),
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
        }
    }
}

impl From<describe::InferStatistics> for wire::InferStatistics {
    fn from(statistics: describe::InferStatistics) -> Self {
        Self {
            success: Some(statistics.success.into()),
            fail: Some(statistics.fail.into()),
            queue: Some(statistics.queue.into()),
            compute_input: Some(statistics.compute_input.into()),
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
            cache_hit: Some(statistics.cache_hit.into()),
            cache_miss: Some(statistics.cache_miss.into()),
        }
    }
}

impl From<describe::IndexEntry> for wire::repository_index_response::ModelIndex {
    fn from(entry: describe::IndexEntry) -> Self {
        Self {
            name: entry.name,
            version: entry.version.to_owned(),
            state: entry.state.to_owned(),
            reason: entry.reason,
        }
    }
}

impl From<wire::ModelRepositoryParameter> for Json {
    fn from(parameter: wire::ModelRepositoryParameter) -> Self {
        match parameter.parameter_choice {
            None => Self::Null,
            Some(ParameterChoice::BoolParam(value)) => value.into(),
            Some(ParameterChoice::Int64Param(value)) => value.into(),
            Some(ParameterChoice::StringParam(value)) => value.into(),
            // Files, of which only the name matters.
            Some(ParameterChoice::BytesParam(_)) => Self::String(String::new()),
        }
    }
}
