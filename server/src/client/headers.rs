//! Headers that the command line adds to every request, including the API key.
//!
//! Their values may be secrets: errors do not show them, and they are marked as sensitive, so that `Debug` hides them.

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use crate::secret::Secret;

/// A header of the command line is invalid. Errors do not show values, which may be secret.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// A header is invalid.
    #[error("--header number {position}: {problem}; expected NAME:VALUE")]
    Header {
        /// Its position among the headers, from 1.
        position: usize,
        /// The cause.
        problem: String,
    },
    /// The API key is invalid.
    #[error(
        "the key has characters that are not allowed in a header; check --key or its environment variable"
    )]
    Key,
}

/// Headers about the connection and the length of the body, which only the client can set.
const RESERVED: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

/// Parses headers of the form `NAME:VALUE`, and adds the key as a bearer token unless one of them is `authorization`.
pub(crate) fn read(headers: &[Secret], key: Option<&Secret>) -> Result<HeaderMap, HeaderError> {
    let mut map = HeaderMap::new();
    for (index, header) in headers.iter().enumerate() {
        let header = header.expose();
        let invalid = |problem: String| HeaderError::Header {
            position: index + 1,
            problem,
        };
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| invalid("missing colon".to_owned()))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| invalid("the name has characters that are not allowed".to_owned()))?;
        if RESERVED.contains(&name) {
            return Err(invalid(format!("`{name}` is set by the client itself")));
        }
        let value = secret(value.trim()).ok_or_else(|| {
            invalid(format!(
                "the value of `{name}` has characters that are not allowed"
            ))
        })?;
        map.append(name, value);
    }
    // An empty variable counts as unset, since scripts often pass on variables that may be empty.
    if let Some(key) = key.map(|key| key.expose().trim()).filter(|key| !key.is_empty()) {
        let value = secret(&format!("Bearer {key}")).ok_or(HeaderError::Key)?;
        map.entry(AUTHORIZATION).or_insert(value);
    }
    Ok(map)
}

/// Adds the headers of the command line to those of a request. They replace headers of the same name.
pub(crate) fn override_with(headers: &mut HeaderMap, given: &HeaderMap) {
    for name in given.keys() {
        headers.remove(name);
    }
    for (name, value) in given {
        headers.append(name, value.clone());
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(headers: &[&str], key: Option<&str>) -> Result<HeaderMap, String> {
        let headers: Vec<Secret> = headers.iter().map(|&header| header.to_owned().into()).collect();
        let key = key.map(|key| key.to_owned().into());
        read(&headers, key.as_ref()).map_err(|error| error.to_string())
    }

    #[test]
    fn headers_are_parsed_like_those_of_curl() {
        let map = read_all(&["x-one: 1", "X-Two:a:b", "x-one:2"], None).expect("they are valid");
        let values: Vec<_> = map.get_all("x-one").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(map["x-two"], "a:b");
    }

    #[test]
    fn headers_of_the_command_line_replace_others_with_all_their_values() {
        let given = read_all(&["x-one:1", "x-one:2"], None).expect("they are valid");
        let mut headers = HeaderMap::new();
        headers.append("x-one", HeaderValue::from_static("default"));
        headers.append("x-two", HeaderValue::from_static("kept"));
        override_with(&mut headers, &given);
        let values: Vec<_> = headers.get_all("x-one").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(headers["x-two"], "kept");
    }

    #[test]
    fn the_key_is_a_bearer_token_unless_a_header_replaces_it() {
        let map = read_all(&[], Some(" k1\n")).expect("it is valid");
        assert_eq!(map["authorization"], "Bearer k1");
        let map = read_all(&["Authorization: Basic dTpw"], Some("k1")).expect("it is valid");
        assert_eq!(map["authorization"], "Basic dTpw");
        assert!(read_all(&[], Some("")).expect("no key is valid").is_empty());
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_value() {
        let map = read_all(&["x-token: s3cret"], Some("s3cret")).expect("they are valid");
        assert!(!format!("{map:?}").contains("s3cret"), "{map:?}");
        for (headers, key, part) in [
            (&["s3cret"][..], None, "--header number 1: missing colon"),
            (&["a:1", "b c: s3cret"], None, "--header number 2: the name"),
            (&["a: s3cret\u{1}"], None, "the value of `a` has characters"),
            (
                &["Content-Length: 3"],
                None,
                "`content-length` is set by the client itself",
            ),
            (&[], Some("s3cret\u{1}"), "the key has characters"),
        ] {
            let error = read_all(headers, key).expect_err("it is invalid");
            assert!(error.contains(part) && !error.contains("s3cret"), "{error}");
        }
    }
}
