//! Keys of the listening ports that require others.

use super::document::Document;
use super::error::{ConfigError, Origin};
use super::keys::{WrittenServer, WrittenTls};

/// Rejects a certificate without a key, the reverse, a client CA without either, and `management_only` without a management
/// port. `servers` and `tls` are the values of each source.
pub(super) fn reject_incomplete(
    document: &Document<'_>,
    servers: &[&WrittenServer],
    tls: &[&WrittenTls],
    errors: &mut Vec<ConfigError>,
) {
    let mut reject = |key: &str, required: &str, origin: &Origin| {
        errors.push(ConfigError {
            excerpt: document.line_of(origin),
            ..ConfigError::new(
                origin.clone(),
                format!("`{key}` requires `{required}`"),
                Some(format!("set `{required}`, or remove `{key}`")),
            )
        });
    };
    let cert = tls.iter().find_map(|layer| layer.cert.as_ref());
    let key = tls.iter().find_map(|layer| layer.key.as_ref());
    let client_ca = tls.iter().find_map(|layer| layer.client_ca.as_ref());
    match (cert, key, client_ca) {
        (Some(cert), None, _) => reject("cert", "key", &cert.origin),
        (None, Some(key), _) => reject("key", "cert", &key.origin),
        (None, None, Some(client_ca)) => reject("client_ca", "cert", &client_ca.origin),
        _ => {}
    }
    let management_only = servers.iter().find_map(|layer| layer.management_only.as_ref());
    let has_port = servers.iter().any(|layer| layer.management_port.is_some());
    if let Some(only) = management_only.filter(|only| only.value && !has_port) {
        reject("management_only", "management_port", &only.origin);
    }
}
