//! Suggestions for misspelled names.

/// Maximum length of a name for which a suggestion is made. The edit distance takes time in proportion to the product of
/// both lengths, and clients choose one of them.
const MAX_LENGTH: usize = 64;

/// The name in `known` that `name` most likely means, if any is within a few edits of it. Ignores case, and treats `-` as
/// `_`.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let normalize = |name: &str| name.to_lowercase().replace('-', "_");
    let name = normalize(name);
    let max_distance = (name.chars().count() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&name, &normalize(candidate)), candidate))
        .filter(|(distance, _)| *distance <= max_distance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_the_nearest_known_name() {
        assert_eq!(nearest("inptus", ["inputs", "input"]), Some("inputs"));
        assert_eq!(nearest("Max-Queue", ["max_queue", "queue"]), Some("max_queue"));
        assert_eq!(nearest("zebra", ["inputs", "input"]), None);
    }

    #[test]
    fn a_long_name_gets_no_suggestion() {
        assert_eq!(nearest(&"a".repeat(1000), ["a"]), None);
    }
}
