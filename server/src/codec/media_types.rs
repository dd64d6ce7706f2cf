//! Media types of items of kind `bytes`.

use plugin_abi::check::accepts_media_type;
use plugin_abi::manifest::TaskManifest;

use crate::error::ItemError;

/// Rejects media types that the task does not accept. An empty media type and `application/octet-stream` mean that
/// the type is unknown, and are accepted.
///
/// # Errors
/// Lists the media types that the task accepts.
pub fn check_media_type(task: &TaskManifest, media_type: &str) -> Result<(), ItemError> {
    let stated = essence(media_type);
    if stated.is_empty() || stated == "application/octet-stream" || accepts_media_type(&task.input, &stated) {
        return Ok(());
    }
    let media_type: String = media_type.chars().take(100).collect();
    Err(ItemError::Invalid(format!(
        "unsupported media type `{media_type}`: task `{}` accepts {}",
        task.name,
        task.input.media_types.join(", ")
    )))
}

/// Returns a media type in lower case, without parameters.
pub fn essence(content_type: &str) -> String {
    let end = content_type.find(';').unwrap_or(content_type.len());
    content_type[..end].trim().to_ascii_lowercase()
}
