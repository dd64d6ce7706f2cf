//! Filters of the log.

use crate::suggest::nearest;

/// The levels of a log filter.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A misspelled level is an error here: `env_logger` would take it for the name of a module and silence all others.
pub(super) fn log_filter(text: &str) -> Result<(), String> {
    let directives = text.split('/').next().unwrap_or_default();
    if directives.trim().is_empty() {
        return Err("write \"info\", or \"off\" to log nothing".to_owned());
    }
    for directive in directives
        .split(',')
        .map(str::trim)
        .filter(|directive| !directive.is_empty())
    {
        let is_level = |word: &str| LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        let levels = || format!("the levels are {}", LOG_LEVELS.join(", "));
        match directive.split_once('=') {
            Some((_, level)) if is_level(level.trim()) || level.trim().is_empty() => {}
            Some((_, level)) => return Err(level_hint(level).unwrap_or_else(levels)),
            None if is_level(directive) || directive.contains("::") => {}
            None => {
                if let Some(hint) = level_hint(directive) {
                    return Err(hint);
                }
            }
        }
    }
    Ok(())
}

fn level_hint(written: &str) -> Option<String> {
    let level = match written.trim().to_lowercase().as_str() {
        "warning" => Some("warn"),
        "fatal" | "critical" => Some("error"),
        "verbose" | "all" => Some("trace"),
        "none" => Some("off"),
        other => nearest(other, LOG_LEVELS),
    };
    level.map(|level| format!("did you mean `{level}`?"))
}
