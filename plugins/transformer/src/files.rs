//! Reading of JSON files in a model directory.

use std::fs;
use std::path::Path;

use plugin_sdk::{LoadError, json_error, serde_json};
use serde::de::DeserializeOwned;

/// Reads a JSON file. `None` if it does not exist.
///
/// # Errors
/// The file cannot be read or is invalid. The error names the setting `folder`.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, LoadError> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).map_err(|error| file_error(file, &format!("cannot be read: {error}")))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = json_error::message_with_position(&error);
        file_error(file, &format!("is not valid: {message}"))
    })
}

/// Creates an error about a file that names the setting `folder`.
pub fn file_error(file: &Path, problem: &str) -> LoadError {
    LoadError::setting("folder", format_args!("`{}` {problem}", file.display()))
}
