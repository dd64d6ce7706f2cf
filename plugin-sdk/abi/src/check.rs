//! Whether what a plugin declares can be served, and whether its outputs are what it declared.
//!
//! The one set of rules for everyone who judges a plugin: the server when it loads a model and takes outputs, the test
//! harness of the SDK, and the commands `inspect` and `check`. Pure functions of manifests and values.

use std::fmt;

use serde::Serialize;

use crate::codes::kind;
use crate::manifest::{
    Kind, ModelManifest, PluginManifest, TaskManifest, TensorManifest, Trial, ValueManifest,
};
use crate::{DType, RawTensor, RawValue};

/// Maximum number of tasks of a model.
const MAX_TASKS: usize = 256;
/// Maximum number of characters of a name.
const MAX_NAME_LENGTH: usize = 128;
/// Maximum number of details of a model.
const MAX_DETAILS: usize = 64;
/// Maximum number of bytes of a text that is shown to people: a detail, or the reason of a failed trial.
const MAX_TEXT_LENGTH: usize = 4096;

/// How grave a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The server rejects the plugin, or its clients are misled.
    Error,
    /// It can be served, but is probably not what the author meant.
    Warning,
}

/// Something wrong with what a plugin declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// The task that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What was found, what was expected and how to fix it. Names the task.
    pub message: String,
}

impl Finding {
    /// An error about `task`, or about the whole plugin.
    pub fn error(task: Option<&str>, message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Error,
            task: task.map(str::to_owned),
            message: message.to_string(),
        }
    }

    /// A warning about `task`, or about the whole plugin.
    pub fn warning(task: Option<&str>, message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(task, message)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What makes a loaded model impossible to serve. The server loads a model only if this is empty.
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
                    "invalid name {name:?} of a detail: expected 1 to {MAX_NAME_LENGTH} lowercase letters, digits and `_`, \
                     the first one a letter"
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

/// A text for people, cut to the length that the server accepts.
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

/// What makes the tasks of a model impossible to serve.
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
        let namesakes = tasks[..index].iter().filter(|other| other.name == task.name);
        if namesakes.count() == 1 {
            findings.push(Finding::error(
                Some(&task.name),
                format_args!("two tasks are named `{}`: give each a unique name", task.name),
            ));
        }
        findings.extend(check_task(task));
    }
    findings
}

/// What is wrong with a plugin as far as it describes itself without settings.
pub fn plugin(manifest: &PluginManifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let schema = &manifest.settings_schema;
    let has_settings = schema
        .get("properties")
        .and_then(|properties| properties.as_object())
        .is_some_and(|properties| !properties.is_empty());
    if let Some(kind) = schema.get("type").filter(|kind| *kind != "object") {
        findings.push(Finding::error(
            None,
            format_args!(
                "the settings are declared as {kind}, expected an object: [models.settings] is a table"
            ),
        ));
    } else if has_settings && schema.get("additionalProperties") != Some(&serde_json::Value::Bool(false)) {
        findings.push(Finding::warning(
            None,
            "the settings accept unknown keys, so that a misspelled one is ignored: add `#[serde(deny_unknown_fields)]`",
        ));
    }
    // Tasks that depend on the settings are known once a model is loaded.
    if !manifest.tasks.is_empty() || !may_depend_on_settings(schema) {
        findings.extend(tasks(&manifest.tasks));
    }
    findings.extend(manifest.tasks.iter().flat_map(advise));
    if manifest.debug_build {
        findings.push(Finding::warning(
            None,
            "the plugin is a debug build, which is many times slower: build it with `cargo build --release`",
        ));
    }
    findings
}

/// Whether a plugin with these settings can choose its tasks by them.
fn may_depend_on_settings(schema: &serde_json::Value) -> bool {
    let is_closed = schema.get("additionalProperties") == Some(&serde_json::Value::Bool(false));
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

/// What can be served, but is probably not what the author meant.
fn advise(task: &TaskManifest) -> Vec<Finding> {
    let name = task.name.as_str();
    let mut findings = Vec::new();
    let mut warn = |message: String| findings.push(Finding::warning(Some(name), message));
    if task.description.trim().is_empty() {
        warn(format!(
            "task `{name}` has no description for its documentation: add `TaskInfo::new(\"…\")`"
        ));
    }
    if task.examples.is_empty() {
        warn(format!(
            "task `{name}` has no example to warm it up with: add `.example(…)`"
        ));
    }
    if task.embedding && !task.prepares {
        warn(format!(
            "task `{name}` produces embeddings without a prepare step, so every text counts as one token: \
             add it with `add_prepared`"
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
            "invalid task name `{name}`: expected 1 to {MAX_NAME_LENGTH} letters, digits, `-` and `_`, the first one a \
             letter or a digit"
        )));
    }
    for (side, value) in [("input", &task.input), ("output", &task.output)] {
        let of_side = |problem| error(format!("the {side} of task `{name}` {problem}"));
        // A model without inputs takes requests without tensors.
        let may_be_empty = task.unbatched && side == "input";
        findings.extend(check_value(side, value, may_be_empty).into_iter().map(of_side));
    }
    if task.output.kinds.len() > 1 {
        findings.push(error(format!(
            "the output of task `{name}` has {} kinds, expected one",
            task.output.kinds.len()
        )));
    }
    if let Some(problem) = task.embedding.then(|| not_an_embedding(task)).flatten() {
        findings.push(error(format!(
            "task `{name}` is declared as an embedding, but {problem}, expected text as input and one FP32 tensor of \
             one dimension as output"
        )));
    }
    findings.extend(check_unbatched(task).into_iter().map(error));
    if let Some(Trial::Failed { reason }) = &task.trial
        && reason.len() > MAX_TEXT_LENGTH
    {
        let got = reason.len();
        findings.push(error(format!(
            "the reason why the trial of task `{name}` failed has {got} bytes, expected at most {MAX_TEXT_LENGTH}"
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

/// What contradicts the task being unbatched, or not being so.
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
                "task `{name}` is declared as unbatched, but neither takes nor returns tensors"
            ));
        }
        if task.embedding {
            problems.push(format!(
                "task `{name}` is declared as unbatched and as an embedding, whose requests have many items: expected one of them"
            ));
        }
        return problems;
    }
    for (side, value) in values {
        if let Some(tensor) = value.tensors.iter().find(|tensor| tensor.sequence) {
            problems.push(format!(
                "the {side} of task `{name}` has the sequence of tensors `{}`, expected the task to be declared as unbatched: \
                 add `.unbatched()`",
                tensor.name
            ));
        }
    }
    problems
}

/// Why the task does not produce embeddings.
fn not_an_embedding(task: &TaskManifest) -> Option<&'static str> {
    if !task.input.kinds.contains(&Kind::Text) {
        return Some("it does not take text");
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
    name.len() <= MAX_NAME_LENGTH
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What is wrong with an input or an output; each completes "the input of task `t` …".
fn check_value(side: &str, value: &ValueManifest, may_be_empty: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if value.kinds.is_empty() {
        problems.push(format!("has no kind: state it with `TaskInfo::{side}`"));
    }
    for (index, kind) in value.kinds.iter().enumerate() {
        if value.kinds[..index].contains(kind) {
            problems.push(format!("names the kind {} twice", kind.name()));
        }
    }
    if value.kinds.contains(&Kind::Tensors) && value.tensors.is_empty() && !may_be_empty {
        problems.push(format!(
            "is of kind tensors, but declares none: add `.{side}_tensor(…)` to what `describe` returns"
        ));
    }
    for (index, tensor) in value.tensors.iter().enumerate() {
        if value.tensors[..index]
            .iter()
            .any(|other| other.name == tensor.name)
        {
            problems.push(format!("has two tensors named `{}`", tensor.name));
        }
        let has_it = |sequence: &&TensorManifest| sequence.position_in_sequence(&tensor.name).is_some();
        if let Some(sequence) = value.tensors.iter().find(has_it) {
            problems.push(format!(
                "has a tensor named `{}`, which is also a tensor of the sequence `{}`",
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
            "has a tensor with the name {name:?}, expected 1 to {MAX_NAME_LENGTH} printable characters"
        ));
    }
    if DType::from_name(&tensor.dtype).is_none() {
        let known: Vec<&str> = DType::all().map(DType::name).collect();
        return Some(format!(
            "has the tensor `{name}` of the unknown datatype `{}`, expected one of {}",
            tensor.dtype,
            known.join(", ")
        ));
    }
    if tensor.unranked && !tensor.shape.is_empty() {
        return Some(format!(
            "has the tensor `{name}` that may have any number of dimensions, expected no shape, got {:?}",
            tensor.shape
        ));
    }
    let wrong = tensor.shape.iter().find(|&&dimension| dimension < -1)?;
    Some(format!(
        "has the tensor `{name}` with the dimension {wrong}, expected a size, or -1 for any size"
    ))
}

/// Whether a task with this input accepts bytes of that media type.
pub fn accepts_media_type(input: &ValueManifest, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let patterns = &input.media_types;
    patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| media_type_matches(pattern, essence))
}

/// The registered name of a media type that is commonly misspelled, such as `image/jpeg` for `image/jpg`; other media types are
/// returned as they are. Media types with parameters are not looked at.
pub fn registered_media_type(media_type: &str) -> &str {
    match media_type {
        jpg if jpg.eq_ignore_ascii_case("image/jpg") => "image/jpeg",
        other => other,
    }
}

/// Whether a media type, without parameters, matches a pattern such as `image/png`, `image/*` or `*/*`. Both may be misspelled
/// as in [`registered_media_type`].
pub fn media_type_matches(pattern: &str, essence: &str) -> bool {
    let (pattern, essence) = (registered_media_type(pattern), registered_media_type(essence));
    match pattern.strip_suffix('*') {
        Some("*/") => true,
        Some(prefix) => essence
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix)),
        None => pattern.eq_ignore_ascii_case(essence),
    }
}

/// Whether an output is of the kind that its task declared, and for tensors whether they are those declared.
///
/// # Errors
/// What the plugin did, and what it declared.
pub fn output(value: &RawValue<'_>, declared: &ValueManifest) -> Result<Kind, String> {
    let got = match value.kind {
        kind::TEXT => Kind::Text,
        kind::BYTES => Kind::Bytes,
        kind::JSON => Kind::Json,
        kind::TENSORS => Kind::Tensors,
        other => return Err(format!("the plugin's output has the unknown kind {other}")),
    };
    check_kind(got, declared)?;
    if got == Kind::Tensors {
        let tensors = value.tensors.iter();
        check_tensors(tensors.map(|tensor| (tensor, tensor.shape.as_slice())), declared)?;
    }
    Ok(got)
}

/// As [`output`], for the outputs of a whole batch, whose first dimension is the batch.
///
/// # Errors
/// As [`output`].
pub fn output_rows(tensors: &[RawTensor<'_>], items: usize, declared: &ValueManifest) -> Result<(), String> {
    check_kind(Kind::Tensors, declared)?;
    for tensor in tensors {
        if tensor.shape.first() != Some(&(items as u64)) {
            return Err(format!(
                "the plugin's tensor `{}` has the shape {:?}, expected {items} rows, one per item",
                tensor.name,
                tensor.shape.as_slice()
            ));
        }
    }
    check_tensors(
        tensors
            .iter()
            .map(|tensor| (tensor, &tensor.shape.as_slice()[1..])),
        declared,
    )
}

fn check_kind(got: Kind, declared: &ValueManifest) -> Result<(), String> {
    match declared.kinds.first() {
        Some(kind) if *kind == got => Ok(()),
        Some(kind) => Err(format!(
            "the plugin's output is of kind {}, its manifest declares {}",
            got.name(),
            kind.name()
        )),
        None => Err(format!(
            "the plugin's output is of kind {}, its manifest declares none",
            got.name()
        )),
    }
}

/// Each tensor comes with the shape that it has for one item.
fn check_tensors<'t, 'a: 't>(
    tensors: impl ExactSizeIterator<Item = (&'t RawTensor<'a>, &'t [u64])> + Clone,
    declared: &ValueManifest,
) -> Result<(), String> {
    let mut single = 0;
    for (tensor, shape) in tensors.clone() {
        let name = tensor.name.as_str();
        let Some((index, _)) = declared.find_tensor(name) else {
            let known: Vec<&str> = declared.tensors.iter().map(|manifest| &*manifest.name).collect();
            return Err(format!(
                "the plugin's output has a tensor `{name}`, its manifest declares {}",
                known.join(", ")
            ));
        };
        let manifest = &declared.tensors[index];
        single += usize::from(!manifest.sequence);
        let dtype = DType::from_code(tensor.dtype).ok_or_else(|| {
            format!(
                "the plugin's tensor `{name}` has the unknown datatype {}",
                tensor.dtype
            )
        })?;
        let fits = |(&size, &wanted): (&u64, &i64)| wanted < 0 || size == wanted.unsigned_abs();
        let is_declared = dtype.name() == manifest.dtype
            && (manifest.unranked
                || shape.len() == manifest.shape.len() && shape.iter().zip(&manifest.shape).all(fits));
        if !is_declared {
            return Err(format!(
                "the plugin's tensor `{name}` is {dtype} {shape:?}, its manifest declares {} {:?}",
                manifest.dtype, manifest.shape
            ));
        }
    }
    let names = tensors.map(|(tensor, _)| tensor.name.as_str());
    let missing = declared
        .tensors
        .iter()
        .find(|manifest| !manifest.sequence && names.clone().all(|name| name != manifest.name));
    if let Some(manifest) = missing {
        return Err(format!(
            "the plugin's output lacks the tensor `{}` that its manifest declares",
            manifest.name
        ));
    }
    let declared_single = declared.tensors.iter().filter(|manifest| !manifest.sequence);
    if single > declared_single.count() {
        return Err("the plugin's output has a tensor twice".to_owned());
    }
    let mut sequences = declared.tensors.iter().filter(|manifest| manifest.sequence);
    sequences.try_for_each(|sequence| check_sequence(sequence, names.clone()))
}

/// Checks that the tensors of a sequence are numbered from 0 without gaps.
fn check_sequence<'n>(sequence: &TensorManifest, names: impl Iterator<Item = &'n str>) -> Result<(), String> {
    let mut positions: Vec<usize> = names
        .filter_map(|name| sequence.position_in_sequence(name))
        .collect();
    positions.sort_unstable();
    match positions
        .iter()
        .enumerate()
        .find(|(expected, position)| expected != *position)
    {
        None => Ok(()),
        Some((expected, &position)) if position > expected => Err(format!(
            "the plugin's output has the tensor `{0}.{position}` of the sequence `{0}`, but not `{0}.{expected}`",
            sequence.name
        )),
        Some((_, position)) => Err(format!(
            "the plugin's output has the tensor `{}.{position}` twice",
            sequence.name
        )),
    }
}

#[cfg(test)]
mod tests;
