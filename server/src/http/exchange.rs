//! The frame of requests whose body names the model and contains all items, in the protocols of OpenAI, Cohere, Jina, vLLM and
//! text-embeddings-inference: receive and read the body, run the items, write the reply, and record each stage.
//!
//! What differs between the routes is a [`Plan`]: the model and task, the items, and how the reply is written.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;

use super::error_format::ErrorFormat;
use super::native::envelope::{check_depth, check_utf8};
use super::native::reply::max_size;
use super::offload::{MAX_INLINE_BODY, MAX_INLINE_REPLY, run_by_size};
use super::request_body::receive;
use super::request_headers::{RequestHead, request_options};
use super::respond::{self, add_server_timing};
use super::server::Shared;
use crate::api::{BodyLimits, Call, Code, Decoding, Failure, ModelView, RequestRecord};
use crate::byte_budget::{BudgetExhausted, ByteBudget, Reservation};
use crate::clock;
use crate::engine::Reply;
use crate::error::ItemError;
use crate::json::{self, Object};
use crate::metrics::Protocol;
use crate::values::ItemInput;

/// The items of a request.
pub(super) type Items = Vec<Result<ItemInput, ItemError>>;

/// A body, and what reading it needs.
pub(super) struct ReceivedBody {
    pub(super) body: Bytes,
    /// The models that the client may use.
    pub(super) view: ModelView,
    pub(super) limits: BodyLimits,
    pub(super) request_id: Option<Arc<str>>,
    budget: Arc<ByteBudget>,
}

impl ReceivedBody {
    /// Reads the body as a JSON object.
    ///
    /// # Errors
    /// If it is not one, or does not have the members of `T`.
    pub(super) fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        parse(&self.body, self.limits)
    }

    /// Reserves memory for items of up to `size` bytes beyond the body.
    pub(super) fn reserve(&self, size: usize) -> Result<Decoding, BudgetExhausted> {
        Decoding::reserve(&self.budget, size)
    }
}

/// Reads a body as a JSON object.
///
/// # Errors
/// If it is not one, or does not have the members of `T`.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], limits: BodyLimits) -> Result<T, Failure> {
    check_depth(body, limits.depth)?;
    let parsed = json::from_str::<Object<T>>(check_utf8(body)?);
    parsed
        .map(|Object(parsed)| parsed)
        .map_err(|error| Failure::new(Code::Malformed, format!("malformed request body: {error}")))
}

/// How to answer a request.
pub(super) struct Plan {
    /// The model name in the request; may be empty.
    pub(super) model: String,
    pub(super) call: Result<Call, Failure>,
    /// The items, and the memory that they take beyond the body. Not used if there is no call.
    pub(super) items: Result<(Items, Option<Reservation>), Failure>,
    pub(super) write: Write,
}

impl Plan {
    /// A request that fails, before or after its task is known.
    pub(super) fn failed(model: String, call: Result<Call, Failure>, failure: Failure) -> Self {
        Self {
            model,
            call,
            items: Err(failure.clone()),
            write: Box::new(|_, _| Err(failure)),
        }
    }
}

/// Writes a reply as JSON.
pub(super) type Write = Box<dyn FnOnce(&Call, Reply) -> Result<Vec<u8>, Failure> + Send>;

/// Answers a request, with errors in the format of its protocol. `read` and the function that it returns run on the event loop only if body and reply are small.
pub(super) async fn answer(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    (protocol, errors): (Protocol, ErrorFormat),
    read: impl FnOnce(&ReceivedBody) -> Result<Plan, Failure> + Send + 'static,
) -> HttpResponse {
    let mut record = RequestRecord::new(&shared.telemetry, protocol, clock::now(), request.trace());
    let result = run(request, payload, shared, read, &mut record).await;
    respond::recorded(record, result, |failure| {
        respond::failure_in(errors, request, failure)
    })
}

async fn run(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    read: impl FnOnce(&ReceivedBody) -> Result<Plan, Failure> + Send + 'static,
    record: &mut RequestRecord,
) -> Result<HttpResponse, Failure> {
    let received = record.received();
    let view = shared.view(request);
    view.client().admit_request()?;
    let body = receive(request, payload, &shared.receive, received, 0).await?;
    let body_size = body.len();
    let received_body = ReceivedBody {
        body,
        view: view.clone(),
        limits: shared.body,
        request_id: request.request_id(),
        budget: shared.receive.budget.clone(),
    };
    let plan = run_by_size(body_size, MAX_INLINE_BODY, move || read(&received_body)).await??;
    // The model is named in the body, so its default timeout is known only now.
    record.set_address(view.snapshot(), &plan.model, &plan.call);
    let (call, (items, decoded)) = (plan.call?, plan.items?);
    let options = request_options(request, &call)?;
    let reply = call.run(items, decoded, options, record).await?;

    let started = clock::now();
    let timing = reply.timing;
    // Less than 80 bytes around each output, and the texts of the request.
    let size = max_size(&reply.outcomes)
        .saturating_add(80 * reply.outcomes.len())
        .saturating_add(body_size);
    let (owned_call, write) = (call.clone(), plan.write);
    let json = run_by_size(size, MAX_INLINE_REPLY, move || write(&owned_call, reply)).await??;
    let mut response = respond::json(200, json);
    let elapsed = record.encoded(&call, started, true);
    add_server_timing(&mut response, timing, elapsed);
    Ok(response)
}
