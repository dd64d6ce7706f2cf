//! The text values of the configuration: names, paths, routes, hosts, log filters, origins and keys. Every error is a hint.

use std::net::IpAddr;

use super::rule::Text;
use crate::routes;
use crate::secret::webhook_key;
use crate::suggest::nearest;

/// Maximum length of the name of a task.
const MAX_NAME_LENGTH: usize = 64;

/// Maximum length of the name of a model, which can have a slash.
const MAX_MODEL_NAME_LENGTH: usize = 128;

/// Maximum length of `model.task`.
const MAX_PATTERN_LENGTH: usize = MAX_MODEL_NAME_LENGTH + 1 + MAX_NAME_LENGTH;

/// The levels of a log filter.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) const NAME: Text = Text {
    expected: "a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`",
    value_name: Some("NAME"),
    check: name,
};
pub(super) const MODEL_NAME: Text = Text {
    expected: "a name of 1 to 128 letters, digits, `.`, `_` or `-`, with at most one `/`, whose parts do not start with `.`",
    value_name: Some("NAME"),
    check: model_name,
};
pub(super) const PLUGIN: Text = Text {
    expected: "the name of a plugin, or the path of a shared library",
    value_name: Some("PLUGIN"),
    check: printable,
};
pub(super) const DIRECTORY: Text = Text {
    expected: "the path of a directory",
    value_name: Some("DIR"),
    check: printable,
};
pub(super) const CALIBRATION: Text = Text {
    expected: "\"auto\", or the path of a calibration file",
    value_name: Some("FILE"),
    check: printable,
};
pub(super) const PEM_FILE: Text = Text {
    expected: "the path of a PEM file",
    value_name: Some("FILE"),
    check: printable,
};
pub(super) const FREE_TEXT: Text = Text {
    expected: "a string",
    value_name: Some("TEXT"),
    check: |_| Ok(()),
};
pub(super) const HOST: Text = Text {
    expected: "an IP address or a host name",
    value_name: Some("ADDRESS"),
    check: host,
};
pub(super) const ROUTE: Text = Text {
    expected: "a path such as \"/text\"",
    value_name: Some("PATH"),
    check: route,
};
pub(super) const LOG_FILTER: Text = Text {
    expected: "a log level or a filter such as \"info,actix_web=warn\"",
    value_name: Some("FILTER"),
    check: log_filter,
};
pub(super) const CORS_ORIGIN: Text = Text {
    expected: "\"*\" or an origin such as \"https://example.com\"",
    value_name: Some("ORIGIN"),
    check: origin,
};
pub(super) const PATH_PATTERN: Text = Text {
    expected: "a path, or a prefix followed by `*`, such as \"/v2/health/*\"",
    value_name: Some("PATTERN"),
    check: path_pattern,
};
pub(super) const OTLP_ENDPOINT: Text = Text {
    expected: "a URL such as \"http://localhost:4318\"",
    value_name: Some("URL"),
    check: otlp_endpoint,
};
pub(super) const OTLP_HEADER: Text = Text {
    expected: "a header as \"NAME=VALUE\"",
    value_name: Some("HEADER"),
    check: otlp_header,
};
pub(super) const KEY_NAME: Text = Text {
    expected: "a name of 1 to 64 letters, digits, `.`, `_` or `-`, not starting with `.`",
    value_name: Some("NAME"),
    check: name,
};
pub(super) const MODEL_PATTERN: Text = Text {
    expected: "the name of a model or `model.task`, which can end in `*`",
    value_name: Some("PATTERN"),
    check: model_pattern,
};
pub(super) const JOB_STORE: Text = Text {
    expected: "\"sqlite\", or a URL such as \"postgres://user:password@host/database\"",
    value_name: Some("STORE"),
    check: job_store,
};
pub(super) const WEBHOOK_HOST: Text = Text {
    expected: "a host name, an IP address, or `*.` and a domain, such as \"*.example.com\"",
    value_name: Some("HOST"),
    check: webhook_host,
};
pub(super) const WEBHOOK_SECRET: Text = Text {
    expected: "`whsec_` followed by 24 to 64 bytes in base64",
    value_name: Some("SECRET"),
    check: webhook_secret,
};
pub(super) const FILE: Text = Text {
    expected: "the path of a file",
    value_name: Some("FILE"),
    check: printable,
};
pub(super) const KEY: Text = Text {
    expected: "a key of at least 16 characters, without spaces",
    value_name: Some("KEY"),
    check: key,
};

/// Names are used in URLs, in metric labels and in the names of environment variables.
pub(super) fn name(text: &str) -> Result<(), String> {
    name_characters(text)?;
    if text.len() > MAX_NAME_LENGTH {
        return Err(format!("shorten it: it has {} characters", text.len()));
    }
    Ok(())
}

/// The name of a model: like that of a task, or two such names separated by a slash, as on Hugging Face.
fn model_name(text: &str) -> Result<(), String> {
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
fn model_pattern(text: &str) -> Result<(), String> {
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

fn job_store(text: &str) -> Result<(), String> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    match text == "sqlite" || is_url {
        true => printable(text),
        false => Err("use \"sqlite\", or a URL that starts with postgres://".to_owned()),
    }
}

fn printable(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it must not be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err(
            "it contains control characters: double every backslash, or use 'single quotes'".to_owned(),
        );
    }
    Ok(())
}

/// A key is sent in a header, and must be hard to guess.
fn key(text: &str) -> Result<(), String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("use only printable ASCII characters: the key is sent in a header".to_owned());
    }
    match text.len() {
        0..16 => Err("`openssl rand -hex 16` generates one".to_owned()),
        _ => Ok(()),
    }
}

/// The URL of a collector. This server does not support TLS to a collector.
pub(super) fn otlp_endpoint(text: &str) -> Result<(), String> {
    if text.starts_with("https://") {
        return Err(
            "TLS to the collector is not supported: run a collector on this machine, and let it forward the traces"
                .to_owned(),
        );
    }
    let Some(rest) = text.strip_prefix("http://") else {
        return Err("start with `http://`".to_owned());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err("write the host after `http://`".to_owned());
    }
    if authority.contains('@') {
        return Err("set credentials with `headers`".to_owned());
    }
    if text.contains(['?', '#']) {
        return Err("remove the query".to_owned());
    }
    Ok(())
}

fn otlp_header(text: &str) -> Result<(), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write \"NAME=VALUE\"".to_owned());
    };
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.trim().is_empty() || !name.trim().chars().all(is_token) {
        return Err("the name of a header consists of letters, digits and `-`".to_owned());
    }
    match value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        true => Ok(()),
        false => Err("use only printable ASCII characters in the value".to_owned()),
    }
}

fn host(text: &str) -> Result<(), String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if text.is_empty() {
        return Err(
            "use \"0.0.0.0\" for all interfaces, or \"127.0.0.1\" for clients on this machine only"
                .to_owned(),
        );
    }
    if text.contains("//") {
        return Err("remove the scheme and the path".to_owned());
    }
    if text.starts_with('[') {
        return Err("write IPv6 addresses without brackets, and set the port with `port`".to_owned());
    }
    if text.contains(':') {
        return Err("set the port with `port`".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.chars().find(|c| !allowed(*c)).map_or(Ok(()), |other| {
        Err(format!("{other:?} is not allowed in a host name"))
    })
}

/// A host that webhooks can reach, or all names below a domain.
fn webhook_host(text: &str) -> Result<(), String> {
    if text.contains('/') {
        return Err("remove the scheme and the path".to_owned());
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_address = name.parse::<IpAddr>().is_ok();
    if name.contains('*') || (is_address && name != text) {
        return Err("`*` stands only for the names below a domain, as in \"*.example.com\"".to_owned());
    }
    if is_address {
        return Ok(());
    }
    if name.contains([':', '[']) {
        return Err("remove the port: a host is allowed with every port".to_owned());
    }
    if !name.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err("write the name of a host".to_owned());
    }
    host(name)
}

fn webhook_secret(text: &str) -> Result<(), String> {
    match webhook_key(text) {
        Some(_) => Ok(()),
        None => Err("`echo \"whsec_$(openssl rand -base64 32)\"` generates one".to_owned()),
    }
}

fn route(text: &str) -> Result<(), String> {
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

/// A misspelled level is an error here: `env_logger` would take it for the name of a module and silence all others.
fn log_filter(text: &str) -> Result<(), String> {
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

fn origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    let Some(authority) = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
    else {
        return Err("start with `https://` or `http://`".to_owned());
    };
    if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(
            "write a scheme and a host, and a port unless it is the default of the scheme".to_owned(),
        );
    }
    if authority.contains(['/', '?', '#']) {
        return Err("remove the path and the slash at the end".to_owned());
    }
    if authority.contains('*') {
        return Err("wildcards are not supported: list each origin, or allow all with \"*\"".to_owned());
    }
    Ok(())
}

fn path_pattern(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("start with a slash: \"/{text}\""));
    }
    if text.trim_end_matches('*').contains('*') || text.ends_with("**") {
        return Err("use at most one `*`, at the end".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_check_accepts_valid_text_and_rejects_invalid_text() {
        type Case = (
            fn(&str) -> Result<(), String>,
            &'static [&'static str],
            &'static [&'static str],
        );
        let cases: [Case; 9] = [
            (
                model_pattern,
                &["minilm", "digits.*", "digits.classify", "m*"],
                &["", "*", "a*b", "**", ".a", "a b"],
            ),
            (
                name,
                &["a", "all-MiniLM-L6-v2", "bge.m3_1"],
                &["", ".a", "a b", "a/b", "é", "../x"],
            ),
            (
                host,
                &["0.0.0.0", "::", "::1", "localhost", "my_host.example-1.com"],
                &["", "[::1]", "0.0.0.0:80", "http://x", "a b"],
            ),
            (
                webhook_host,
                &[
                    "hooks.example.com",
                    "*.example.com",
                    "localhost",
                    "127.0.0.1",
                    "::1",
                ],
                &[
                    "",
                    ".",
                    "*",
                    "*.",
                    "*.10.0.0.1",
                    "a.*.com",
                    "https://example.com",
                    "example.com:443",
                    "[::1]",
                    "10.0.0.0/8",
                    "a b",
                ],
            ),
            (
                webhook_secret,
                &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
                &[
                    "",
                    "whsec_",
                    "whsec_c2hvcnQ=",
                    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                    "whsec_ä",
                ],
            ),
            (
                route,
                &["/text", "/a/b", "/v1x", "/docs-of-mine", "/a.b~c_d"],
                &[
                    "", "text", "/", "/v1", "/v2/x", "/health/", "/a//b", "/a/", "/a/..", "/{x}", "/a?b",
                ],
            ),
            (
                log_filter,
                &[
                    "info",
                    "WARN",
                    "info,actix_web=warn",
                    "my_crate",
                    "a::b=debug,off",
                    "info/timeout",
                    "my_crate=",
                ],
                &["", "inof", "warning", "info,actix=loud", "debg,x=info"],
            ),
            (
                origin,
                &["*", "https://a.example", "http://localhost:3000"],
                &["a.example", "https://", "https://a/", "https://*.a"],
            ),
            (
                path_pattern,
                &["/health", "/v2/health/*", "/*"],
                &["health", "/*/x", "/a**", ""],
            ),
        ];
        for (check, good, bad) in cases {
            for text in good {
                assert_eq!(check(text), Ok(()), "{text}");
            }
            for text in bad {
                assert!(check(text).is_err(), "{text}");
            }
        }
    }

    /// Paths that resemble those of the server, and paths that an operator might choose.
    fn paths() -> impl Strategy<Value = String> {
        let names: Vec<&str> = routes::ALL
            .iter()
            .flat_map(|route| route.patterns.iter())
            .flat_map(|pattern| pattern.split('/'))
            .filter(|segment| !segment.is_empty() && !segment.contains('{'))
            .chain(["docs-of-mine", "metrics2", "text", ".", "..", ""])
            .collect();
        let segment = (proptest::sample::select(names), "[-A-Za-z0-9._~%/]{0,3}");
        let segment = segment.prop_map(|(name, rest)| format!("/{name}{rest}"));
        proptest::collection::vec(segment, 1..4).prop_map(|segments| segments.concat())
    }

    proptest! {
        #[test]
        fn every_valid_route_of_a_task_requires_a_client_key(path in paths()) {
            if route(&path).is_ok() {
                prop_assert_eq!(routes::find(&path), None);
                for served in [true, false] {
                    let pages = routes::Pages { docs: served, ui: served };
                    prop_assert_eq!(routes::required_access(true, &path, pages), routes::Access::Client);
                }
            }
        }
    }

    #[test]
    fn a_name_has_at_most_64_characters() {
        assert!(name(&"a".repeat(64)).is_ok());
        assert!(name(&"a".repeat(65)).is_err());
    }

    #[test]
    fn the_name_of_a_model_can_have_a_slash() {
        for valid in ["bge", "BAAI/bge-small-en", "a.b/c_d", "v1/x", &"a".repeat(128)] {
            assert_eq!(model_name(valid), Ok(()), "{valid}");
        }
        for (invalid, hint) in [
            ("", "use at least one character"),
            ("/bge", "use at least one character"),
            ("BAAI/", "use at least one character"),
            ("a/b/c", "use at most one `/`, as in \"BAAI/bge-small-en\""),
            ("BAAI/.bge", "start with a letter or a digit"),
            ("BAAI/b c", "' ' is not allowed; use `-` or `_` instead"),
            (
                "BAAI/embed",
                "`embed` after the slash is part of the server's paths; choose another name",
            ),
            (
                "BAAI/tasks",
                "`tasks` after the slash is part of the server's paths; choose another name",
            ),
        ] {
            assert_eq!(model_name(invalid), Err(hint.to_owned()), "{invalid}");
        }
        for pattern in ["BAAI/*", "BAAI/bge.query", "BAAI/bge*", "bge*"] {
            assert_eq!(model_pattern(pattern), Ok(()), "{pattern}");
        }
        for pattern in ["/bge", "a/b/c", "*"] {
            assert!(model_pattern(pattern).is_err(), "{pattern}");
        }
    }
}
