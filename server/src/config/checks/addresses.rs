//! Hosts, origins, and the URL and headers of a collector.

use std::net::IpAddr;

use super::printable;
#[cfg(feature = "jobs")]
use crate::error::Chain;

/// The URL of a collector. This server does not support TLS to a collector.
pub(in crate::config) fn otlp_endpoint(text: &str) -> Result<(), String> {
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
    port(authority)
}

/// Checks the port after a host, if there is one.
fn port(authority: &str) -> Result<(), String> {
    // The colons of an IPv6 address are within brackets.
    let end = authority.rsplit(']').next().unwrap_or_default();
    let is_port = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|port: u16| port > 0)
    };
    match end.split_once(':') {
        Some((_, text)) if !is_port(text) => Err("write a port from 1 to 65535".to_owned()),
        _ => Ok(()),
    }
}

pub(super) fn otlp_header(text: &str) -> Result<(), String> {
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

pub(super) fn host(text: &str) -> Result<(), String> {
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
pub(super) fn webhook_host(text: &str) -> Result<(), String> {
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

pub(super) fn origin(text: &str) -> Result<(), String> {
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
    port(authority)
}

/// `sqlite`, or the URL of a PostgreSQL database.
pub(super) fn job_store(text: &str) -> Result<(), String> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
    match text {
        "sqlite" => Ok(()),
        _ if is_url => printable(text).and_then(|()| postgres_url(text)),
        _ => Err("use \"sqlite\", or a URL that starts with postgres://".to_owned()),
    }
}

#[cfg(feature = "jobs")]
fn postgres_url(text: &str) -> Result<(), String> {
    let parsed: Result<tokio_postgres::Config, _> = text.parse();
    // The errors name options, and never their values.
    parsed.map(drop).map_err(|error| Chain(&error).to_string())
}

#[cfg(not(feature = "jobs"))]
fn postgres_url(_: &str) -> Result<(), String> {
    Ok(())
}
