//! The text values of the configuration: names, paths, routes, hosts, log filters, origins and keys. Every error is a hint.

mod addresses;
mod log_filter;
mod names;
mod paths;

#[cfg(test)]
mod tests;

pub(super) use addresses::otlp_endpoint;
pub(super) use names::name;

use super::rule::Text;
use crate::secret::webhook_key;
use addresses::{host, job_store, origin, otlp_header, webhook_host};
use log_filter::log_filter;
use names::{model_name, model_pattern};
use paths::{path_pattern, route};

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

fn webhook_secret(text: &str) -> Result<(), String> {
    match webhook_key(text) {
        Some(_) => Ok(()),
        None => Err("`echo \"whsec_$(openssl rand -base64 32)\"` generates one".to_owned()),
    }
}
