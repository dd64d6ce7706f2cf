//! The inference service: handles every method of the Open Inference Protocol.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use prost::Message as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Request, Response, Status, Streaming};

use super::ShutdownSignal;
use super::call_body::{ReceivedBytes, ReplyBytes};
use super::infer_messages::{read_request, write_response};
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::{self, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::api::model_control::{ModelCommand, ModelControl, check_repository};
use crate::api::open_inference::{self, EXTENSIONS, SERVER_NAME, SERVER_VERSION};
use crate::api::tensors::data_size;
use crate::api::traces::Trace;
use crate::api::{
    BodyLimits, Call, Client, Code, Failure, ModelView, RequestOptions, RequestRecord, Telemetry, is_ready,
    reject_job_headers,
};
use crate::byte_budget::ByteBudget;
use crate::clock;
use crate::config::Settings;
use crate::metrics::Protocol;
use crate::registry::Registry;

/// The service, shared by all calls.
pub(super) struct Inference(Arc<Shared>);

struct Shared {
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    control: ModelControl,
    limits: BodyLimits,
    shutdown: ShutdownSignal,
    budget: Arc<ByteBudget>,
}

/// Maximum number of concurrent requests per stream.
const MAX_REQUESTS_PER_STREAM: usize = 64;

/// How long before the client's deadline a request expires, so that the server answers and not the transport, which
/// would report that the client cancelled the call.
const DEADLINE_MARGIN: Duration = Duration::from_millis(2);

/// Messages with more data than this are read and written on a blocking thread.
const MAX_INLINE_SIZE: usize = 128 * 1024;

type RpcResult<T> = Result<Response<T>, Status>;

impl Inference {
    pub(super) fn new(
        settings: &Settings,
        registry: Arc<Registry>,
        telemetry: Arc<Telemetry>,
        control: ModelControl,
        shutdown: ShutdownSignal,
        budget: Arc<ByteBudget>,
    ) -> Self {
        let server = &settings.server;
        Self(Arc::new(Shared {
            registry,
            telemetry,
            control,
            limits: BodyLimits {
                items: server.max_items_per_request.get(),
                depth: server.max_json_depth.get(),
            },
            shutdown,
            budget,
        }))
    }
}

/// What a call is besides its message.
#[derive(Clone)]
struct CallContext {
    metadata: MetadataMap,
    client: Client,
}

/// Handles one call, and converts a failure to a status.
async fn respond<Q, T>(
    request: Request<Q>,
    work: impl AsyncFnOnce(&CallContext, Q) -> Result<T, Failure>,
) -> RpcResult<T> {
    let (metadata, mut extensions, message) = request.into_parts();
    let context = CallContext {
        metadata,
        client: extensions.remove().unwrap_or_default(),
    };
    work(&context, message)
        .await
        .map(Response::new)
        .map_err(|failure| status(&failure))
}

/// The trace of a call, which the layer has started.
fn trace_of<Q>(request: &Request<Q>) -> Trace {
    request.extensions().get::<Trace>().cloned().unwrap_or_default()
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

/// Runs `work` on this thread if it reads or writes at most `MAX_INLINE_SIZE` bytes, otherwise on a blocking thread,
/// where it does not delay other calls.
async fn run_sized<R: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Failure> {
    if size <= MAX_INLINE_SIZE {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new(Code::Internal, "the server failed to process the message"))
}

impl Shared {
    /// The models that the client of a call may use.
    fn view(&self, context: &CallContext) -> ModelView {
        ModelView::new(self.registry.snapshot(), context.client.clone())
    }

    fn find(&self, context: &CallContext, name: &str, version: &str) -> Result<Call, Failure> {
        Call::to_name(&self.view(context), name, Some(version))
    }

    async fn infer(
        &self,
        context: &CallContext,
        request: ModelInferRequest,
        received: Instant,
        trace: Trace,
    ) -> Result<ModelInferResponse, Failure> {
        let view = self.view(context);
        let call = Call::to_name(&view, &request.model_name, Some(&request.model_version));
        let mut record = RequestRecord::new(&self.telemetry, Protocol::Grpc, received, trace);
        record.set_address(view.snapshot(), &request.model_name, &call);
        let result = match call {
            Ok(call) => self.run(context, request, &call, &mut record).await,
            Err(failure) => Err(failure),
        };
        let code = result
            .as_ref()
            .err()
            .map_or(0, |failure| failure.code.grpc_status());
        if let Err(failure) = &result {
            record.failed(failure);
        }
        record.set_grpc_status(code);
        record.finish(
            result
                .as_ref()
                .map_or_else(|failure| failure.code.status(), |_| 200),
        );
        result
    }

    /// Runs one inference request.
    async fn run(
        &self,
        context: &CallContext,
        request: ModelInferRequest,
        call: &Call,
        record: &mut RequestRecord,
    ) -> Result<ModelInferResponse, Failure> {
        context.client.admit_request()?;
        let metadata = &context.metadata;
        reject_job_headers(
            |name| header(metadata, name),
            "a request over HTTP with `prefer: respond-async`",
        )?;
        let mut options =
            RequestOptions::read(|name| header(metadata, name), call.entry.settings.request_timeout)?;
        let (name, id) = (request.model_name.clone(), request.id.clone());
        let (owned_call, size) = (call.clone(), request.encoded_len());
        let (limits, mut decoded) = (self.limits, self.budget.hold(0));
        let read = move || {
            let request = read_request(request, owned_call.manifest(), limits, &mut decoded)?;
            Ok::<_, Failure>((request, decoded))
        };
        let (request, decoded) = run_sized(size, read).await??;
        options.override_with(request.parameters.timeout, request.parameters.priority);
        if let Some(timeout) = header(metadata, "grpc-timeout").and_then(grpc_timeout) {
            options.timeout = options.timeout.min(timeout.saturating_sub(DEADLINE_MARGIN));
        }
        let reply = call.run(request.items, Some(decoded), options, record).await?;
        let started = clock::now();
        let (size, requested, owned_call) = (data_size(&reply.outcomes), request.requested, call.clone());
        let write = move || write_response(owned_call.manifest(), reply.outcomes, &requested);
        let response = run_sized(size, write).await??;
        record.encoded(call, started, true);
        Ok(ModelInferResponse {
            model_name: name,
            model_version: crate::api::VERSION.to_owned(),
            id,
            ..response
        })
    }

    async fn execute(
        &self,
        context: &CallContext,
        command: ModelCommand,
        message: RepositoryRequest,
    ) -> Result<(), Failure> {
        check_repository(&message.repository)?;
        let parameters = message
            .parameters
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        command.check_parameters(&parameters.collect())?;
        context.client.check_model(&message.model)?;
        self.control.execute(command, &message.model).await
    }
}

/// A request to load or unload a model.
struct RepositoryRequest {
    repository: String,
    model: String,
    parameters: HashMap<String, proto::ModelRepositoryParameter>,
}

/// Parses the `grpc-timeout` header: up to eight digits and a unit.
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
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> RpcResult<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> RpcResult<proto::ServerReadyResponse> {
        let ready = self.0.registry.is_ready();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> RpcResult<proto::ModelReadyResponse> {
        respond(request, async |context, message| {
            match is_ready(
                &self.0.registry,
                &context.client,
                &message.name,
                Some(&message.version),
            ) {
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
    ) -> RpcResult<proto::ServerMetadataResponse> {
        respond(request, async |_, _| {
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
    ) -> RpcResult<proto::ModelMetadataResponse> {
        respond(request, async |context, message| {
            let call = self.0.find(context, &message.name, &message.version)?;
            Ok(open_inference::metadata(&message.name, &call).into())
        })
        .await
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> RpcResult<proto::ModelConfigResponse> {
        respond(request, async |context, message| {
            let call = self.0.find(context, &message.name, &message.version)?;
            let config = Some(open_inference::config(&message.name, &call).into());
            Ok(proto::ModelConfigResponse { config })
        })
        .await
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> RpcResult<proto::ModelStatisticsResponse> {
        respond(request, async |context, message| {
            let statistics = if message.name.is_empty() {
                open_inference::all_statistics(&self.0.view(context))
            } else {
                let call = self.0.find(context, &message.name, &message.version)?;
                vec![open_inference::statistics(&message.name, &call)]
            };
            let model_stats = statistics.into_iter().map(Into::into).collect();
            Ok(proto::ModelStatisticsResponse { model_stats })
        })
        .await
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> RpcResult<proto::RepositoryIndexResponse> {
        respond(request, async |context, message| {
            check_repository(&message.repository_name)?;
            let index = open_inference::index(&self.0.view(context), message.ready);
            let models = index.into_iter().map(Into::into).collect();
            Ok(proto::RepositoryIndexResponse { models })
        })
        .await
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> RpcResult<proto::RepositoryModelLoadResponse> {
        respond(request, async |context, message| {
            let message = RepositoryRequest {
                repository: message.repository_name,
                model: message.model_name,
                parameters: message.parameters,
            };
            self.0.execute(context, ModelCommand::Load, message).await?;
            Ok(proto::RepositoryModelLoadResponse {})
        })
        .await
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> RpcResult<proto::RepositoryModelUnloadResponse> {
        respond(request, async |context, message| {
            let message = RepositoryRequest {
                repository: message.repository_name,
                model: message.model_name,
                parameters: message.parameters,
            };
            self.0.execute(context, ModelCommand::Unload, message).await?;
            Ok(proto::RepositoryModelUnloadResponse {})
        })
        .await
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> RpcResult<ModelInferResponse> {
        let received = clock::now();
        let trace = trace_of(&request);
        if let Some(bytes) = request.extensions().get::<ReceivedBytes>() {
            let size = request.get_ref().encoded_len() as u64;
            bytes
                .raise_to(size)
                .map_err(|exhausted| status(&exhausted.into()))?;
        }
        let mut response = respond(request, async |context, message| {
            self.0.infer(context, message, received, trace).await
        })
        .await?;
        let size = response.get_ref().encoded_len();
        response
            .extensions_mut()
            .insert(ReplyBytes::new(&self.0.budget, size));
        Ok(response)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// Requests of a stream run concurrently and are answered in order. A failed request is answered with an error,
    /// and the stream continues.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> RpcResult<Self::ModelStreamInferStream> {
        let shared = self.0.clone();
        let trace = trace_of(&request);
        respond(request, async |context, messages: Streaming<_>| {
            let mut context = context.clone();
            // The deadline of the stream does not apply to its requests.
            context.metadata.remove("grpc-timeout");
            let context = Arc::new(context);
            // Requests that arrived before shutdown are still answered.
            let messages = messages.take_until(shared.shutdown.clone().wait());
            let answers = messages.map(move |message| {
                let (shared, context) = (shared.clone(), context.clone());
                let trace = trace.another_request();
                async move {
                    let received = clock::now();
                    let message = message?;
                    let result = match shared.budget.reserve(message.encoded_len() as u64) {
                        Ok(_reservation) => shared.infer(&context, message, received, trace).await,
                        Err(exhausted) => Err(exhausted.into()),
                    };
                    Ok(stream_answer(result))
                }
            });
            let answers: Self::ModelStreamInferStream = Box::pin(answers.buffered(MAX_REQUESTS_PER_STREAM));
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
    fn a_grpc_timeout_is_a_number_with_a_unit() {
        assert_eq!(grpc_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(grpc_timeout(b"99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in [&b""[..], b"m", b"1", b"1x", b"-1S", b"999999999S", b"\xffS"] {
            assert_eq!(grpc_timeout(bad), None);
        }
    }
}
