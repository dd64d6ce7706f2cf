//! Matching of media types.

use crate::manifest::ValueManifest;

/// Whether a task with this input accepts bytes of this media type.
pub fn accepts_media_type(input: &ValueManifest, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let patterns = &input.media_types;
    patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| media_type_matches(pattern, essence))
}

/// Replaces a common misspelling of a media type by the registered name, such as `image/jpg` by `image/jpeg`. Other media
/// types, and those with parameters, are returned unchanged.
pub fn registered_media_type(media_type: &str) -> &str {
    match media_type {
        jpg if jpg.eq_ignore_ascii_case("image/jpg") => "image/jpeg",
        other => other,
    }
}

/// Whether a media type, without parameters, matches a pattern such as `image/png`, `image/*` or `*/*`. Tolerates the
/// misspellings of [`registered_media_type`] in both.
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
