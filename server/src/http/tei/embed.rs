//! `POST /embed`, `/embed_all` and `/embed_sparse`.

use plugin_abi::manifest::TaskManifest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::tensors::most_severe;
use crate::api::{Call, Code, Failure, ModelName, TaskRole};
use crate::codec::write_tensor;
use crate::config::TokenIds;
use crate::engine::Outcome;
use crate::http::embeddings::inputs::{ItemForm, read_inputs, required};
use crate::http::embeddings::options::{Direction, EmbeddingOptions, has};
use crate::http::embeddings::vectors::{write_list, write_numbers};
use crate::http::exchange::{Plan, ReceivedBody};
use crate::json;
use crate::values::Value;

/// A request.
#[derive(Deserialize)]
struct EmbedRequest<'a> {
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    prompt_name: Option<String>,
    normalize: Option<bool>,
    #[serde(default, deserialize_with = "json::whole_number")]
    dimensions: Option<u64>,
    encoding_format: Option<String>,
}

/// What clients can choose for texts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TextOptions {
    pub(super) truncate: Option<bool>,
    pub(super) truncation_direction: Option<String>,
    pub(super) prompt_name: Option<String>,
}

impl TextOptions {
    /// The prompt in the request.
    pub(super) fn prompt(&self) -> Option<&str> {
        self.prompt_name.as_deref()
    }

    /// The options for a task. The documented defaults apply as far as the task can be told: texts are not truncated.
    pub(super) fn resolve(
        &self,
        task: &TaskManifest,
        needs_prompt: bool,
    ) -> Result<EmbeddingOptions, Failure> {
        let default = has(task, "truncate").then_some(false);
        let direction = self.truncation_direction.as_deref();
        Ok(EmbeddingOptions {
            truncate: self.truncate.or(default),
            direction: direction
                .map(|side| Direction::read("truncation_direction", side))
                .transpose()?,
            prompt_name: self.prompt_name.clone().filter(|_| needs_prompt),
            dimensions_member: "dimensions",
            ..EmbeddingOptions::default()
        })
    }
}

pub(super) fn plan(received: &ReceivedBody, model: &str, role: TaskRole) -> Result<Plan, Failure> {
    let request: EmbedRequest<'_> = received.parse()?;
    if let Some(format) = request
        .encoding_format
        .as_deref()
        .filter(|format| *format != "float")
    {
        let format: String = format.chars().take(40).collect();
        let message = format!("invalid value `{format}` for `encoding_format`: expected float");
        return Err(Failure::new(Code::Malformed, message).with_param("encoding_format"));
    }
    let choices = TextOptions {
        truncate: request.truncate,
        truncation_direction: request.truncation_direction,
        prompt_name: request.prompt_name,
    };
    let inputs = required("inputs", request.inputs)?;
    let inputs = read_inputs("inputs", inputs.get(), received.limits.items)?;
    let (call, needs_prompt) = match find(received, model, role, choices.prompt()) {
        Ok(found) => found,
        Err(failure) => return Ok(Plan::failed(model.to_owned(), Err(failure.clone()), failure)),
    };
    let mut options = choices.resolve(call.manifest(), needs_prompt)?;
    let is_dense = role == TaskRole::Embedding;
    if is_dense {
        options.normalize = Some(request.normalize.unwrap_or(true));
        options.dimensions = request.dimensions;
    } else {
        only_for_embed("dimensions", request.dimensions.is_some())?;
        only_for_embed("normalize", request.normalize.is_some())?;
    }
    let (parameters, finish) = match is_dense {
        true => {
            let (parameters, finish) = options.resolve(&call)?;
            (parameters, Some(finish))
        }
        false => (options.text_parameters(call.manifest())?, None),
    };
    let form = ItemForm {
        member: "inputs",
        task: call.manifest(),
        parameters,
        token_ids: TokenIds::Model,
    };
    let items = form.items(received, &inputs);
    Ok(Plan {
        model: model.to_owned(),
        call: Ok(call),
        items,
        write: Box::new(move |call, reply| {
            let mut json = Vec::new();
            match (role, finish) {
                (_, Some(finish)) => {
                    let embeddings = finish.embeddings(call, reply.outcomes)?;
                    write_list(&mut json, embeddings, write_numbers)?;
                }
                (TaskRole::SparseEmbedding, None) => {
                    let outputs = sparse(reply.outcomes)?;
                    return serde_json::to_vec(&outputs)
                        .map_err(|error| Failure::new(Code::Internal, error.to_string()));
                }
                _ => write_list(&mut json, succeeded(reply.outcomes)?, write_tokens)?,
            }
            Ok(json)
        }),
    })
}

/// Finds the task for texts with a prompt, and whether the task has to be told the prompt.
pub(super) fn find(
    received: &ReceivedBody,
    model: &str,
    role: TaskRole,
    prompt: Option<&str>,
) -> Result<(Call, bool), Failure> {
    let name = ModelName::InPath(Some(model));
    let prompts = Call::prompts(&received.view, name, role);
    let malformed = |message: String| Err(Failure::new(Code::Malformed, message).with_param("prompt_name"));
    let expected = prompts.join(", ");
    match prompt {
        None if !prompts.is_empty() => malformed(format!(
            "missing member `prompt_name`: expected one of {expected}"
        )),
        Some(unknown) if !prompts.is_empty() && !prompts.contains(&unknown) => {
            let unknown: String = unknown.chars().take(40).collect();
            malformed(format!(
                "invalid value `{unknown}` for `prompt_name`: expected one of {expected}"
            ))
        }
        prompt => Call::to_embedding(&received.view, name, role, prompt),
    }
}

/// Rejects an option that other routes do not have.
fn only_for_embed(param: &'static str, is_present: bool) -> Result<(), Failure> {
    match is_present {
        false => Ok(()),
        true => {
            let message = format!("`{param}` is only supported by `/embed`; remove it");
            Err(Failure::new(Code::Unsupported, message).with_param(param))
        }
    }
}

/// The outputs, if all items succeeded.
pub(super) fn succeeded(outcomes: Vec<Outcome>) -> Result<Vec<Value>, Failure> {
    match most_severe(&outcomes) {
        Some(failure) => Err(failure),
        None => Ok(outcomes.into_iter().flatten().collect()),
    }
}

/// An element of a sparse embedding.
#[derive(Debug, Deserialize, Serialize)]
struct SparseElement {
    index: u64,
    value: f32,
}

fn sparse(outcomes: Vec<Outcome>) -> Result<Vec<Vec<SparseElement>>, Failure> {
    let fault = |message: String| Failure::new(Code::ModelFault, message);
    let read = |value: Value| match value {
        Value::Json(output) => json::from_slice::<Vec<SparseElement>>(&output)
            .map_err(|error| fault(format!("the model returned an invalid sparse embedding: {error}"))),
        _ => Err(fault("the model did not return a sparse embedding".to_owned())),
    };
    succeeded(outcomes)?.into_iter().map(read).collect()
}

/// Writes the vectors of the tokens of a text as a list of lists.
fn write_tokens(json: &mut Vec<u8>, value: Value) -> Result<(), Failure> {
    let fault = |message: &str| Failure::new(Code::ModelFault, message);
    let Value::Tensors(tensors) = value else {
        return Err(fault("the model did not return vectors of tokens"));
    };
    let tensor = tensors
        .first()
        .ok_or_else(|| fault("the model did not return vectors of tokens"))?;
    write_tensor(json, tensor).map_err(|error| fault(&error.to_string()))
}
