//! Names of models and tasks, and patterns of them.

use crate::routes;

/// Maximum length of the name of a task.
const MAX_NAME_LENGTH: usize = 64;

/// Maximum length of the name of a model, which can have a slash.
const MAX_MODEL_NAME_LENGTH: usize = 128;

/// Maximum length of `model.task`.
const MAX_PATTERN_LENGTH: usize = MAX_MODEL_NAME_LENGTH + 1 + MAX_NAME_LENGTH;

/// Names are used in URLs, in metric labels and in the names of environment variables.
pub(in crate::config) fn name(text: &str) -> Result<(), String> {
    name_characters(text)?;
    if text.len() > MAX_NAME_LENGTH {
        return Err(format!("shorten it: it has {} characters", text.len()));
    }
    Ok(())
}

/// The name of a model: like that of a task, or two such names separated by a slash, as on Hugging Face.
pub(super) fn model_name(text: &str) -> Result<(), String> {
    if text.len() > MAX_MODEL_NAME_LENGTH {
        return Err(format!("shorten it: it has {} characters", text.len()));
    }
    let Some((namespace, model)) = text.split_once('/') else {
        return name_characters(text);
    };
    if model.contains('/') {
        return Err("use at most one `/`, as in \"BAAI/bge-small-en\"".to_owned());
    }
    name_characters(namespace)?;
    name_characters(model)?;
    match routes::follows_models(model) {
        true => Err(format!(
            "`{model}` after the slash is part of the server's paths; choose another name"
        )),
        false => Ok(()),
    }
}

fn name_characters(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() {
        return Err("use at least one character".to_owned());
    }
    if text.starts_with('.') {
        return Err("start with a letter or a digit".to_owned());
    }
    if let Some(other) = text.chars().find(|c| !allowed(*c)) {
        return Err(format!("{other:?} is not allowed; use `-` or `_` instead"));
    }
    Ok(())
}

/// The name of a model, or `model.task`; a `*` at the end matches any suffix.
pub(super) fn model_pattern(text: &str) -> Result<(), String> {
    let start = text.strip_suffix('*').unwrap_or(text);
    if text == "*" {
        return Err("remove `models` to allow all models".to_owned());
    }
    if start.contains('*') {
        return Err("use at most one `*`, at the end".to_owned());
    }
    match start.split_once('/') {
        Some((namespace, model)) => {
            name_characters(namespace)?;
            if !model.is_empty() {
                name_characters(model)?;
            }
        }
        None => name_characters(start)?,
    }
    match start.len() {
        0..=MAX_PATTERN_LENGTH => Ok(()),
        length => Err(format!("shorten it: it has {length} characters")),
    }
}
