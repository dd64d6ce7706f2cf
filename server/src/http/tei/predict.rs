//! `POST /predict`: scores the labels of a classifier, for a text, a pair of texts, or several of these.

use plugin_abi::manifest::{Kind, TaskManifest};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use serde_json::value::RawValue;

use super::embed::{TextOptions, succeeded};
use crate::api::{Call, Code, Failure, ModelName, TaskRole};
use crate::codec::{JsonForm, Strings, bounded_json, max_decoded_size, read_item};
use crate::engine::Outcome;
use crate::http::embeddings::inputs::{required, written};
use crate::http::embeddings::options::has;
use crate::http::exchange::{Items, Plan, ReceivedBody};
use crate::http::native::request_items::RequestError;
use crate::json::{self, Object};
use crate::values::{ItemInput, Value};

#[derive(Deserialize)]
struct PredictRequest<'a> {
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
    truncate: Option<bool>,
    truncation_direction: Option<String>,
    raw_scores: Option<bool>,
    prompt_name: Option<String>,
    parameters: Option<Object<Parameters>>,
}

/// What clients of Hugging Face's inference API can choose.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    function_to_apply: Option<String>,
    #[serde(deserialize_with = "json::whole_number")]
    top_k: Option<u64>,
}

impl PredictRequest<'_> {
    /// Whether scores are those of the network, and the maximum number of labels.
    fn scores(&self) -> Result<(Option<bool>, usize), Failure> {
        if self.prompt_name.is_some() {
            let message = "`prompt_name` is not supported by classifiers; remove it";
            return Err(Failure::new(Code::Unsupported, message).with_param("prompt_name"));
        }
        let Some(Object(parameters)) = &self.parameters else {
            return Ok((self.raw_scores, usize::MAX));
        };
        let raw_scores = match (parameters.function_to_apply.as_deref(), self.raw_scores) {
            (None, raw_scores) => raw_scores,
            (Some("none"), None | Some(true)) => Some(true),
            (Some(function), _) => {
                let function: String = function.chars().take(40).collect();
                let message = format!(
                    "`function_to_apply` `{function}` is not supported; expected `none`, or no such member for the function of \
                     the model"
                );
                return Err(Failure::new(Code::Unsupported, message).with_param("function_to_apply"));
            }
        };
        let top_k = match parameters.top_k {
            None => usize::MAX,
            Some(0) => {
                let message = "invalid value 0 for `top_k`: expected at least 1";
                return Err(Failure::new(Code::Malformed, message).with_param("top_k"));
            }
            Some(top_k) => usize::try_from(top_k).unwrap_or(usize::MAX),
        };
        Ok((raw_scores, top_k))
    }
}

/// A text, or an array of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample<'a> {
    /// A JSON string.
    Text(&'a str),
    /// A JSON array of two strings.
    Pair(&'a str),
}

/// What is scored, and whether the reply is a list of lists.
#[derive(Debug, PartialEq, Eq)]
struct Samples<'a> {
    samples: Vec<Sample<'a>>,
    is_batch: bool,
}

/// The score of a label.
#[derive(Debug, Deserialize, Serialize)]
struct Prediction {
    score: f64,
    label: String,
}

pub(super) fn plan(received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    let request: PredictRequest<'_> = received.parse()?;
    let (raw_scores, top_k) = request.scores()?;
    let inputs = required("inputs", request.inputs)?.get();
    let Samples { samples, is_batch } = read_samples(inputs, received.limits.items)?;
    let call = match Call::to_role(
        &received.view,
        ModelName::InPath(Some(model)),
        TaskRole::Classifier,
    ) {
        Ok(call) => call,
        Err(failure) => return Ok(Plan::failed(model.to_owned(), Err(failure.clone()), failure)),
    };
    let task = call.manifest();
    let choices = TextOptions {
        truncate: request.truncate,
        truncation_direction: request.truncation_direction,
        prompt_name: None,
    };
    let mut parameters = choices.resolve(task, false)?.text_parameters(task)?;
    add_raw_scores(&mut parameters, task, raw_scores)?;
    let body = &received.body;
    let decoding = received.reserve(max_decoded_size(body, &task.input, Strings::Shared))?;
    let parameters = written(&parameters);
    let item = |sample: &Sample<'_>| {
        let value = match *sample {
            Sample::Text(text) => read_item(body, text, task),
            Sample::Pair(pair) if task.input.kinds.contains(&Kind::Json) => {
                Ok(Value::Json(body.slice_ref(pair.as_bytes())))
            }
            Sample::Pair(_) => {
                let message = format!("task `{}` does not accept pairs of texts", task.name);
                return Err(Failure::new(Code::Unsupported, message).with_param("inputs"));
            }
        };
        let parameters = parameters.clone();
        Ok(value.map(|value| ItemInput { value, parameters }))
    };
    let items = samples.iter().map(item).collect::<Result<Items, Failure>>()?;
    let decoded = decoding.keep(&items, body);
    Ok(Plan {
        model: model.to_owned(),
        call: Ok(call),
        items: Ok((items, decoded)),
        write: Box::new(move |_, reply| {
            let mut predictions = predictions(reply.outcomes)?;
            predictions.iter_mut().for_each(|labels| labels.truncate(top_k));
            let json = match is_batch {
                true => serde_json::to_vec(&predictions),
                false => serde_json::to_vec(&predictions.pop().unwrap_or_default()),
            };
            json.map_err(|error| Failure::new(Code::Internal, error.to_string()))
        }),
    })
}

fn add_raw_scores(
    parameters: &mut Map<String, serde_json::Value>,
    task: &TaskManifest,
    raw_scores: Option<bool>,
) -> Result<(), Failure> {
    // The documented default is false.
    let raw_scores = raw_scores.unwrap_or(false);
    if has(task, "raw_scores") {
        parameters.insert("raw_scores".to_owned(), raw_scores.into());
    } else if raw_scores {
        let message = format!("task `{}` does not support `raw_scores`", task.name);
        return Err(Failure::new(Code::Unsupported, message).with_param("raw_scores"));
    }
    Ok(())
}

/// Reads a text, a pair of texts, or a list of these: `["a", "b"]` is a pair, and `[["a"], ["b", "c"]]` a list.
fn read_samples(json: &str, limit: usize) -> Result<Samples<'_>, Failure> {
    let single = |sample| Samples {
        samples: vec![sample],
        is_batch: false,
    };
    match JsonForm::of(json) {
        JsonForm::String => return Ok(single(Sample::Text(json))),
        JsonForm::Array => {}
        other => {
            let message = format!("`inputs`: expected a string or an array, got {}", other.name());
            return Err(malformed(message));
        }
    }
    let too_many = RequestError::TooManyItems {
        member: "inputs",
        limit,
    };
    // A pair is one item.
    let elements = bounded_json::elements(json, limit.max(2))
        .ok_or_else(|| Failure::from(too_many).with_param("inputs"))?;
    if elements.is_empty() {
        return Err(Failure::from(RequestError::Empty { member: "inputs" }).with_param("inputs"));
    }
    if elements.iter().all(is_text) {
        return match elements.len() {
            2 => Ok(single(Sample::Pair(json))),
            count => Err(malformed(format!(
                "`inputs`: expected a pair of strings, or a list such as `[[\"a\"], [\"b\"]]`, got {count} strings"
            ))),
        };
    }
    let samples = elements.into_iter().enumerate();
    let samples = samples
        .map(|(index, element)| read_sample(index, element))
        .collect::<Result<_, _>>()?;
    Ok(Samples {
        samples,
        is_batch: true,
    })
}

/// Reads an element of a list.
fn read_sample(index: usize, element: &str) -> Result<Sample<'_>, Failure> {
    let texts = match JsonForm::of(element) {
        JsonForm::Array => bounded_json::elements(element, 2).filter(|texts| texts.iter().all(is_text)),
        _ => None,
    };
    match texts.as_deref() {
        Some([text]) => Ok(Sample::Text(text)),
        Some([_, _]) => Ok(Sample::Pair(element)),
        _ => Err(malformed(format!(
            "`inputs[{index}]`: expected an array of one or two strings"
        ))),
    }
}

fn is_text(text: &&str) -> bool {
    JsonForm::of(text) == JsonForm::String
}

fn malformed(message: String) -> Failure {
    Failure::new(Code::Malformed, message).with_param("inputs")
}

/// The scores of each sample, highest first.
fn predictions(outcomes: Vec<Outcome>) -> Result<Vec<Vec<Prediction>>, Failure> {
    let fault = |message: String| Failure::new(Code::ModelFault, message);
    let read = |value: Value| match value {
        Value::Json(output) => {
            let mut predictions = json::from_slice::<Vec<Prediction>>(&output)
                .map_err(|error| fault(format!("the classifier returned invalid scores: {error}")))?;
            predictions.sort_by(|one, other| other.score.total_cmp(&one.score));
            Ok(predictions)
        }
        _ => Err(fault("the classifier did not return scores".to_owned())),
    };
    succeeded(outcomes)?.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_two_strings_is_a_pair_and_an_array_of_arrays_a_list() {
        let read = |json| {
            let samples = read_samples(json, 3).map_err(|failure| failure.message)?;
            Ok::<_, String>((samples.samples, samples.is_batch))
        };
        assert_eq!(read("\"a\""), Ok((vec![Sample::Text("\"a\"")], false)));
        assert_eq!(
            read("[\"a\", \"b\"]"),
            Ok((vec![Sample::Pair("[\"a\", \"b\"]")], false))
        );
        assert_eq!(
            read("[[\"a\"], [\"b\",\"c\"]]"),
            Ok((vec![Sample::Text("\"a\""), Sample::Pair("[\"b\",\"c\"]")], true))
        );
        for (json, message) in [
            ("3", "`inputs`: expected a string or an array, got a number"),
            ("[]", "`inputs` has no items; expected at least one"),
            (
                "[\"a\"]",
                "`inputs`: expected a pair of strings, or a list such as `[[\"a\"], [\"b\"]]`, got 1 strings",
            ),
            (
                "[[\"a\"], \"b\"]",
                "`inputs[1]`: expected an array of one or two strings",
            ),
            (
                "[[\"a\", \"b\", \"c\"]]",
                "`inputs[0]`: expected an array of one or two strings",
            ),
            ("[[1]]", "`inputs[0]`: expected an array of one or two strings"),
            (
                "[[\"a\"],[\"a\"],[\"a\"],[\"a\"]]",
                "`inputs` has too many items: expected at most 3 per request",
            ),
        ] {
            assert_eq!(read(json), Err(message.to_owned()), "{json}");
        }
    }
}
