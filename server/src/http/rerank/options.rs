//! What clients can choose for rankings and scores, in terms of the parameters of a task.

use bytes::Bytes;
use plugin_abi::manifest::TaskManifest;
use serde_json::Map;

use super::request::malformed;
use crate::api::{Code, Failure};
use crate::http::embeddings::inputs::written;
use crate::http::embeddings::options::{Direction, EmbeddingOptions, has};

/// The parameters of a reranker for what a client chose.
///
/// # Errors
/// If the task does not have a parameter that the request needs.
pub(super) fn parameters(
    task: &TaskManifest,
    raw_scores: Option<bool>,
    truncate: Option<bool>,
    direction: Option<Direction>,
) -> Result<Bytes, Failure> {
    let mut parameters = Map::new();
    for (name, value) in [("raw_scores", raw_scores), ("truncate", truncate)] {
        match value {
            Some(value) if has(task, name) => drop(parameters.insert(name.to_owned(), value.into())),
            Some(true) => {
                let message = format!("task `{}` does not support `{name}`", task.name);
                return Err(Failure::new(Code::Unsupported, message).with_param(name));
            }
            // Such a task decides by itself.
            Some(false) | None => {}
        }
    }
    let direction = EmbeddingOptions {
        direction,
        ..EmbeddingOptions::default()
    };
    parameters.append(&mut direction.text_parameters(task)?);
    Ok(written(&parameters))
}

/// Whether scores are raw, as text-embeddings-inference or vLLM writes it.
///
/// # Errors
/// If the two contradict each other.
pub(super) fn raw_scores(
    raw_scores: Option<bool>,
    use_activation: Option<bool>,
) -> Result<Option<bool>, Failure> {
    match (raw_scores, use_activation) {
        (Some(is_raw), Some(is_activated)) if is_raw == is_activated => {
            let message = "`raw_scores` and `use_activation` contradict each other; send one of them";
            Err(malformed("use_activation", message))
        }
        (raw_scores, use_activation) => Ok(raw_scores.or(use_activation.map(|is_activated| !is_activated))),
    }
}

/// The side of a text that truncation removes, as text-embeddings-inference or vLLM writes it.
///
/// # Errors
/// If it is invalid, or the two differ.
pub(super) fn direction(
    truncation_direction: Option<&str>,
    truncation_side: Option<&str>,
) -> Result<Option<Direction>, Failure> {
    let direction = truncation_direction.map(|side| Direction::read("truncation_direction", side));
    let side = truncation_side.map(|side| Direction::read("truncation_side", side));
    match (direction.transpose()?, side.transpose()?) {
        (Some(direction), Some(side)) if direction != side => {
            let message = "`truncation_direction` and `truncation_side` differ; send one of them";
            Err(malformed("truncation_side", message))
        }
        (direction, side) => Ok(direction.or(side)),
    }
}
