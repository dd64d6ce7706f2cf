//! The inference service: each call, from its message to its answer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Request, Response, Status, Streaming};

use super::Stopping;
use super::infer_messages::{read_request, write_response};
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::{self, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::api::model_control::{Control, Order, check_repository};
use crate::api::open_inference::{self, EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::api::tensors::data_size;
use crate::api::{BodyLimits, Call, Code, Failure, Hints, RequestRecord, is_ready};
use crate::clock;
use crate::config::Settings;
use crate::metrics::{Metrics, Protocol};
use crate::registry::Registry;

/// The service, which all calls share.
pub(super) struct Inference(Arc<Shared>);

struct Shared {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    control: Control,
    limits: BodyLimits,
    stopping: Stopping,
}

/// Requests of one stream that run at the same time.
const STREAM_AHEAD: usize = 64;

/// How much earlier than its client an answer has its deadline, so that the answer is this server's and not the
/// transport's, which would say that the client had cancelled.
const HEAD_START: Duration = Duration::from_millis(2);

/// Messages with more bytes of data than this are read and written on a blocking thread.
const MAX_INLINE: usize = 128 * 1024;

type Answer<T> = Result<Response<T>, Status>;

impl Inference {
    pub(super) fn new(
        settings: &Settings,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        control: Control,
        stopping: Stopping,
    ) -> Self {
        let server = &settings.server;
        Self(Arc::new(Shared {
            registry,
            metrics,
            control,
            limits: BodyLimits {
                items: server.max_items_per_request.get(),
                depth: server.max_json_depth.get(),
            },
            stopping,
        }))
    }
}

/// Carries out one call, and turns a failure into a status.
async fn answer<Q, T>(
    request: Request<Q>,
    work: impl AsyncFnOnce(&MetadataMap, Q) -> Result<T, Failure>,
) -> Answer<T> {
    let (metadata, _, message) = request.into_parts();
    work(&metadata, message)
        .await
        .map(Response::new)
        .map_err(|failure| status(&failure))
}

fn header<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a [u8]> {
    metadata.get(name).map(MetadataValue::as_bytes)
}

pub(super) fn status(failure: &Failure) -> Status {
    let mut status = Status::new(
        GrpcCode::from(failure.code.grpc_status()),
        failure.client_message(),
    );
    if let Some(seconds) = failure.retry_after_seconds() {
        status.metadata_mut().insert("retry-after", seconds.into());
    }
    status
}

/// Runs `work` here if it reads or writes little, and else on a thread where it delays no other call.
async fn run_sized<R: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    if size <= MAX_INLINE {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(Code::Internal, "a thread of the server failed"))
}

impl Shared {
    fn find(&self, name: &str, version: &str) -> Result<Call, Failure> {
        Call::to_name(&self.registry.snapshot(), name, Some(version))
    }

    async fn infer(
        &self,
        metadata: &MetadataMap,
        request: ModelInferRequest,
        received: Instant,
    ) -> Result<ModelInferResponse, Failure> {
        let snapshot = self.registry.snapshot();
        let call = Call::to_name(&snapshot, &request.model_name, Some(&request.model_version));
        let mut record = RequestRecord::new(&self.metrics, Protocol::Grpc, received);
        record.addressed(&snapshot, &request.model_name, &call);
        let result = match call {
            Ok(call) => run(metadata, request, &call, self.limits, received).await,
            Err(failure) => Err(failure),
        };
        record.answered(
            result
                .as_ref()
                .map_or_else(|failure| failure.code.status(), |_| 200),
        );
        result
    }

    async fn order(&self, order: Order, asked: RepositoryOrder) -> Result<(), Failure> {
        check_repository(&asked.repository)?;
        let parameters = asked
            .parameters
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        order.check_parameters(&parameters.collect())?;
        self.control.give(order, &asked.model).await
    }
}

/// Runs one inference request.
async fn run(
    metadata: &MetadataMap,
    request: ModelInferRequest,
    call: &Call,
    limits: BodyLimits,
    received: Instant,
) -> Result<ModelInferResponse, Failure> {
    let mut hints = Hints::read(|name| header(metadata, name), call.entry.settings.request_timeout)?;
    let (name, id) = (request.model_name.clone(), request.id.clone());
    let (of, size) = (call.clone(), request.encoded_len());
    let request = run_sized(size, move || read_request(request, of.manifest(), limits)).await??;
    hints.override_with(request.parameters.timeout, request.parameters.priority);
    if let Some(timeout) = header(metadata, "grpc-timeout").and_then(grpc_timeout) {
        hints.timeout = hints.timeout.min(timeout.saturating_sub(HEAD_START));
    }
    let reply = call.run(request.items, received, hints).await?;
    let started = clock::now();
    let (size, wanted, of) = (data_size(&reply.outcomes), request.wanted, call.clone());
    let write = move || write_response(of.manifest(), reply.outcomes, &wanted);
    let response = run_sized(size, write).await??;
    call.observe_encode(started, true);
    Ok(ModelInferResponse {
        model_name: name,
        model_version: crate::api::VERSION.to_owned(),
        id,
        ..response
    })
}

/// A message that loads or unloads a model.
struct RepositoryOrder {
    repository: String,
    model: String,
    parameters: HashMap<String, proto::ModelRepositoryParameter>,
}

/// Reads the deadline of a call: at most eight digits and a unit.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let number: u64 = std::str::from_utf8(digits)
        .ok()
        .filter(|_| digits.len() <= 8)?
        .parse()
        .ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<proto::ServerLiveRequest>) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let ready = self.0.registry.is_ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        answer(request, async |_, asked| {
            match is_ready(&self.0.registry, &asked.name, Some(&asked.version)) {
                Ok(()) => Ok(proto::ModelReadyResponse { ready: true }),
                Err(failure) if failure.code == Code::Unavailable => {
                    Ok(proto::ModelReadyResponse { ready: false })
                }
                Err(failure) => Err(failure),
            }
        })
        .await
    }

    async fn server_metadata(
        &self,
        request: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        answer(request, async |_, _| {
            Ok(proto::ServerMetadataResponse {
                name: SERVER_NAME.to_owned(),
                version: SERVER_VERSION.to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).to_vec(),
            })
        })
        .await
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        answer(request, async |_, asked| {
            let call = self.0.find(&asked.name, &asked.version)?;
            Ok(open_inference::metadata(&asked.name, &call).into())
        })
        .await
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Answer<proto::ModelConfigResponse> {
        answer(request, async |_, asked| {
            let call = self.0.find(&asked.name, &asked.version)?;
            let config = Some(open_inference::config(&asked.name, &call).into());
            Ok(proto::ModelConfigResponse { config })
        })
        .await
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        answer(request, async |_, asked| {
            let statistics = if asked.name.is_empty() {
                open_inference::all_statistics(&self.0.registry.snapshot())
            } else {
                let call = self.0.find(&asked.name, &asked.version)?;
                vec![open_inference::statistics(&asked.name, &call)]
            };
            let model_stats = statistics.into_iter().map(Into::into).collect();
            Ok(proto::ModelStatisticsResponse { model_stats })
        })
        .await
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        answer(request, async |_, asked| {
            check_repository(&asked.repository_name)?;
            let index = open_inference::index(&self.0.registry.snapshot(), asked.ready);
            let models = index.into_iter().map(Into::into).collect();
            Ok(proto::RepositoryIndexResponse { models })
        })
        .await
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Answer<proto::RepositoryModelLoadResponse> {
        answer(request, async |_, asked| {
            let asked = RepositoryOrder {
                repository: asked.repository_name,
                model: asked.model_name,
                parameters: asked.parameters,
            };
            self.0.order(Order::Load, asked).await?;
            Ok(proto::RepositoryModelLoadResponse {})
        })
        .await
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Answer<proto::RepositoryModelUnloadResponse> {
        answer(request, async |_, asked| {
            let asked = RepositoryOrder {
                repository: asked.repository_name,
                model: asked.model_name,
                parameters: asked.parameters,
            };
            self.0.order(Order::Unload, asked).await?;
            Ok(proto::RepositoryModelUnloadResponse {})
        })
        .await
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        let received = clock::now();
        answer(request, async |metadata, message| {
            self.0.infer(metadata, message, received).await
        })
        .await
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// Requests run side by side and are answered in their order; one that fails says so in its place, and the stream goes
    /// on.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let shared = self.0.clone();
        answer(request, async |metadata, messages: Streaming<_>| {
            let mut metadata = metadata.clone();
            // The deadline of the stream is no deadline of a request.
            metadata.remove("grpc-timeout");
            let metadata = Arc::new(metadata);
            // What has come by then is still answered.
            let messages = messages.take_until(shared.stopping.clone().told());
            let answers = messages.map(move |message| {
                let (shared, metadata) = (shared.clone(), metadata.clone());
                async move {
                    let received = clock::now();
                    Ok(stream_answer(shared.infer(&metadata, message?, received).await))
                }
            });
            let answers: Self::ModelStreamInferStream = Box::pin(answers.buffered(STREAM_AHEAD));
            Ok(answers)
        })
        .await
    }
}

fn stream_answer(result: Result<ModelInferResponse, Failure>) -> ModelStreamInferResponse {
    match result {
        Ok(mut response) => {
            let last = proto::infer_parameter::ParameterChoice::BoolParam(true);
            let last = proto::InferParameter {
                parameter_choice: Some(last),
            };
            response
                .parameters
                .insert("triton_final_response".to_owned(), last);
            ModelStreamInferResponse {
                error_message: String::new(),
                infer_response: Some(response),
            }
        }
        Err(failure) => ModelStreamInferResponse {
            error_message: failure.client_message().into_owned(),
            infer_response: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_number_with_a_unit() {
        assert_eq!(grpc_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(grpc_timeout(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in [&b""[..], b"m", b"1", b"1x", b"-1S", b"999999999S", b"\xffS"] {
            assert_eq!(grpc_timeout(bad), None);
        }
    }
}
