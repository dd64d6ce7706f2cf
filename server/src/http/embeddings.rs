//! `POST /v1/embeddings`: OpenAI's embeddings API, for tasks declared as embeddings. In a path of Azure, the deployment is the
//! model.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::native::envelope::{check_depth, check_utf8};
use super::native::reply::max_size;
use super::native::request_items::RequestError;
use super::offload::{MAX_INLINE_BODY, MAX_INLINE_REPLY, run_by_size};
use super::request_body::receive;
use super::request_headers::{RequestHead, request_options};
use super::respond::{self, add_server_timing};
use super::server::Shared;
use super::task_routes::TaskPath;
use crate::api::tensors::{OutputTensor, tensors_from_outcomes};
use crate::api::{BodyLimits, Call, Code, Decoding, Failure, RequestRecord};
use crate::byte_budget::{ByteBudget, Reservation};
use crate::clock;
use crate::codec::{
    JsonForm, Strings, bounded_json, max_decoded_size, read_item, write_string, write_tensor,
};
use crate::error::ItemError;
use crate::json::{self, Object};
use crate::metrics::Protocol;
use crate::values::{DType, ItemInput, Tensor};

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let mut record = RequestRecord::new(&shared.telemetry, Protocol::OpenAi, clock::now(), request.trace());
    let result = run(request, payload, shared, path.model, &mut record).await;
    let response = result.unwrap_or_else(|failure| respond::failure(request, &failure));
    record.finish(response.status().as_u16());
    response
}

async fn run(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    deployment: String,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    let view = shared.view(request);
    view.client().admit_request()?;
    let body = receive(request, payload, &shared.receive, received, 0).await?;
    // The model is named in the body, so its default timeout is known only after reading the body.
    let (limits, size) = (shared.body, body.len());
    let (request_view, budget) = (view.clone(), shared.receive.budget.clone());
    let read = move || {
        let parsed = EmbeddingsRequest::read(&body, deployment, limits)?;
        let call = Call::to_embedding(&request_view, parsed.model.as_deref().unwrap_or_default());
        let items = match &call {
            Ok(call) => parsed.decode(&body, call.manifest(), limits, &budget),
            Err(failure) => Err(failure.clone()),
        };
        Ok::<_, Failure>((parsed.reply_options(), call, items))
    };
    let (reply_options, call, items) = run_by_size(size, MAX_INLINE_BODY, read).await??;
    record.set_address(view.snapshot(), &reply_options.model, &call);
    let (call, (items, decoded)) = (call?, items?);
    let options = request_options(request, &call)?;
    let reply = call.run(items, decoded, options, record).await?;

    let started = clock::now();
    let (weight, timing) = (reply.weight, reply.timing);
    // The vectors as numbers or base64, and less than 80 bytes around each.
    let size = max_size(&reply.outcomes).saturating_add(80 * reply.outcomes.len());
    let owned_call = call.clone();
    let write = move || {
        let output = tensors_from_outcomes(owned_call.manifest(), reply.outcomes)?
            .into_iter()
            .next();
        let output =
            output.ok_or_else(|| Failure::new(Code::ModelFault, "the model did not return an embedding"))?;
        reply_options.check(output.shape.get(1).copied())?;
        write_reply(&reply_options, output, weight)
    };
    let json = run_by_size(size, MAX_INLINE_REPLY, write).await??;
    let mut response = respond::json(200, json);
    let elapsed = record.encoded(&call, started, true);
    add_server_timing(&mut response, timing, elapsed);
    Ok(response)
}

/// A request. Other members, such as `user`, are accepted and ignored.
#[derive(Deserialize)]
struct EmbeddingsRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: &'a RawValue,
    encoding_format: Option<String>,
    dimensions: Option<u64>,
}

type Items = Vec<Result<ItemInput, ItemError>>;

/// What the reply depends on.
struct ReplyOptions {
    /// The model name in the request.
    model: String,
    base64: bool,
    dimensions: Option<u64>,
}

impl<'a> EmbeddingsRequest<'a> {
    /// Reads a request. A `deployment` that is not empty replaces the model in the body, as in Azure.
    fn read(body: &'a [u8], deployment: String, limits: BodyLimits) -> Result<Self, Failure> {
        check_depth(body, limits.depth)?;
        let Object(mut parsed) = json::from_str::<Object<Self>>(check_utf8(body)?)
            .map_err(|error| Failure::new(Code::Malformed, format!("malformed request body: {error}")))?;
        if !deployment.is_empty() {
            parsed.model = Some(deployment);
        } else if parsed.model.is_none() {
            let message = "missing member `model`: expected the name of a model";
            return Err(Failure::new(Code::Malformed, message).with_param("model"));
        }
        match parsed.encoding_format.as_deref() {
            None | Some("float" | "base64") => Ok(parsed),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let message =
                    format!("invalid value `{other}` for `encoding_format`: expected float or base64");
                Err(Failure::new(Code::Malformed, message).with_param("encoding_format"))
            }
        }
    }

    /// Reads the items, and counts the memory that they take beyond `body`.
    fn decode(
        &self,
        body: &Bytes,
        task: &TaskManifest,
        limits: BodyLimits,
        budget: &Arc<ByteBudget>,
    ) -> Result<(Items, Option<Reservation>), Failure> {
        let decoding = Decoding::reserve(budget, max_decoded_size(body, &task.input, Strings::Shared))?;
        let items = self.items(body, task, limits)?;
        let decoded = decoding.keep(&items, body);
        Ok((items, decoded))
    }

    fn items(&self, body: &Bytes, task: &TaskManifest, limits: BodyLimits) -> Result<Items, Failure> {
        let parameters = self.parameters(task)?;
        let invalid = |message: String| Err(Failure::new(Code::Malformed, message).with_param("input"));
        let texts = match JsonForm::of(self.input.get()) {
            JsonForm::String => vec![self.input.get()],
            JsonForm::Array => bounded_json::elements(self.input.get(), limits.items).ok_or_else(|| {
                let too_many = RequestError::TooManyItems {
                    member: "input",
                    limit: limits.items,
                };
                Failure::from(too_many).with_param("input")
            })?,
            other => {
                return invalid(format!(
                    "`input`: expected a string or an array, got {}",
                    other.name()
                ));
            }
        };
        if texts.is_empty() {
            return invalid("`input` has no items; expected at least one".to_owned());
        }
        let other = texts
            .iter()
            .map(|text| JsonForm::of(text))
            .find(|form| *form != JsonForm::String);
        match other {
            None => {}
            Some(JsonForm::Number | JsonForm::Array) => {
                return invalid("`input`: token ids are not supported; expected strings".to_owned());
            }
            Some(other) => return invalid(format!("`input`: expected strings, got {}", other.name())),
        }
        let item = |text: &str| {
            Ok(ItemInput {
                value: read_item(body, text, task)?,
                parameters: parameters.clone(),
            })
        };
        Ok(texts.into_iter().map(item).collect())
    }

    /// The parameters for the task: `dimensions`, if the task has such a parameter. Otherwise `dimensions` must be
    /// equal to the size of the embeddings.
    fn parameters(&self, task: &TaskManifest) -> Result<Bytes, Failure> {
        let Some(dimensions) = self.dimensions else {
            return Ok(Bytes::new());
        };
        if !task.parameters_schema["properties"]["dimensions"].is_null() {
            return Ok(serde_json::json!({ "dimensions": dimensions }).to_string().into());
        }
        let declared = task
            .output
            .tensors
            .first()
            .and_then(|tensor| tensor.shape.first());
        self.reply_options()
            .check(declared.and_then(|&declared| u64::try_from(declared).ok()))?;
        Ok(Bytes::new())
    }

    fn reply_options(&self) -> ReplyOptions {
        ReplyOptions {
            model: self.model.clone().unwrap_or_default(),
            base64: self.encoding_format.as_deref() == Some("base64"),
            dimensions: self.dimensions,
        }
    }
}

impl ReplyOptions {
    /// Checks the number of dimensions, if it is known, against the requested number.
    fn check(&self, got: Option<u64>) -> Result<(), Failure> {
        match (self.dimensions, got) {
            (Some(wanted), Some(got)) if wanted != got => {
                let message = format!(
                    "invalid value {wanted} for `dimensions`: the embeddings of `{}` always have {got} dimensions",
                    self.model
                );
                Err(Failure::new(Code::Malformed, message).with_param("dimensions"))
            }
            _ => Ok(()),
        }
    }
}

fn write_reply(reply_options: &ReplyOptions, output: OutputTensor, tokens: u64) -> Result<Vec<u8>, Failure> {
    let per_byte = if reply_options.base64 { 2 } else { 4 };
    let mut json = Vec::with_capacity(output.byte_len() * per_byte + output.rows.len() * 64 + 128);
    json.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, row) in output.rows.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(
            format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":").as_bytes(),
        );
        if reply_options.base64 {
            json.push(b'"');
            json.extend_from_slice(STANDARD.encode(row).as_bytes());
            json.push(b'"');
        } else {
            let shape = &output.shape[1..];
            let vector = Tensor::new(output.name.as_str(), DType::Fp32, shape, row.clone())
                .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            write_tensor(&mut json, &vector)
                .map_err(|error| Failure::new(Code::ModelFault, error.to_string()))?;
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"],\"model\":");
    write_string(&mut json, &reply_options.model);
    json.extend_from_slice(
        format!(",\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}").as_bytes(),
    );
    Ok(json)
}
