//! Paths of routes, and patterns of paths.

use crate::routes;

pub(super) fn route(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("start with a slash: \"/{text}\""));
    }
    if text == "/" {
        return Err("`/` is reserved by the server; choose a longer path".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '~' | '-');
    if let Some(other) = text.chars().find(|c| !allowed(*c)) {
        return Err(format!(
            "{other:?} is not allowed; use letters, digits, `.`, `_`, `~`, `-` and `/`"
        ));
    }
    if text
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err("remove empty segments, `.`, `..` and a slash at the end".to_owned());
    }
    match routes::reserved_prefix(text) {
        Some(root) => Err(format!(
            "`{root}` and all paths below it are reserved by the server; choose another path"
        )),
        None => Ok(()),
    }
}

pub(super) fn path_pattern(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("start with a slash: \"/{text}\""));
    }
    if text.trim_end_matches('*').contains('*') || text.ends_with("**") {
        return Err("use at most one `*`, at the end".to_owned());
    }
    Ok(())
}
