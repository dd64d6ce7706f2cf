//! Headers that the command line adds to every request, the API key among them.
//!
//! Their values may be secrets: no error shows one, and they are marked so that `Debug` hides them.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};

use super::error::BenchError;

/// Headers that describe the connection or the length of the body, which the client sets to what it does.
const RESERVED: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE];

/// A header or a key as it was given, which `Debug` does not show.
#[derive(Clone)]
pub(super) struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads headers of the form `NAME:VALUE`, and adds the key as a bearer token unless one of them is `authorization`.
pub(super) fn read(headers: &[Secret], key: Option<&Secret>) -> Result<HeaderMap, BenchError> {
    let mut map = HeaderMap::new();
    for (index, header) in headers.iter().enumerate() {
        let Secret(header) = header;
        let invalid = |problem: String| BenchError::Header {
            position: index + 1,
            problem,
        };
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| invalid("it has no colon".to_owned()))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| invalid("its name has characters that are not allowed".to_owned()))?;
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
    // An empty variable is one that is not set: scripts pass on what they were given.
    if let Some(key) = key.map(|Secret(key)| key.trim()).filter(|key| !key.is_empty()) {
        let value = secret(&format!("Bearer {key}")).ok_or(BenchError::Key)?;
        map.entry(AUTHORIZATION).or_insert(value);
    }
    Ok(map)
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
    fn headers_are_read_as_curl_reads_them() {
        let map = read_all(&["x-one: 1", "X-Two:a:b", "x-one:2"], None).expect("they are valid");
        let values: Vec<_> = map.get_all("x-one").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(map["x-two"], "a:b");
    }

    #[test]
    fn a_key_is_a_bearer_token_unless_a_header_says_otherwise() {
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
            (&["s3cret"][..], None, "--header number 1: it has no colon"),
            (&["a:1", "b c: s3cret"], None, "--header number 2: its name"),
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
