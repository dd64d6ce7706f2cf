//! Checks of manifests: whether the server can serve what a plugin or a model declares.

use serde_json::Value as Json;

use super::Finding;
use crate::DType;
use crate::manifest::{
    Kind, ModelManifest, PluginManifest, TaskManifest, TensorManifest, Trial, ValueManifest,
};

/// Maximum number of tasks of a model.
const MAX_TASKS: usize = 256;
/// Maximum number of characters of a name.
const MAX_NAME_LENGTH: usize = 128;
/// Maximum number of details of a model.
const MAX_DETAILS: usize = 64;
/// Maximum number of bytes of a detail or of the reason of a failed trial.
const MAX_TEXT_LENGTH: usize = 4096;

/// Returns the errors in the manifest of a loaded model. The server serves a model only if there are none.
pub fn model(manifest: &ModelManifest) -> Vec<Finding> {
    let mut findings = tasks(&manifest.tasks);
    let details = &manifest.details;
    if details.len() > MAX_DETAILS {
        let got = details.len();
        findings.push(Finding::error(
            None,
            format_args!("the model has {got} details, expected at most {MAX_DETAILS}"),
        ));
    }
    for (name, text) in details {
        if !is_detail_name(name) {
            findings.push(Finding::error(
                None,
                format_args!(
                                        "invalid detail name {name:?}: expected 1 to {MAX_NAME_LENGTH} lowercase letters, digits and `_`, \
                                         starting with a letter"
                ),
            ));
        }
        if text.len() > MAX_TEXT_LENGTH {
            let got = text.len();
            findings.push(Finding::error(
                None,
                format_args!("the detail `{name}` has {got} bytes, expected at most {MAX_TEXT_LENGTH}"),
            ));
        }
    }
    findings
}

/// Truncates a detail, or the reason of a failed trial, to the length that the server accepts.
pub fn cut_text(mut text: String) -> String {
    const ELLIPSIS: char = '…';
    if text.len() > MAX_TEXT_LENGTH {
        text.truncate(text.floor_char_boundary(MAX_TEXT_LENGTH - ELLIPSIS.len_utf8()));
        text.push(ELLIPSIS);
    }
    text
}

fn is_detail_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Returns the errors in the tasks of a model.
fn tasks(tasks: &[TaskManifest]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if tasks.is_empty() {
        findings.push(Finding::error(
            None,
            "the model has no tasks, expected at least one from `tasks` or `configured_tasks`",
        ));
    }
    if tasks.len() > MAX_TASKS {
        let got = tasks.len();
        findings.push(Finding::error(
            None,
            format_args!("the model has {got} tasks, expected at most {MAX_TASKS}"),
        ));
    }
    for (index, task) in tasks.iter().enumerate() {
        let duplicates = tasks[..index].iter().filter(|other| other.name == task.name);
        if duplicates.count() == 1 {
            findings.push(Finding::error(
                Some(&task.name),
                format_args!("two tasks are named `{}`: give each a unique name", task.name),
            ));
        }
        findings.extend(check_task(task));
    }
    let defaults: Vec<&str> = tasks
        .iter()
        .filter(|task| task.default)
        .map(|task| task.name.as_str())
        .collect();
    if let [first, second, ..] = defaults[..] {
        findings.push(Finding::error(
            Some(second),
            format_args!(
                "the tasks `{first}` and `{second}` are both the default task, expected at most one"
            ),
        ));
    }
    findings
}

/// Returns the errors and warnings in the manifest of a plugin, which is known without settings.
pub fn plugin(manifest: &PluginManifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let schema = &manifest.settings_schema;
    let has_settings = schema
        .get("properties")
        .and_then(Json::as_object)
        .is_some_and(|properties| !properties.is_empty());
    if let Some(kind) = schema.get("type").filter(|kind| *kind != "object") {
        findings.push(Finding::error(
            None,
            format_args!(
                "the settings are declared as {kind}, expected an object: [models.settings] is a table"
            ),
        ));
    } else if has_settings && schema.get("additionalProperties") != Some(&Json::Bool(false)) {
        findings.push(Finding::warning(
            None,
            "the settings accept unknown keys, so misspelled keys are ignored: add `#[serde(deny_unknown_fields)]`",
        ));
    }
    // Tasks that depend on the settings are only known after a model has been loaded.
    if !manifest.tasks.is_empty() || !may_depend_on_settings(schema) {
        findings.extend(tasks(&manifest.tasks));
    }
    findings.extend(manifest.tasks.iter().flat_map(lint_task));
    if manifest.debug_build {
        findings.push(Finding::warning(
            None,
            "the plugin is a debug build, which is many times slower: build it with `cargo build --release`",
        ));
    }
    findings
}

/// Whether the tasks of a plugin with this settings schema can depend on its settings.
fn may_depend_on_settings(schema: &Json) -> bool {
    let is_closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
    let has_members = [
        "properties",
        "oneOf",
        "anyOf",
        "allOf",
        "$ref",
        "patternProperties",
    ]
    .iter()
    .filter_map(|member| schema.get(member))
    .any(|member| member.as_object().is_none_or(|members| !members.is_empty()));
    has_members || !is_closed
}

/// Returns warnings about declarations that are valid but probably a mistake.
fn lint_task(task: &TaskManifest) -> Vec<Finding> {
    let name = task.name.as_str();
    let mut findings = Vec::new();
    let mut warn = |message: String| findings.push(Finding::warning(Some(name), message));
    if task.description.trim().is_empty() {
        warn(format!(
            "task `{name}` has no description: add `TaskInfo::new(\"…\")`"
        ));
    }
    if task.examples.is_empty() {
        warn(format!(
            "task `{name}` has no example for the warm-up: add `.example(…)`"
        ));
    }
    if task.embedding && !task.prepares {
        warn(format!(
            "task `{name}` produces embeddings but has no prepare step, so each text counts as one token: \
                         add the task with `add_prepared`"
        ));
    }
    for media_type in task.input.media_types.iter().chain(&task.output.media_types) {
        let is_well_formed = media_type.split_once('/').is_some_and(|(kind, subtype)| {
            !kind.is_empty() && !subtype.is_empty() && !media_type.contains(char::is_whitespace)
        });
        if !is_well_formed {
            warn(format!(
                "task `{name}` declares the media type `{media_type}`, expected the form `image/png`"
            ));
        }
    }
    findings
}

fn check_task(task: &TaskManifest) -> Vec<Finding> {
    let name = task.name.as_str();
    let error = |message: String| Finding::error(Some(name), message);
    let mut findings = Vec::new();
    if !is_task_name(name) {
        findings.push(error(format!(
                        "invalid task name `{name}`: expected 1 to {MAX_NAME_LENGTH} letters, digits, `-` and `_`, starting with a \
                         letter or digit"
        )));
    }
    for (side, value) in [("input", &task.input), ("output", &task.output)] {
        let with_subject = |problem| error(format!("the {side} of task `{name}` {problem}"));
        // A model without inputs accepts requests without tensors.
        let may_be_empty = task.unbatched && side == "input";
        findings.extend(
            check_value(side, value, may_be_empty)
                .into_iter()
                .map(with_subject),
        );
    }
    if task.output.kinds.len() > 1 {
        findings.push(error(format!(
            "the output of task `{name}` has {} kinds, expected one",
            task.output.kinds.len()
        )));
    }
    if let Some(problem) = task.embedding.then(|| embedding_problem(task)).flatten() {
        findings.push(error(format!(
                        "task `{name}` is declared as an embedding task, but {problem}: expected text input and one one-dimensional \
                         FP32 tensor as output"
        )));
    }
    let json = [Kind::Json];
    if task.reranker && (task.input.kinds != json || task.output.kinds != json) {
        findings.push(error(format!(
            "task `{name}` is declared as a reranker, but its input or output is not JSON: expected \
             `{{\"query\": …, \"passages\": […]}}` as input and `{{\"results\": […]}}` as output"
        )));
    }
    for role in roles(task).into_iter().filter(|role| role.is_declared) {
        let accepts = role.input.iter().any(|kind| task.input.kinds.contains(kind));
        if !accepts || task.output.kinds != [role.output] {
            findings.push(error(format!(
                "task `{name}` is declared as a {}, but its input or output has another kind: expected {}",
                role.name, role.expected
            )));
        }
    }
    findings.extend(check_unbatched(task).into_iter().map(error));
    if let Some(Trial::Failed { reason }) = &task.trial
        && reason.len() > MAX_TEXT_LENGTH
    {
        let got = reason.len();
        findings.push(error(format!(
            "the reason of the failed trial of task `{name}` has {got} bytes, expected at most {MAX_TEXT_LENGTH}"
        )));
    }
    let limits = [
        ("max_batch_size", task.limits.max_batch_size == Some(0)),
        ("max_batch_weight", task.limits.max_batch_weight == Some(0)),
    ];
    for (limit, _) in limits.into_iter().filter(|(_, is_zero)| *is_zero) {
        findings.push(error(format!(
            "task `{name}` declares `{limit}` as 0, expected at least 1"
        )));
    }
    findings
}

/// Returns contradictions between the task's declarations and whether it is unbatched.
fn check_unbatched(task: &TaskManifest) -> Vec<String> {
    let name = &task.name;
    let mut problems = Vec::new();
    let values = [("input", &task.input), ("output", &task.output)];
    if task.unbatched {
        if values
            .iter()
            .all(|(_, value)| !value.kinds.contains(&Kind::Tensors))
        {
            problems.push(format!(
                "task `{name}` is declared as unbatched, but has neither input nor output tensors"
            ));
        }
        if task.embedding {
            problems.push(format!(
                                "task `{name}` is declared both as unbatched and as an embedding task: remove one of the two, since requests \
                                 for embeddings have several items"
            ));
        }
        return problems;
    }
    for (side, value) in values {
        if let Some(tensor) = value.tensors.iter().find(|tensor| tensor.sequence) {
            problems.push(format!(
                                "the {side} of task `{name}` declares the sequence `{}`, which is only supported in unbatched tasks: add \
                                 `.unbatched()`",
                tensor.name
            ));
        }
    }
    problems
}

/// A declaration that makes the server serve a task in further protocols.
struct Role {
    is_declared: bool,
    name: &'static str,
    /// The kinds of its input, of which one is enough.
    input: &'static [Kind],
    output: Kind,
    /// The form of its input and output, for messages.
    expected: &'static str,
}

/// Returns the roles of a task that kinds alone determine.
fn roles(task: &TaskManifest) -> [Role; 5] {
    [
        Role {
            is_declared: task.sparse_embedding,
            name: "sparse embedding",
            input: &[Kind::Text],
            output: Kind::Json,
            expected: "text as input and `[{\"index\": …, \"value\": …}]` as output",
        },
        Role {
            is_declared: task.token_embeddings,
            name: "task for the vectors of tokens",
            input: &[Kind::Text],
            output: Kind::Tensors,
            expected: "text as input and one FP32 tensor with two dimensions as output",
        },
        Role {
            is_declared: task.classifier,
            name: "classifier",
            input: &[Kind::Text, Kind::Json],
            output: Kind::Json,
            expected: "text or JSON as input and `[{\"label\": …, \"score\": …}]` as output",
        },
        Role {
            is_declared: task.tokenizer,
            name: "tokenizer",
            input: &[Kind::Text],
            output: Kind::Json,
            expected: "text as input and `[{\"id\": …, \"text\": …, \"special\": …}]` as output",
        },
        Role {
            is_declared: task.detokenizer,
            name: "detokenizer",
            input: &[Kind::Json],
            output: Kind::Text,
            expected: "a JSON array of token ids as input and text as output",
        },
    ]
}

/// Returns the reason why the task cannot produce embeddings, if there is one.
fn embedding_problem(task: &TaskManifest) -> Option<&'static str> {
    if !task.input.kinds.contains(&Kind::Text) {
        return Some("its input is not text");
    }
    match task.output.tensors.as_slice() {
        [tensor] if task.output.kinds == [Kind::Tensors] => {
            let is_vector = tensor.shape.len() == 1 && tensor.dtype == DType::Fp32.name();
            (!is_vector).then_some("its output tensor has a different datatype or shape")
        }
        _ => Some("its output is not a single tensor"),
    }
}

fn is_task_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Returns the errors in an input or output. Each completes the sentence "the input of task `t` …".
fn check_value(side: &str, value: &ValueManifest, may_be_empty: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if value.kinds.is_empty() {
        problems.push(format!("has no kind: set it with `TaskInfo::{side}`"));
    }
    for (index, kind) in value.kinds.iter().enumerate() {
        if value.kinds[..index].contains(kind) {
            problems.push(format!("declares the kind {} twice", kind.name()));
        }
    }
    if value.kinds.contains(&Kind::Tensors) && value.tensors.is_empty() && !may_be_empty {
        problems.push(format!(
            "has the kind tensors but declares no tensor: add `.{side}_tensor(…)` in `describe`"
        ));
    }
    for (index, tensor) in value.tensors.iter().enumerate() {
        if value.tensors[..index]
            .iter()
            .any(|other| other.name == tensor.name)
        {
            problems.push(format!("has two tensors named `{}`", tensor.name));
        }
        let has_member = |sequence: &&TensorManifest| sequence.position_in_sequence(&tensor.name).is_some();
        if let Some(sequence) = value.tensors.iter().find(has_member) {
            problems.push(format!(
                "has a tensor named `{}`, which is also a member of the sequence `{}`",
                tensor.name, sequence.name
            ));
        }
        problems.extend(check_tensor(tensor));
    }
    problems
}

fn check_tensor(tensor: &TensorManifest) -> Option<String> {
    let name = &tensor.name;
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME_LENGTH || name.chars().any(char::is_control) {
        return Some(format!(
            "has a tensor with the invalid name {name:?}: expected 1 to {MAX_NAME_LENGTH} printable characters"
        ));
    }
    if DType::from_name(&tensor.dtype).is_none() {
        let known: Vec<&str> = DType::all().map(DType::name).collect();
        return Some(format!(
            "has the tensor `{name}` with the unknown datatype `{}`, expected one of {}",
            tensor.dtype,
            known.join(", ")
        ));
    }
    if tensor.unranked && !tensor.shape.is_empty() {
        return Some(format!(
            "has the unranked tensor `{name}` with the shape {:?}, expected no shape",
            tensor.shape
        ));
    }
    let invalid = tensor.shape.iter().find(|&&dimension| dimension < -1)?;
    Some(format!(
        "has the tensor `{name}` with the dimension {invalid}, expected a size, or -1 for any size"
    ))
}
