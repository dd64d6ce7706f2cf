//! `POST /tokenize` and `/decode`, for models that have tasks for them.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::embed::succeeded;
use crate::api::{Call, Code, Failure, ModelName, TaskRole};
use crate::codec::{JsonForm, write_string};
use crate::config::TokenIds;
use crate::http::embeddings::inputs::{Input, ItemForm, read_inputs, required, written};
use crate::http::embeddings::options::has;
use crate::http::embeddings::vectors::write_list;
use crate::http::exchange::{Items, Plan, ReceivedBody};
use crate::values::{ItemInput, Value};

#[derive(Deserialize)]
struct TokenizeRequest<'a> {
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    add_special_tokens: Option<bool>,
    prompt_name: Option<String>,
}

#[derive(Deserialize)]
struct DecodeRequest<'a> {
    #[serde(borrow)]
    ids: Option<&'a RawValue>,
    skip_special_tokens: Option<bool>,
}

pub(super) fn tokenize(received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    let request: TokenizeRequest<'_> = received.parse()?;
    let inputs = required("inputs", request.inputs)?.get();
    let inputs = read_inputs("inputs", inputs, received.limits.items)?;
    if inputs.iter().any(|input| matches!(input, Input::Ids(_))) {
        let message = "`inputs`: expected a string or an array of strings";
        return Err(Failure::new(Code::Malformed, message).with_param("inputs"));
    }
    let call = match Call::to_role(
        &received.view,
        ModelName::InPath(Some(model)),
        TaskRole::Tokenizer,
    ) {
        Ok(call) => call,
        Err(failure) => return Ok(Plan::failed(model.to_owned(), Err(failure.clone()), failure)),
    };
    let special = request.add_special_tokens.map(Json::from);
    let prompt = request.prompt_name.map(Json::from);
    let choices = [
        ("add_special_tokens", special, Some(Json::from(true))),
        ("prompt_name", prompt, None),
    ];
    let form = ItemForm {
        member: "inputs",
        task: call.manifest(),
        parameters: parameters(&call, choices)?,
        token_ids: TokenIds::Reject,
    };
    let items = form.items(received, &inputs);
    Ok(Plan {
        model: model.to_owned(),
        call: Ok(call),
        items,
        write: Box::new(|_, reply| {
            let mut json = Vec::new();
            write_list(&mut json, succeeded(reply.outcomes)?, |json, value| match value {
                Value::Json(tokens) => {
                    json.extend_from_slice(&tokens);
                    Ok(())
                }
                _ => Err(Failure::new(
                    Code::ModelFault,
                    "the tokenizer did not return tokens",
                )),
            })?;
            Ok(json)
        }),
    })
}

pub(super) fn decode(received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    let request: DecodeRequest<'_> = received.parse()?;
    let ids = required("ids", request.ids)?.get();
    let inputs = match JsonForm::of(ids) {
        JsonForm::String => Vec::new(),
        _ => read_inputs("ids", ids, received.limits.items)?,
    };
    let call = match Call::to_role(
        &received.view,
        ModelName::InPath(Some(model)),
        TaskRole::Detokenizer,
    ) {
        Ok(call) => call,
        Err(failure) => return Ok(Plan::failed(model.to_owned(), Err(failure.clone()), failure)),
    };
    let choices = [(
        "skip_special_tokens",
        request.skip_special_tokens.map(Json::from),
        Some(Json::from(true)),
    )];
    let parameters = written(&parameters(&call, choices)?);
    let item = |input: &Input<'_>| match input {
        Input::Ids(ids) => Ok(Ok(ItemInput {
            value: Value::Json(received.body.slice_ref(ids.as_bytes())),
            parameters: parameters.clone(),
        })),
        Input::Text(_) => Err(not_ids()),
    };
    let items = inputs.iter().map(item).collect::<Result<Items, Failure>>()?;
    if items.is_empty() {
        return Err(not_ids());
    }
    Ok(Plan {
        model: model.to_owned(),
        call: Ok(call),
        items: Ok((items, None)),
        write: Box::new(|_, reply| {
            let mut json = Vec::new();
            write_list(&mut json, succeeded(reply.outcomes)?, |json, value| match value {
                Value::Text(text) => {
                    write_string(json, &String::from_utf8_lossy(&text));
                    Ok(())
                }
                _ => Err(Failure::new(
                    Code::ModelFault,
                    "the detokenizer did not return a text",
                )),
            })?;
            Ok(json)
        }),
    })
}

fn not_ids() -> Failure {
    let message = "`ids`: expected an array of token ids, or an array of such arrays";
    Failure::new(Code::Malformed, message).with_param("ids")
}

/// The parameters of a task: what the client chose, or else the documented default. A choice that the task does not support is
/// an error.
fn parameters<const N: usize>(
    call: &Call,
    choices: [(&'static str, Option<Json>, Option<Json>); N],
) -> Result<Map<String, Json>, Failure> {
    let task = call.manifest();
    let mut parameters = Map::new();
    for (name, chosen, default) in choices {
        let is_default = chosen.is_none() || chosen == default;
        match chosen.or(default) {
            Some(value) if has(task, name) => drop(parameters.insert(name.to_owned(), value)),
            Some(_) if !is_default => {
                let message = format!("task `{}` does not support `{name}`", task.name);
                return Err(Failure::new(Code::Unsupported, message).with_param(name));
            }
            Some(_) | None => {}
        }
    }
    Ok(parameters)
}
