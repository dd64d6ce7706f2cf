//! `POST /v1/embeddings`, as OpenAI has it, for tasks that are declared as embeddings.

use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::native::envelope::{check_depth, check_utf8};
use super::native::reply::{max_size, write_string, write_tensor};
use super::native::request_items::RequestError;
use super::native::task_handlers::{INLINE_BODY, INLINE_REPLY, add_timing, hints, run_sized};
use super::request_body::receive;
use super::respond;
use super::server::Shared;
use crate::api::tensors::{Output, write_outputs};
use crate::api::{BodyLimits, Call, Code, Failure, RequestRecord};
use crate::clock;
use crate::codec::bounded_json;
use crate::codec::{JsonForm, read_item};
use crate::error::ItemError;
use crate::json::{self, Object};
use crate::metrics::Protocol;
use crate::values::{DType, ItemInput, Tensor};

/// `POST /v1/embeddings`
pub(super) async fn embeddings(
    request: HttpRequest,
    payload: web::Payload,
    shared: Data<Shared>,
) -> HttpResponse {
    let mut record = RequestRecord::new(&shared.metrics, Protocol::OpenAi, clock::now());
    let result = run(&request, payload, &shared, &mut record).await;
    let response = result.unwrap_or_else(|failure| respond::failure(&request, &failure));
    record.answered(response.status().as_u16());
    response
}

async fn run(
    request: &HttpRequest,
    payload: web::Payload,
    shared: &Shared,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    let body = receive(request, payload, shared.receive, received, 0).await?;
    // Which model is meant stands in the body, so its default deadline is known only then.
    let (snapshot, limits, size) = (shared.registry.snapshot(), shared.body, body.len());
    let of_request = snapshot.clone();
    let read = move || {
        let asked = Asked::read(&body, limits)?;
        let call = Call::to_embedding(&of_request, &asked.model);
        let items = match &call {
            Ok(call) => asked.items(&body, call.manifest(), limits),
            Err(failure) => Err(failure.clone()),
        };
        Ok::<_, Failure>((asked.wanted(), call, items))
    };
    let (wanted, call, items) = run_sized(size, INLINE_BODY, read).await??;
    record.addressed(&snapshot, &wanted.model, &call);
    let (call, items) = (call?, items?);
    let hints = hints(request, &call)?;
    let reply = call.run(items, received, hints).await?;

    let started = clock::now();
    let (weight, timing) = (reply.weight, reply.timing);
    // The vectors, as numbers or in base64, and around each of them less than 80 bytes.
    let size = max_size(&reply.outcomes).saturating_add(80 * reply.outcomes.len());
    let of = call.clone();
    let write = move || {
        let output = write_outputs(of.manifest(), reply.outcomes)?.into_iter().next();
        let output = output.ok_or_else(|| Failure::new(Code::ModelFault, "the model gave no embedding"))?;
        wanted.check(output.shape.get(1).copied())?;
        write_reply(&wanted, output, weight)
    };
    let json = run_sized(size, INLINE_REPLY, write).await??;
    let mut response = respond::json(200, json);
    let took = call.observe_encode(started, true);
    add_timing(&mut response, timing, took);
    Ok(response)
}

/// A request. Members that are not here, such as `user`, are accepted and mean nothing.
#[derive(Deserialize)]
struct Asked<'a> {
    model: String,
    #[serde(borrow)]
    input: &'a RawValue,
    encoding_format: Option<String>,
    dimensions: Option<u64>,
}

/// How the embeddings are wanted.
struct Wanted {
    /// As the client called the model.
    model: String,
    base64: bool,
    dimensions: Option<u64>,
}

impl<'a> Asked<'a> {
    fn read(body: &'a [u8], limits: BodyLimits) -> Result<Self, Failure> {
        check_depth(body, limits.depth)?;
        let Object(asked) = json::from_str::<Object<Self>>(check_utf8(body)?)
            .map_err(|error| Failure::new(Code::Malformed, format!("malformed request body: {error}")))?;
        match asked.encoding_format.as_deref() {
            None | Some("float" | "base64") => Ok(asked),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let message = format!("`encoding_format`: expected float or base64, got `{other}`");
                Err(Failure::new(Code::Malformed, message).about("encoding_format"))
            }
        }
    }

    fn items(
        &self,
        body: &Bytes,
        task: &TaskManifest,
        limits: BodyLimits,
    ) -> Result<Vec<Result<ItemInput, ItemError>>, Failure> {
        let parameters = self.parameters(task)?;
        let refused = |message: String| Err(Failure::new(Code::Malformed, message).about("input"));
        let texts = match JsonForm::of(self.input.get()) {
            JsonForm::String => vec![self.input.get()],
            JsonForm::Array => bounded_json::elements(self.input.get(), limits.items).ok_or_else(|| {
                let too_many = RequestError::TooManyItems {
                    member: "input",
                    limit: limits.items,
                };
                Failure::from(too_many).about("input")
            })?,
            other => {
                return refused(format!(
                    "`input`: expected a string or a list, got {}",
                    other.name()
                ));
            }
        };
        if texts.is_empty() {
            return refused("`input` has no items; expected at least one".to_owned());
        }
        let other = texts
            .iter()
            .map(|text| JsonForm::of(text))
            .find(|form| *form != JsonForm::String);
        match other {
            None => {}
            Some(JsonForm::Number | JsonForm::Array) => {
                return refused(
                    "`input` has token ids, which this model does not take; send text".to_owned(),
                );
            }
            Some(other) => return refused(format!("`input`: expected strings, got {}", other.name())),
        }
        let item = |text: &str| {
            Ok(ItemInput {
                value: read_item(body, text, task)?,
                parameters: parameters.clone(),
            })
        };
        Ok(texts.into_iter().map(item).collect())
    }

    /// The parameters of the task: `dimensions`, if it knows them. If it does not, they must be what they are anyway.
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
        self.wanted()
            .check(declared.and_then(|&declared| u64::try_from(declared).ok()))?;
        Ok(Bytes::new())
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            model: self.model.clone(),
            base64: self.encoding_format.as_deref() == Some("base64"),
            dimensions: self.dimensions,
        }
    }
}

impl Wanted {
    /// Whether embeddings of this many dimensions, if that is known, are as wanted.
    fn check(&self, got: Option<u64>) -> Result<(), Failure> {
        match (self.dimensions, got) {
            (Some(wanted), Some(got)) if wanted != got => {
                let message = format!(
                    "`dimensions`: the embeddings of `{}` have {got} dimensions and cannot be cut to {wanted}",
                    self.model
                );
                Err(Failure::new(Code::Malformed, message).about("dimensions"))
            }
            _ => Ok(()),
        }
    }
}

fn write_reply(wanted: &Wanted, output: Output, tokens: u64) -> Result<Vec<u8>, Failure> {
    let per_byte = if wanted.base64 { 2 } else { 4 };
    let mut json = Vec::with_capacity(output.byte_len() * per_byte + output.rows.len() * 64 + 128);
    json.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, row) in output.rows.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(
            format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":").as_bytes(),
        );
        if wanted.base64 {
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
    write_string(&mut json, &wanted.model);
    json.extend_from_slice(
        format!(",\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}").as_bytes(),
    );
    Ok(json)
}
