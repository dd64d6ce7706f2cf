//! The JSON files of a model's folder. What they say is the business of those who read them.

use std::fs;
use std::path::Path;

use plugin_sdk::{LoadError, json_error, serde_json};
use serde::de::DeserializeOwned;

/// Reads a JSON file; `None` if there is none.
///
/// # Errors
/// The file cannot be read or does not have the expected form; the error names the setting `folder`.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).map_err(|error| blame(file, &format!("cannot be read: {error}")))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = json_error::message_with_position(&error);
        blame(file, &format!("is not valid: {message}"))
    })
}

/// Blames the setting `folder` for a problem with a file.
pub fn blame(file: &Path, problem: &str) -> LoadError {
    LoadError::setting("folder", format_args!("`{}` {problem}", file.display()))
}
