//! `POST /v1/embed` and `/v2/embed`: Cohere's embeddings API, for tasks declared as embeddings.
//!
//! The type of the inputs selects a task or a prompt of the model, as `[models.embeddings]` says.

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::input_type::{self, Naming};
use super::inputs::{Input, ItemForm, read_inputs};
use super::options::{Direction, EmbeddingOptions};
use super::vectors::{elements, write_base64, write_list, write_numbers};
use crate::api::{Code, Failure};
use crate::codec::{JsonForm, bounded_json, write_string};
use crate::config::TokenIds;
use crate::http::error_format::ErrorFormat;
use crate::http::exchange::{self, Plan, ReceivedBody};
use crate::http::native::request_items::RequestError;
use crate::http::request_headers::RequestHead;
use crate::http::server::Shared;
use crate::http::unsupported::{Unsupported, reject_unsupported};
use crate::json::{self, Object};
use crate::metrics::Protocol;

/// `POST /v2/embed`
pub(in crate::http) async fn embed(
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
) -> HttpResponse {
    let protocol = (Protocol::Cohere, ErrorFormat::Rerank);
    let is_v2 = request.path() == "/v2/embed";
    let read = move |received: &ReceivedBody| plan(received, is_v2);
    exchange::answer(request, payload, shared, protocol, read).await
}

/// A request. Other members are accepted and ignored.
#[derive(Deserialize)]
struct EmbedRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    texts: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    #[serde(borrow)]
    images: Option<&'a RawValue>,
    input_type: Option<String>,
    embedding_types: Option<Vec<String>>,
    truncate: Option<String>,
    #[serde(default, deserialize_with = "json::whole_number")]
    output_dimension: Option<u64>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
}

/// A form of embeddings in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EmbeddingType {
    Float,
    /// The sign of each element as a bit, eight in an integer from -128 to 127.
    Binary,
    /// The same as integers from 0 to 255.
    UnsignedBinary,
    Base64,
}

impl EmbeddingType {
    fn read(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "float" => Self::Float,
            "binary" => Self::Binary,
            "ubinary" => Self::UnsignedBinary,
            "base64" => Self::Base64,
            "int8" | "uint8" => {
                let message = format!(
                    "`embedding_types`: `{name}` is not supported, because it depends on ranges that the model does not define; \
                     expected float, binary, ubinary or base64"
                );
                return Err(Failure::new(Code::Unsupported, message).with_param("embedding_types"));
            }
            other => {
                let other: String = other.chars().take(40).collect();
                let message = format!(
                    "invalid value `{other}` in `embedding_types`: expected float, binary, ubinary or base64"
                );
                return Err(malformed("embedding_types", message));
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Binary => "binary",
            Self::UnsignedBinary => "ubinary",
            Self::Base64 => "base64",
        }
    }

    fn write(self, json: &mut Vec<u8>, embedding: &Bytes) -> Result<(), Failure> {
        match self {
            Self::Float => write_numbers(json, embedding.clone()),
            Self::Base64 => {
                write_base64(json, embedding);
                Ok(())
            }
            Self::Binary => write_list(json, signs(embedding)?, |json, byte| {
                json.extend_from_slice((i16::from(byte) - 128).to_string().as_bytes());
                Ok(())
            }),
            Self::UnsignedBinary => write_list(json, signs(embedding)?, |json, byte| {
                json.extend_from_slice(byte.to_string().as_bytes());
                Ok(())
            }),
        }
    }
}

/// Whether each element is positive, as bits, the first of which is the most significant.
fn signs(embedding: &[u8]) -> Result<Vec<u8>, Failure> {
    let bits: Vec<bool> = elements(embedding).map(|element| element > 0.0).collect();
    if !bits.len().is_multiple_of(8) {
        let message = format!(
            "`embedding_types`: binary embeddings require a multiple of 8 dimensions, and the embeddings have {}",
            bits.len()
        );
        return Err(Failure::new(Code::Unsupported, message).with_param("embedding_types"));
    }
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit));
    Ok(bits.chunks(8).map(byte).collect())
}

fn malformed(param: &'static str, message: impl Into<String>) -> Failure {
    Failure::new(Code::Malformed, message).with_param(param)
}

fn plan(received: &ReceivedBody, is_v2: bool) -> Result<Plan, Failure> {
    let request: EmbedRequest<'_> = received.parse()?;
    request.check_supported()?;
    let inputs = request.read_inputs(received.limits.items)?;
    let types = match (&request.embedding_types, is_v2) {
        (Some(types), _) if !types.is_empty() => {
            let types = types.iter().map(|name| EmbeddingType::read(name));
            Some(types.collect::<Result<Vec<_>, _>>()?)
        }
        (_, true) => Some(vec![EmbeddingType::Float]),
        (_, false) => None,
    };
    let (truncate, direction) = request.truncation()?;
    let model = request.model.clone().unwrap_or_default();
    let call = input_type::find(
        &received.view,
        request.model.as_deref(),
        request.input_type.as_deref().map(|name| (Naming::Cohere, name)),
    );
    let prepared = call.as_ref().map_err(Failure::clone).and_then(|(call, prompt)| {
        let options = EmbeddingOptions {
            truncate: Some(truncate),
            direction: Some(direction),
            normalize: None,
            prompt_name: prompt.clone(),
            dimensions: request.output_dimension,
            dimensions_member: "output_dimension",
        };
        let (parameters, finish) = options.resolve(call)?;
        let form = ItemForm {
            member: "texts",
            task: call.manifest(),
            parameters,
            token_ids: TokenIds::Reject,
        };
        Ok((form.items(received, &inputs)?, finish))
    });
    let call = call.map(|(call, _)| call);
    let (items, finish) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return Ok(Plan::failed(model, call, failure)),
    };
    let slice = |text: &str| received.body.slice_ref(text.as_bytes());
    let texts: Vec<Bytes> = inputs
        .iter()
        .map(|input| match input {
            Input::Text(text) | Input::Ids(text) => slice(text),
        })
        .collect();
    let id = received.request_id.clone().unwrap_or_default();
    Ok(Plan {
        model,
        call,
        items: Ok(items),
        write: Box::new(move |call, reply| {
            let embeddings = finish.embeddings(call, reply.outcomes)?;
            let mut json = b"{\"id\":".to_vec();
            write_string(&mut json, &id);
            json.extend_from_slice(b",\"response_type\":\"");
            json.extend_from_slice(match types {
                Some(_) => b"embeddings_by_type\",\"embeddings\":".as_slice(),
                None => b"embeddings_floats\",\"embeddings\":",
            });
            write_embeddings(&mut json, types.as_deref(), &embeddings)?;
            json.extend_from_slice(b",\"texts\":");
            write_list(&mut json, texts, |json, text| {
                json.extend_from_slice(&text);
                Ok(())
            })?;
            let meta = json!({
                "api_version": {"version": if is_v2 { "2" } else { "1" }},
                "billed_units": {"input_tokens": reply.weight},
            });
            json.extend_from_slice(format!(",\"meta\":{meta}}}").as_bytes());
            Ok(json)
        }),
    })
}

/// Writes embeddings as a list of lists, or as an object with a list for each type.
fn write_embeddings(
    json: &mut Vec<u8>,
    types: Option<&[EmbeddingType]>,
    embeddings: &[Bytes],
) -> Result<(), Failure> {
    let Some(types) = types else {
        return write_list(json, embeddings, |json, embedding| {
            EmbeddingType::Float.write(json, embedding)
        });
    };
    json.push(b'{');
    for (index, kind) in types.iter().enumerate() {
        if types[..index].contains(kind) {
            continue;
        }
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(format!("\"{}\":", kind.name()).as_bytes());
        write_list(json, embeddings, |json, embedding| kind.write(json, embedding))?;
    }
    json.push(b'}');
    Ok(())
}

impl<'a> EmbedRequest<'a> {
    /// Rejects members that change the embeddings and are not supported.
    fn check_supported(&self) -> Result<(), Failure> {
        let images = self.images.filter(|images| !is_empty(images));
        reject_unsupported([
            Unsupported::new("images", images).hint("send `texts`"),
            Unsupported::new("max_tokens", self.max_tokens),
            Unsupported::priority(self.priority),
        ])
    }

    /// The texts of `texts`, or of `inputs` whose content is a text each.
    fn read_inputs(&self, limit: usize) -> Result<Vec<Input<'a>>, Failure> {
        let member = match (self.texts, self.inputs) {
            (Some(texts), None) => {
                let form = JsonForm::of(texts.get());
                if form != JsonForm::Array {
                    return Err(malformed(
                        "texts",
                        format!("`texts`: expected an array, got {}", form.name()),
                    ));
                }
                let inputs = read_inputs("texts", texts.get(), limit)?;
                return match inputs.iter().all(|input| matches!(input, Input::Text(_))) {
                    true => Ok(inputs),
                    false => Err(malformed("texts", "`texts`: expected strings")),
                };
            }
            (None, Some(inputs)) => inputs.get(),
            (Some(_), Some(_)) => {
                return Err(malformed(
                    "inputs",
                    "both `texts` and `inputs` are present; send one of them",
                ));
            }
            (None, None) => return Err(malformed("texts", "missing member `texts`")),
        };
        if JsonForm::of(member) != JsonForm::Array {
            return Err(malformed("inputs", "`inputs`: expected an array"));
        }
        let too_many = RequestError::TooManyItems {
            member: "inputs",
            limit,
        };
        let inputs = bounded_json::elements(member, limit)
            .ok_or_else(|| Failure::from(too_many).with_param("inputs"))?;
        if inputs.is_empty() {
            return Err(Failure::from(RequestError::Empty { member: "inputs" }).with_param("inputs"));
        }
        let read = |(index, input): (usize, &'a str)| {
            let invalid = |message: String| malformed("inputs", format!("`inputs[{index}]`: {message}"));
            let Object(input) = json::from_str::<Object<ContentInput<'a>>>(input)
                .map_err(|error| invalid(error.message()))?;
            match input.content.as_slice() {
                [Object(part)] if part.kind == "text" => match part.text.map(RawValue::get) {
                    Some(text) if JsonForm::of(text) == JsonForm::String => Ok(Input::Text(text)),
                    _ => Err(invalid("expected a string as `text`".to_owned())),
                },
                _ => Err(invalid(
                    "expected `content` with one part of type `text`".to_owned(),
                )),
            }
        };
        inputs.into_iter().enumerate().map(read).collect()
    }

    /// Whether texts are truncated, and where. The default is the end.
    fn truncation(&self) -> Result<(bool, Direction), Failure> {
        match self.truncate.as_deref() {
            None | Some("END") => Ok((true, Direction::Right)),
            Some("START") => Ok((true, Direction::Left)),
            Some("NONE") => Ok((false, Direction::Right)),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let message = format!("invalid value `{other}` for `truncate`: expected NONE, START or END");
                Err(malformed("truncate", message))
            }
        }
    }
}

/// An element of `inputs`.
#[derive(Deserialize)]
struct ContentInput<'a> {
    #[serde(borrow)]
    content: Vec<Object<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

fn is_empty(array: &RawValue) -> bool {
    array
        .get()
        .strip_prefix('[')
        .is_some_and(|rest| rest.trim_start() == "]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(elements: &[f32]) -> Bytes {
        elements
            .iter()
            .flat_map(|element| element.to_le_bytes())
            .collect()
    }

    #[test]
    fn every_type_of_embeddings_is_written() {
        let one = embedding(&[0.5, -1.0, 0.0, 2.0, -0.5, -0.5, -0.5, 1.0]);
        let types = [
            EmbeddingType::Float,
            EmbeddingType::UnsignedBinary,
            EmbeddingType::Binary,
            EmbeddingType::Base64,
            EmbeddingType::Float,
        ];
        let mut json = Vec::new();
        write_embeddings(&mut json, Some(&types), std::slice::from_ref(&one)).expect("it can be written");
        // 0b10010001
        assert_eq!(
            String::from_utf8_lossy(&json),
            "{\"float\":[[0.5,-1.0,0.0,2.0,-0.5,-0.5,-0.5,1.0]],\"ubinary\":[[145]],\"binary\":[[17]],\
             \"base64\":[\"AAAAPwAAgL8AAAAAAAAAQAAAAL8AAAC/AAAAvwAAgD8=\"]}"
        );
        let failure = EmbeddingType::Binary.write(&mut json, &embedding(&[1.0, 2.0]));
        assert_eq!(failure.map_err(|failure| failure.code), Err(Code::Unsupported));
    }

    #[test]
    fn requests_that_cannot_be_honored_are_rejected_with_the_member() {
        let read = |body: serde_json::Value| {
            let text = body.to_string();
            let request: EmbedRequest<'_> =
                serde_json::from_str(&text).expect("the members have their types");
            let result = request
                .check_supported()
                .and_then(|()| request.truncation().map(|_| ()))
                .and_then(|()| request.read_inputs(2).map(|inputs| inputs.len()));
            result.map_err(|failure| (failure.param.unwrap_or_default(), failure.code.status()))
        };
        let content = |kind: &str| json!([{"content": [{"type": kind, "text": "a"}]}]);
        assert_eq!(read(json!({"texts": ["a", "b"]})), Ok(2));
        assert_eq!(
            read(json!({"inputs": content("text"), "truncate": "START", "priority": 0})),
            Ok(1)
        );
        for (body, param, status) in [
            (json!({}), "texts", 400),
            (json!({"texts": "a"}), "texts", 400),
            (json!({"texts": []}), "texts", 400),
            (json!({"texts": [[1, 2]]}), "texts", 400),
            (json!({"texts": ["a", "b", "c"]}), "texts", 400),
            (json!({"texts": ["a"], "inputs": []}), "inputs", 400),
            (json!({"inputs": content("image_url")}), "inputs", 400),
            (json!({"images": ["data:"]}), "images", 422),
            (json!({"texts": ["a"], "max_tokens": 4}), "max_tokens", 422),
            (json!({"texts": ["a"], "priority": 2}), "priority", 422),
            (json!({"texts": ["a"], "truncate": "end"}), "truncate", 400),
        ] {
            assert_eq!(read(body.clone()), Err((param, status)), "{body}");
        }
    }
}
