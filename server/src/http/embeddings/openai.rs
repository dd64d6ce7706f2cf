//! `POST /v1/embeddings`: OpenAI's embeddings API, for tasks declared as embeddings. In a path of Azure, the deployment is the
//! model.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cohere;
use super::inputs::{ItemForm, read_inputs};
use super::options::{EmbeddingOptions, check_truncate_prompt_tokens};
use super::vectors::{write_base64, write_list, write_numbers};
use crate::api::{Call, Code, Failure, ModelName, TaskRole};
use crate::codec::write_string;
use crate::http::error_format::ErrorFormat;
use crate::http::exchange::{self, Plan, ReceivedBody};
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::metrics::Protocol;

/// `POST /v1/embeddings`
pub(in crate::http) async fn embeddings(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    let protocol = (Protocol::OpenAi, ErrorFormat::OpenAi);
    let read = move |received: &ReceivedBody| plan(received, path.model);
    exchange::answer(request, payload, shared, protocol, read).await
}

/// A request. Other members, such as `user`, are accepted and ignored.
#[derive(Deserialize)]
struct EmbeddingsRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: &'a RawValue,
    encoding_format: Option<String>,
    #[serde(default, deserialize_with = "crate::json::whole_number")]
    dimensions: Option<u64>,
    /// The encoding in requests of Jina.
    embedding_type: Option<String>,
    /// The purpose of the inputs in requests of Jina.
    task: Option<String>,
    late_chunking: Option<bool>,
    /// Whether texts that are too long are truncated, in requests of Jina.
    truncate: Option<bool>,
    /// Whether embeddings are scaled to length 1, in requests of Jina and of vLLM.
    #[serde(alias = "normalized")]
    normalize: Option<bool>,
    /// Maximum number of tokens in requests of vLLM; -1 for that of the model.
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
}

impl EmbeddingsRequest<'_> {
    /// Whether embeddings are in base64 rather than lists of numbers.
    fn is_base64(&self) -> Result<bool, Failure> {
        let (param, format) = match (&self.encoding_format, &self.embedding_type) {
            (Some(format), _) => ("encoding_format", format),
            (None, Some(format)) => ("embedding_type", format),
            (None, None) => return Ok(false),
        };
        match format.as_str() {
            "float" => Ok(false),
            "base64" => Ok(true),
            other => {
                let other: String = other.chars().take(40).collect();
                let message = format!("invalid value `{other}` for `{param}`: expected float or base64");
                Err(Failure::new(Code::Malformed, message).with_param(param))
            }
        }
    }

    /// The type of the inputs in Cohere's terms.
    fn input_type(&self) -> Result<Option<&'static str>, Failure> {
        Ok(match self.task.as_deref() {
            None | Some("text-matching") => None,
            Some("retrieval.query") => Some("search_query"),
            Some("retrieval.passage") => Some("search_document"),
            Some("classification") => Some("classification"),
            Some("separation") => Some("clustering"),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let message = format!(
                    "invalid value `{other}` for `task`: expected retrieval.query, retrieval.passage, classification, separation \
                     or text-matching"
                );
                return Err(Failure::new(Code::Malformed, message).with_param("task"));
            }
        })
    }
}

/// Reads a request. A `deployment` that is not empty replaces the model in the body, as in Azure.
fn plan(received: &ReceivedBody, deployment: String) -> Result<Plan, Failure> {
    let request: EmbeddingsRequest<'_> = received.parse()?;
    let (is_base64, input_type) = (request.is_base64()?, request.input_type()?);
    let model = match deployment.is_empty() {
        true => request.model,
        false => Some(deployment),
    };
    if request.late_chunking == Some(true) {
        let message = "`late_chunking` is not supported; remove it";
        return Err(Failure::new(Code::Unsupported, message).with_param("late_chunking"));
    }
    check_truncate_prompt_tokens(request.truncate_prompt_tokens)?;
    let options = EmbeddingOptions {
        truncate: request.truncate,
        normalize: request.normalize,
        dimensions: request.dimensions,
        dimensions_member: "dimensions",
        ..EmbeddingOptions::default()
    };
    let found = match input_type {
        Some(input_type) => cohere::find(&received.view, model.as_deref(), Some(input_type)),
        None => {
            let name = ModelName::InBody(model.as_deref());
            Call::to_role(&received.view, name, TaskRole::Embedding).map(|call| (call, None))
        }
    };
    let prepared = found.as_ref().map_err(Failure::clone).and_then(|(call, prompt)| {
        let inputs = read_inputs("input", request.input.get(), received.limits.items)?;
        let options = EmbeddingOptions {
            prompt_name: prompt.clone(),
            ..options
        };
        let (parameters, finish) = options.resolve(call)?;
        let form = ItemForm {
            member: "input",
            task: call.manifest(),
            parameters,
            token_ids: call.entry.settings.embeddings.token_ids,
        };
        Ok((form.items(received, &inputs)?, finish))
    });
    let (call, model) = (found.map(|(call, _)| call), model.unwrap_or_default());
    let name = model.clone();
    Ok(match prepared {
        Ok((items, finish)) => Plan {
            model,
            call,
            items: Ok(items),
            write: Box::new(move |call, reply| {
                let embeddings = finish.embeddings(call, reply.outcomes)?;
                let name = match name.is_empty() {
                    true => call.entry.name(),
                    false => &name,
                };
                write_reply(name, is_base64, embeddings, reply.weight)
            }),
        },
        Err(failure) => Plan::failed(model, call, failure),
    })
}

fn write_reply(
    model: &str,
    is_base64: bool,
    embeddings: Vec<Bytes>,
    tokens: u64,
) -> Result<Vec<u8>, Failure> {
    let per_byte = if is_base64 { 2 } else { 4 };
    let size: usize = embeddings
        .iter()
        .map(|embedding| embedding.len() * per_byte + 64)
        .sum();
    let mut json = Vec::with_capacity(size + 128);
    json.extend_from_slice(b"{\"object\":\"list\",\"data\":");
    write_list(
        &mut json,
        embeddings.into_iter().enumerate(),
        |json, (index, embedding)| {
            json.extend_from_slice(
                format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":").as_bytes(),
            );
            match is_base64 {
                true => write_base64(json, &embedding),
                false => write_numbers(json, embedding)?,
            }
            json.push(b'}');
            Ok(())
        },
    )?;
    json.extend_from_slice(b",\"model\":");
    write_string(&mut json, model);
    json.extend_from_slice(
        format!(",\"usage\":{{\"prompt_tokens\":{tokens},\"total_tokens\":{tokens}}}}}").as_bytes(),
    );
    Ok(json)
}
