//! Whether what a model says of itself can be served.

use plugin_abi::manifest::{Kind, ModelManifest, TaskManifest, TensorManifest, ValueManifest};

use super::convert::kind_name;
use crate::protocol::DType;

/// Most tasks of a model.
const MOST_TASKS: usize = 256;
/// Most characters of a name.
const LONGEST_NAME: usize = 128;

/// What is wrong with a manifest: always the plugin's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Nothing to serve.
    #[error("the model has no task")]
    NoTask,
    /// More than anyone could mean.
    #[error("the model has {got} tasks, at most {MOST_TASKS} are allowed")]
    TooManyTasks {
        /// Tasks that it has.
        got: usize,
    },
    /// A name that could not be part of a URL.
    #[error(
        "the name of task `{name}` is not well-formed: expected 1 to {LONGEST_NAME} letters, digits, `-` and `_`, the first one a letter or a digit"
    )]
    TaskName {
        /// As it is.
        name: String,
    },
    /// Two tasks that cannot be told apart.
    #[error("two tasks are named `{name}`")]
    DuplicateTask {
        /// The name.
        name: String,
    },
    /// Something about the input or the output of one task.
    #[error("the {side} of task `{task}` {problem}")]
    Value {
        /// Name of the task.
        task: String,
        /// `input` or `output`.
        side: &'static str,
        /// What is wrong with it.
        problem: ValueProblem,
    },
    /// A task that calls itself an embedding and is none.
    #[error(
        "task `{task}` is declared as an embedding, but {problem}; an embedding takes text and answers one FP32 tensor of one dimension"
    )]
    Embedding {
        /// Name of the task.
        task: String,
        /// What it does instead.
        problem: &'static str,
    },
    /// A limit that lets nothing through.
    #[error("task `{task}` declares `{limit} = 0`: nothing could ever run")]
    ZeroLimit {
        /// Name of the task.
        task: String,
        /// Name of the limit.
        limit: &'static str,
    },
}

/// What is wrong with an input or an output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    /// It is nothing.
    #[error("has no kind")]
    NoKind,
    /// Replies would not know what to expect.
    #[error("has {got} kinds, expected one")]
    SeveralKinds {
        /// How many.
        got: usize,
    },
    /// Twice the same.
    #[error("names the kind {kind} twice")]
    DuplicateKind {
        /// Which.
        kind: &'static str,
    },
    /// The kind is tensors, and there are none.
    #[error("is of kind tensors, but declares none")]
    NoTensor,
    /// Two tensors that cannot be told apart.
    #[error("has two tensors named `{name}`")]
    DuplicateTensor {
        /// The name.
        name: String,
    },
    /// A name that clients could not write.
    #[error("has a tensor with the name {name:?}: expected 1 to {LONGEST_NAME} printable characters")]
    TensorName {
        /// As it is.
        name: String,
    },
    /// No datatype of the protocol.
    #[error(
        "has the tensor `{name}` of the unknown datatype `{dtype}`, expected one of {}",
        dtype_names()
    )]
    DType {
        /// Of the tensor.
        name: String,
        /// As it is.
        dtype: String,
    },
    /// A dimension that is no size.
    #[error("has the tensor `{name}` with the dimension {dimension}, expected a size or -1 for any")]
    Dimension {
        /// Of the tensor.
        name: String,
        /// As it is.
        dimension: i64,
    },
}

fn dtype_names() -> String {
    DType::all().map(DType::name).collect::<Vec<_>>().join(", ")
}

/// Checks everything that the rest of the server relies on.
pub(super) fn validate(manifest: &ModelManifest) -> Result<(), ManifestError> {
    if manifest.tasks.is_empty() {
        return Err(ManifestError::NoTask);
    }
    if manifest.tasks.len() > MOST_TASKS {
        return Err(ManifestError::TooManyTasks {
            got: manifest.tasks.len(),
        });
    }
    for (index, task) in manifest.tasks.iter().enumerate() {
        if manifest.tasks[..index]
            .iter()
            .any(|other| other.name == task.name)
        {
            return Err(ManifestError::DuplicateTask {
                name: task.name.clone(),
            });
        }
        validate_task(task)?;
    }
    Ok(())
}

fn validate_task(task: &TaskManifest) -> Result<(), ManifestError> {
    if !is_task_name(&task.name) {
        return Err(ManifestError::TaskName {
            name: task.name.clone(),
        });
    }
    let at = |side| {
        move |problem| ManifestError::Value {
            task: task.name.clone(),
            side,
            problem,
        }
    };
    validate_value(&task.input).map_err(at("input"))?;
    validate_value(&task.output).map_err(at("output"))?;
    if task.output.kinds.len() > 1 {
        let got = task.output.kinds.len();
        return Err(at("output")(ValueProblem::SeveralKinds { got }));
    }
    if let Some(problem) = task.embedding.then(|| no_embedding(task)).flatten() {
        return Err(ManifestError::Embedding {
            task: task.name.clone(),
            problem,
        });
    }
    let zero_limit = if task.limits.max_batch_size == Some(0) {
        Some("max_batch_size")
    } else if task.limits.max_batch_weight == Some(0) {
        Some("max_batch_weight")
    } else {
        None
    };
    match zero_limit {
        Some(limit) => Err(ManifestError::ZeroLimit {
            task: task.name.clone(),
            limit,
        }),
        None => Ok(()),
    }
}

/// Why the task is no embedding, if it is none.
fn no_embedding(task: &TaskManifest) -> Option<&'static str> {
    if !task.input.kinds.contains(&Kind::Text) {
        return Some("it takes no text");
    }
    match task.output.tensors.as_slice() {
        [tensor] if task.output.kinds == [Kind::Tensors] => {
            let is_vector = tensor.shape.len() == 1 && tensor.dtype == DType::Fp32.name();
            (!is_vector).then_some("its output is another tensor")
        }
        _ => Some("its output is not one tensor"),
    }
}

fn is_task_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn validate_value(value: &ValueManifest) -> Result<(), ValueProblem> {
    if value.kinds.is_empty() {
        return Err(ValueProblem::NoKind);
    }
    for (index, kind) in value.kinds.iter().enumerate() {
        if value.kinds[..index].contains(kind) {
            return Err(ValueProblem::DuplicateKind {
                kind: kind_name(*kind),
            });
        }
    }
    if value.kinds.contains(&Kind::Tensors) && value.tensors.is_empty() {
        return Err(ValueProblem::NoTensor);
    }
    for (index, tensor) in value.tensors.iter().enumerate() {
        if value.tensors[..index]
            .iter()
            .any(|other| other.name == tensor.name)
        {
            return Err(ValueProblem::DuplicateTensor {
                name: tensor.name.clone(),
            });
        }
        validate_tensor(tensor)?;
    }
    Ok(())
}

fn validate_tensor(tensor: &TensorManifest) -> Result<(), ValueProblem> {
    let name = tensor.name.clone();
    let length = name.chars().count();
    if length == 0 || length > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(ValueProblem::TensorName { name });
    }
    if DType::from_name(&tensor.dtype).is_none() {
        return Err(ValueProblem::DType {
            name,
            dtype: tensor.dtype.clone(),
        });
    }
    match tensor.shape.iter().find(|&&dimension| dimension < -1) {
        Some(&dimension) => Err(ValueProblem::Dimension { name, dimension }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(tasks: serde_json::Value) -> Result<(), String> {
        let manifest = serde_json::from_value(json!({ "tasks": tasks })).expect("a manifest");
        validate(&manifest).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_that_can_be_served_passes() {
        let tensors = json!({"kinds": ["tensors", "json"], "tensors": [
            {"name": "ids", "dtype": "INT64", "shape": [-1]}, {"name": "pixel values", "dtype": "FP32", "shape": [3, 224, 224]}
        ]});
        let text = json!({"kinds": ["text"]});
        assert_eq!(
            check(
                json!([{"name": "text", "input": tensors, "output": text}, {"name": "query-2_b", "input": text, "output": text}])
            ),
            Ok(())
        );
    }

    #[test]
    fn every_flaw_is_named_with_its_task() {
        let text = json!({"kinds": ["text"]});
        let tensor =
            |tensor| json!({"kinds": ["tensors"], "tensors": [tensor, {"name": "other", "dtype": "FP32"}]});
        let output = |output| json!([{"name": "t", "input": text, "output": output}]);
        let cases = [
            (json!([]), "the model has no task"),
            (
                json!([{"name": "a/b", "input": text, "output": text}]),
                "the name of task `a/b` is not well-formed",
            ),
            (
                json!([{"input": text, "output": text}]),
                "the name of task `` is not well-formed",
            ),
            (
                json!([{"name": "a", "input": text, "output": text}, {"name": "a", "input": text, "output": text}]),
                "two tasks are named `a`",
            ),
            (
                json!([{"name": "t", "output": text}]),
                "the input of task `t` has no kind",
            ),
            (output(json!({})), "the output of task `t` has no kind"),
            (
                output(json!({"kinds": ["text", "json"]})),
                "the output of task `t` has 2 kinds, expected one",
            ),
            (
                json!([{"name": "t", "input": {"kinds": ["text", "text"]}, "output": text}]),
                "the input of task `t` names the kind text twice",
            ),
            (
                output(json!({"kinds": ["tensors"]})),
                "the output of task `t` is of kind tensors, but declares none",
            ),
            (
                output(tensor(json!({"name": "other", "dtype": "FP32"}))),
                "the output of task `t` has two tensors named `other`",
            ),
            (
                output(tensor(json!({"name": "", "dtype": "FP32"}))),
                "the output of task `t` has a tensor with the name \"\"",
            ),
            (
                output(tensor(json!({"name": "x", "dtype": "float"}))),
                "the output of task `t` has the tensor `x` of the unknown datatype `float`, expected one of BOOL, UINT8,",
            ),
            (
                output(tensor(json!({"name": "x", "dtype": "FP32", "shape": [3, -2]}))),
                "the output of task `t` has the tensor `x` with the dimension -2",
            ),
            (
                json!([{"name": "t", "input": text, "output": text, "limits": {"max_batch_size": 0}}]),
                "task `t` declares `max_batch_size = 0`",
            ),
            (
                json!([{"name": "t", "embedding": true, "input": {"kinds": ["bytes"]}, "output": text}]),
                "task `t` is declared as an embedding, but it takes no text",
            ),
            (
                json!([{"name": "t", "embedding": true, "input": text, "output": text}]),
                "task `t` is declared as an embedding, but its output is not one tensor",
            ),
            (
                json!([{"name": "t", "embedding": true, "input": text, "output": {"kinds": ["tensors"], "tensors": [
                    {"name": "x", "dtype": "FP32", "shape": [2, 3]}
                ]}}]),
                "task `t` is declared as an embedding, but its output is another tensor",
            ),
        ];
        for (tasks, expected) in cases {
            let error = check(tasks).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
