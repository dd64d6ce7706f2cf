//! What clients can choose for embeddings, in terms of the parameters of a task.
//!
//! Parameters that a task has are passed to it. Without them, the server truncates and normalizes vectors itself, and rejects what
//! it cannot do.

use plugin_abi::manifest::TaskManifest;
use serde_json::{Map, Value as Json};

use super::vectors::Finish;
use crate::api::{Call, Code, Failure};
use crate::config::Dimensions;

/// The choices of a client. `None` if it made none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct EmbeddingOptions {
    /// Whether texts that are too long are truncated.
    pub(in crate::http) truncate: Option<bool>,
    /// Where they are truncated.
    pub(in crate::http) direction: Option<Direction>,
    /// Whether vectors are scaled to length 1.
    pub(in crate::http) normalize: Option<bool>,
    /// The prompt, if the task has to be told.
    pub(in crate::http) prompt_name: Option<String>,
    /// Number of dimensions.
    pub(in crate::http) dimensions: Option<u64>,
    /// The member with the number of dimensions.
    pub(in crate::http) dimensions_member: &'static str,
}

/// The side of a text that truncation removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Direction {
    Left,
    Right,
}

impl Direction {
    /// Reads `Left` or `Right`, in upper or lower case, from the member `param`.
    pub(in crate::http) fn read(param: &'static str, text: &str) -> Result<Self, Failure> {
        if text.eq_ignore_ascii_case("left") {
            Ok(Self::Left)
        } else if text.eq_ignore_ascii_case("right") {
            Ok(Self::Right)
        } else {
            let text: String = text.chars().take(40).collect();
            let message = format!("invalid value `{text}` for `{param}`: expected Left or Right");
            Err(Failure::new(Code::Malformed, message).with_param(param))
        }
    }
}

impl EmbeddingOptions {
    /// The parameters of the task, and what happens to its vectors.
    ///
    /// # Errors
    /// If neither the task nor the server can do what the client chose.
    pub(in crate::http) fn resolve(&self, call: &Call) -> Result<(Map<String, Json>, Finish), Failure> {
        let task = call.manifest();
        let mut parameters = self.text_parameters(task)?;
        let mut finish = Finish {
            model: call.entry.name().to_owned(),
            dimensions: self.dimensions,
            dimensions_member: self.dimensions_member,
            may_truncate: call.entry.settings.embeddings.dimensions == Dimensions::Truncate,
            normalize: self.normalize,
        };
        if self.normalize == Some(false) && has(task, "normalize") {
            parameters.insert("normalize".to_owned(), false.into());
        }
        if let Some(dimensions) = self.dimensions {
            if has(task, "dimensions") {
                parameters.insert("dimensions".to_owned(), dimensions.into());
                finish.may_truncate = false;
            } else if let Some(size) = size(task) {
                finish.check(size)?;
            }
        }
        Ok((parameters, finish))
    }

    /// The parameters that concern texts.
    pub(in crate::http) fn text_parameters(&self, task: &TaskManifest) -> Result<Map<String, Json>, Failure> {
        let unsupported = |param: &'static str, value: &str| {
            let message = format!("task `{}` does not support `{param}` = {value}", task.name);
            Failure::new(Code::Unsupported, message).with_param(param)
        };
        let mut parameters = Map::new();
        match self.truncate {
            Some(truncate) if has(task, "truncate") => {
                parameters.insert("truncate".to_owned(), truncate.into());
            }
            // The task may truncate texts by itself.
            Some(false) => return Err(unsupported("truncate", "false")),
            // A task that does not truncate accepts texts of any length, or rejects those that are too long.
            Some(true) | None => {}
        }
        match self.direction {
            Some(direction) if has(task, "truncation_direction") => {
                let direction = match direction {
                    Direction::Left => "left",
                    Direction::Right => "right",
                };
                parameters.insert("truncation_direction".to_owned(), direction.into());
            }
            Some(Direction::Left) => return Err(unsupported("truncation_direction", "Left")),
            Some(Direction::Right) | None => {}
        }
        if let Some(prompt) = &self.prompt_name {
            parameters.insert("prompt_name".to_owned(), prompt.as_str().into());
        }
        Ok(parameters)
    }
}

/// Whether a task has a parameter.
pub(in crate::http) fn has(task: &TaskManifest, parameter: &str) -> bool {
    !task.parameters_schema["properties"][parameter].is_null()
}

/// The declared size of the embeddings of a task, if it is fixed.
fn size(task: &TaskManifest) -> Option<u64> {
    let shape = &task.output.tensors.first()?.shape;
    shape.first().and_then(|&size| u64::try_from(size).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn choices_are_passed_to_tasks_that_have_the_parameters() {
        let with = TaskManifest {
            name: "query".to_owned(),
            parameters_schema: json!({"properties": {"truncate": {}, "truncation_direction": {}}}),
            ..TaskManifest::default()
        };
        let without = TaskManifest {
            name: "embed".to_owned(),
            ..TaskManifest::default()
        };
        let options = |truncate, direction| EmbeddingOptions {
            truncate,
            direction,
            ..EmbeddingOptions::default()
        };
        let parameters = |options: EmbeddingOptions, task| {
            let parameters = options.text_parameters(task);
            parameters.map(Json::from).map_err(|failure| failure.message)
        };
        let chosen = options(Some(false), Some(Direction::Left));
        assert_eq!(
            parameters(chosen, &with),
            Ok(json!({"truncate": false, "truncation_direction": "left"}))
        );
        assert_eq!(parameters(options(None, None), &with), Ok(json!({})));
        let harmless = options(Some(true), Some(Direction::Right));
        assert_eq!(parameters(harmless, &without), Ok(json!({})));
        assert_eq!(
            parameters(options(Some(false), None), &without),
            Err("task `embed` does not support `truncate` = false".to_owned())
        );
        assert_eq!(
            parameters(options(None, Some(Direction::Left)), &without),
            Err("task `embed` does not support `truncation_direction` = Left".to_owned())
        );
    }
}
