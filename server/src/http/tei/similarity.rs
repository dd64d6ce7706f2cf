//! `POST /similarity`: compares sentences with a source sentence, by the cosine of their embeddings.

use bytes::{BufMut as _, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::embed::{TextOptions, find};
use crate::api::{Code, Failure, TaskRole};
use crate::codec::JsonForm;
use crate::config::TokenIds;
use crate::http::embeddings::inputs::{Input, ItemForm, read_inputs, required};
use crate::http::embeddings::vectors::{dot, write_numbers};
use crate::http::exchange::{Plan, ReceivedBody};
use crate::json::Object;

#[derive(Deserialize)]
struct SimilarityRequest<'a> {
    #[serde(borrow)]
    inputs: Option<Object<Sentences<'a>>>,
    parameters: Option<Object<TextOptions>>,
}

#[derive(Deserialize)]
struct Sentences<'a> {
    #[serde(borrow)]
    source_sentence: Option<&'a RawValue>,
    #[serde(borrow)]
    sentences: Option<&'a RawValue>,
}

pub(super) fn plan(received: &ReceivedBody, model: &str) -> Result<Plan, Failure> {
    let request: SimilarityRequest<'_> = received.parse()?;
    let malformed =
        |param: &'static str, message: &str| Err(Failure::new(Code::Malformed, message).with_param(param));
    let Some(Object(inputs)) = request.inputs else {
        return malformed("inputs", "missing member `inputs`");
    };
    let source = required("source_sentence", inputs.source_sentence)?.get();
    let sentences = required("sentences", inputs.sentences)?.get();
    if JsonForm::of(source) != JsonForm::String {
        return malformed("source_sentence", "`source_sentence`: expected a string");
    }
    let form = JsonForm::of(sentences);
    if form != JsonForm::Array {
        let message = format!("`sentences`: expected an array of strings, got {}", form.name());
        return malformed("sentences", &message);
    }
    let sentences = read_inputs("sentences", sentences, received.limits.items)?;
    if sentences.iter().any(|sentence| matches!(sentence, Input::Ids(_))) {
        return malformed("sentences", "`sentences`: expected strings");
    }
    let texts: Vec<Input<'_>> = [Input::Text(source)].into_iter().chain(sentences).collect();
    let Object(choices) = request.parameters.unwrap_or_default();
    let (call, needs_prompt) = match find(received, model, TaskRole::Embedding, choices.prompt()) {
        Ok(found) => found,
        Err(failure) => return Ok(Plan::failed(model.to_owned(), Err(failure.clone()), failure)),
    };
    let mut options = choices.resolve(call.manifest(), needs_prompt)?;
    options.normalize = Some(true);
    let (parameters, finish) = options.resolve(&call)?;
    let form = ItemForm {
        member: "sentences",
        task: call.manifest(),
        parameters,
        token_ids: TokenIds::Reject,
    };
    let items = form.items(received, &texts);
    Ok(Plan {
        model: model.to_owned(),
        call: Ok(call),
        items,
        write: Box::new(move |call, reply| {
            let embeddings = finish.embeddings(call, reply.outcomes)?;
            let mut scores = BytesMut::new();
            if let Some((source, rest)) = embeddings.split_first() {
                rest.iter()
                    .for_each(|other| scores.put_f32_le(dot(source, other) as f32));
            }
            let mut json = Vec::new();
            write_numbers(&mut json, scores.freeze())?;
            Ok(json)
        }),
    })
}
