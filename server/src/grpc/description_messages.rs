//! Converts metadata, configuration, statistics and the repository index to messages.

use serde_json::Value as Json;

use super::proto;
use super::proto::model_repository_parameter::ParameterChoice;
use crate::api::open_inference;

impl From<open_inference::ModelMetadata> for proto::ModelMetadataResponse {
    fn from(metadata: open_inference::ModelMetadata) -> Self {
        let tensors =
            |tensors: Vec<open_inference::TensorMetadata>| tensors.into_iter().map(Into::into).collect();
        Self {
            name: metadata.name,
            versions: metadata.versions.map(str::to_owned).to_vec(),
            platform: metadata.platform,
            inputs: tensors(metadata.inputs),
            outputs: tensors(metadata.outputs),
        }
    }
}

impl From<open_inference::TensorMetadata> for proto::model_metadata_response::TensorMetadata {
    fn from(tensor: open_inference::TensorMetadata) -> Self {
        Self {
            name: tensor.name,
            datatype: tensor.datatype.to_owned(),
            shape: tensor.shape,
        }
    }
}

impl From<open_inference::ModelConfig> for proto::ModelConfig {
    fn from(config: open_inference::ModelConfig) -> Self {
        let data_type = |name: &str| {
            proto::DataType::from_str_name(name)
                .unwrap_or(proto::DataType::TypeInvalid)
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
                .map(|tensor| proto::ModelInput {
                    name: tensor.name,
                    data_type: data_type(tensor.data_type),
                    dims: tensor.dims,
                })
                .collect(),
            output: config
                .output
                .into_iter()
                .map(|tensor| proto::ModelOutput {
                    name: tensor.name,
                    data_type: data_type(tensor.data_type),
                    dims: tensor.dims,
                })
                .collect(),
            instance_group: config
                .instance_group
                .into_iter()
                .map(|group| proto::ModelInstanceGroup {
                    name: group.name,
                    count: number(group.count),
                    kind: proto::model_instance_group::Kind::from_str_name(group.kind)
                        .unwrap_or_default()
                        .into(),
                })
                .collect(),
            dynamic_batching: config
                .dynamic_batching
                .map(|batching| proto::ModelDynamicBatching {
                    max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
                }),
            model_transaction_policy: Some(proto::ModelTransactionPolicy {
                decoupled: config.model_transaction_policy.decoupled,
            }),
        }
    }
}

impl From<open_inference::ModelStatistics> for proto::ModelStatistics {
    fn from(statistics: open_inference::ModelStatistics) -> Self {
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

impl From<open_inference::StatisticDuration> for proto::StatisticDuration {
    fn from(duration: open_inference::StatisticDuration) -> Self {
        Self {
            count: duration.count,
            ns: duration.ns,
        }
    }
}

impl From<open_inference::InferBatchStatistics> for proto::InferBatchStatistics {
    fn from(statistics: open_inference::InferBatchStatistics) -> Self {
        Self {
            batch_size: statistics.batch_size,
            compute_input: Some(statistics.compute_input.into()),
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
        }
    }
}

impl From<open_inference::InferStatistics> for proto::InferStatistics {
    fn from(statistics: open_inference::InferStatistics) -> Self {
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

impl From<open_inference::IndexEntry> for proto::repository_index_response::ModelIndex {
    fn from(entry: open_inference::IndexEntry) -> Self {
        Self {
            name: entry.name,
            version: entry.version.to_owned(),
            state: entry.state.to_owned(),
            reason: entry.reason,
        }
    }
}

impl From<proto::ModelRepositoryParameter> for Json {
    fn from(parameter: proto::ModelRepositoryParameter) -> Self {
        match parameter.parameter_choice {
            None => Self::Null,
            Some(ParameterChoice::BoolParam(value)) => value.into(),
            Some(ParameterChoice::Int64Param(value)) => value.into(),
            Some(ParameterChoice::StringParam(value)) => value.into(),
            // The content of a file. Only its name is needed, to reject it.
            Some(ParameterChoice::BytesParam(_)) => Self::String(String::new()),
        }
    }
}
