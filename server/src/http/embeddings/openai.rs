//! `POST /v1/embeddings`: OpenAI's embeddings API, for tasks declared as embeddings. In a path of Azure, the deployment is the
//! model.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::input_type::{self, ANY_JINA_TYPE, Naming};
use super::inputs::{ItemForm, read_inputs, required};
use super::options::{Direction, EmbeddingOptions};
use super::vectors::{write_base64, write_list, write_numbers};
use crate::api::{Code, Failure};
use crate::codec::{JsonForm, write_string};
use crate::http::error_format::ErrorFormat;
use crate::http::exchange::{self, Plan, ReceivedBody};
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;
use crate::http::task_routes::TaskPath;
use crate::http::unsupported::{Unsupported, reject_unsupported};
use crate::json;
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

/// A request. Members that change nothing, such as `user`, are accepted and ignored.
#[derive(Deserialize)]
struct EmbeddingsRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    encoding_format: Option<String>,
    #[serde(default, deserialize_with = "json::whole_number")]
    dimensions: Option<u64>,
    /// The encoding in requests of Jina.
    #[serde(borrow)]
    embedding_type: Option<&'a RawValue>,
    /// The purpose of the inputs in requests of Jina.
    task: Option<String>,
    /// The same in terms of Cohere.
    input_type: Option<String>,
    /// Whether texts that are too long are truncated, in requests of Jina.
    truncate: Option<bool>,
    /// Where texts that are too long are truncated, in requests of vLLM.
    truncation_side: Option<String>,
    /// Whether embeddings are scaled to length 1, in requests of Jina and of vLLM.
    #[serde(alias = "normalized")]
    normalize: Option<bool>,
    #[serde(borrow)]
    late_chunking: Option<&'a RawValue>,
    #[serde(borrow)]
    return_multivector: Option<&'a RawValue>,
    #[serde(borrow)]
    truncate_prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    add_special_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    embed_dtype: Option<&'a RawValue>,
    #[serde(borrow)]
    endianness: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

impl EmbeddingsRequest<'_> {
    /// Rejects members that change the embeddings and are not supported.
    fn check_supported(&self) -> Result<(), Failure> {
        reject_unsupported([
            Unsupported::new("late_chunking", self.late_chunking).unless(&["false"]),
            Unsupported::new("return_multivector", self.return_multivector)
                .unless(&["false"])
                .hint("send the request to `/embed_all`, for the vectors of all tokens"),
            Unsupported::truncate_prompt_tokens(self.truncate_prompt_tokens),
            Unsupported::new("messages", self.messages).hint("send texts as `input`"),
            Unsupported::new("add_special_tokens", self.add_special_tokens).unless(&["true"]),
            Unsupported::new("embed_dtype", self.embed_dtype).unless(&["\"float32\""]),
            Unsupported::new("endianness", self.endianness).unless(&["\"native\"", "\"little\""]),
            Unsupported::priority(self.priority),
        ])
    }

    /// Whether embeddings are in base64 rather than lists of numbers.
    fn is_base64(&self) -> Result<bool, Failure> {
        let of_jina = self.embedding_type.map(jina_format).transpose()?;
        let of_jina = of_jina
            .map(|format| is_base64("embedding_type", &format))
            .transpose()?;
        let format = self.encoding_format.as_deref();
        let format = format
            .map(|format| is_base64("encoding_format", format))
            .transpose()?;
        if let (Some(one), Some(other)) = (format, of_jina)
            && one != other
        {
            let message = "`encoding_format` and `embedding_type` differ; send one of them";
            return Err(Failure::new(Code::Malformed, message).with_param("embedding_type"));
        }
        Ok(format.or(of_jina).unwrap_or(false))
    }

    /// What the embeddings are for, and the protocol that names it.
    fn purpose(&self) -> Result<Option<(Naming, &str)>, Failure> {
        match (self.task.as_deref(), self.input_type.as_deref()) {
            (None | Some(ANY_JINA_TYPE), None) => Ok(None),
            (Some(task), None) => Ok(Some((Naming::Jina, task))),
            (None, Some(input_type)) => Ok(Some((Naming::Cohere, input_type))),
            (Some(_), Some(_)) => {
                let message = "both `task` and `input_type` are present; send one of them";
                Err(Failure::new(Code::Malformed, message).with_param("input_type"))
            }
        }
    }
}

/// The only format in Jina's `embedding_type`, which can be a list.
fn jina_format(written: &RawValue) -> Result<String, Failure> {
    let rejected = |code, message| Failure::new(code, message).with_param("embedding_type");
    let is_list = JsonForm::of(written.get()) == JsonForm::Array;
    let formats = match is_list {
        true => json::from_str::<Vec<String>>(written.get()),
        false => json::from_str::<String>(written.get()).map(|format| vec![format]),
    };
    let mut formats = formats
        .map_err(|error| rejected(Code::Malformed, format!("`embedding_type`: {}", error.message())))?;
    match (formats.pop(), formats.len()) {
        (Some(format), 0) => Ok(format),
        _ => {
            let message = "`embedding_type`: expected one of float and base64";
            Err(rejected(Code::Unsupported, message.to_owned()))
        }
    }
}

/// Whether a format of embeddings is base64.
fn is_base64(param: &'static str, format: &str) -> Result<bool, Failure> {
    match format {
        "float" => Ok(false),
        "base64" => Ok(true),
        other => {
            let other: String = other.chars().take(40).collect();
            let message = format!("invalid value `{other}` for `{param}`: expected float or base64");
            Err(Failure::new(Code::Malformed, message).with_param(param))
        }
    }
}

/// Reads a request. A `deployment` that is not empty replaces the model in the body, as in Azure.
fn plan(received: &ReceivedBody, deployment: String) -> Result<Plan, Failure> {
    let request: EmbeddingsRequest<'_> = received.parse()?;
    request.check_supported()?;
    let is_base64 = request.is_base64()?;
    let direction = request.truncation_side.as_deref();
    let direction = direction.map(|side| Direction::read("truncation_side", side));
    let input = required("input", request.input)?;
    let model = match deployment.is_empty() {
        true => request.model.clone(),
        false => Some(deployment),
    };
    let options = EmbeddingOptions {
        truncate: request.truncate,
        direction: direction.transpose()?,
        normalize: request.normalize,
        dimensions: request.dimensions,
        dimensions_member: "dimensions",
        ..EmbeddingOptions::default()
    };
    let found = input_type::find(&received.view, model.as_deref(), request.purpose()?);
    let prepared = found.as_ref().map_err(Failure::clone).and_then(|(call, prompt)| {
        let inputs = read_inputs("input", input.get(), received.limits.items)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(mut body: serde_json::Value) -> Result<bool, (u16, &'static str)> {
        body["input"] = "a".into();
        let text = body.to_string();
        let request: EmbeddingsRequest<'_> =
            serde_json::from_str(&text).expect("the members have their types");
        let checked = request
            .check_supported()
            .and_then(|()| request.purpose().map(|_| ()));
        let checked = checked.and_then(|()| request.is_base64());
        checked.map_err(|failure| (failure.code.status(), failure.param.unwrap_or_default()))
    }

    #[test]
    fn members_of_jina_and_vllm_are_honored_or_rejected() {
        for (body, is_base64) in [
            (
                json!({"encoding_format": null, "user": null, "dimensions": null}),
                false,
            ),
            (json!({"encoding_format": "base64", "user": "u"}), true),
            (json!({"embedding_type": "base64"}), true),
            (
                json!({"embedding_type": ["float"], "encoding_format": "float"}),
                false,
            ),
            (
                json!({"late_chunking": false, "return_multivector": false}),
                false,
            ),
            (
                json!({"truncate_prompt_tokens": -1, "priority": 0, "add_special_tokens": true}),
                false,
            ),
            (json!({"embed_dtype": "float32", "endianness": "little"}), false),
            (json!({"task": "text-matching"}), false),
        ] {
            assert_eq!(check(body.clone()), Ok(is_base64), "{body}");
        }
        for (body, status, param) in [
            (json!({"encoding_format": "int8"}), 400, "encoding_format"),
            (json!({"embedding_type": "binary"}), 400, "embedding_type"),
            (
                json!({"embedding_type": ["float", "base64"]}),
                422,
                "embedding_type",
            ),
            (json!({"embedding_type": []}), 422, "embedding_type"),
            (json!({"embedding_type": 3}), 400, "embedding_type"),
            (
                json!({"embedding_type": "base64", "encoding_format": "float"}),
                400,
                "embedding_type",
            ),
            (
                json!({"task": "separation", "input_type": "clustering"}),
                400,
                "input_type",
            ),
            (json!({"late_chunking": true}), 422, "late_chunking"),
            (json!({"return_multivector": true}), 422, "return_multivector"),
            (
                json!({"truncate_prompt_tokens": 7}),
                422,
                "truncate_prompt_tokens",
            ),
            (json!({"messages": []}), 422, "messages"),
            (json!({"add_special_tokens": false}), 422, "add_special_tokens"),
            (json!({"embed_dtype": "float16"}), 422, "embed_dtype"),
            (json!({"endianness": "big"}), 422, "endianness"),
            (json!({"priority": 1}), 422, "priority"),
        ] {
            assert_eq!(check(body.clone()), Err((status, param)), "{body}");
        }
    }
}
