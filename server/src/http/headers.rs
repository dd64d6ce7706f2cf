//! What clients say in headers of this server's own: deadline, priority, request id.

use std::time::Duration;

use actix_web::http::header::HeaderMap;

use super::error::{Code, Failure};
use crate::batching::Priority;

/// How a request wants to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hints {
    /// How long after its arrival it must be answered.
    pub(crate) timeout: Duration,
    /// Its class.
    pub(crate) priority: Priority,
}

/// Nobody waits for longer; also keeps deadlines within what the clock can express.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

impl Hints {
    /// Reads `x-request-timeout` and `x-priority`.
    pub(crate) fn read(headers: &HeaderMap, default_timeout: Duration) -> Result<Self, Failure> {
        let timeout = match header(headers, "x-request-timeout")? {
            Some(text) => parse_timeout(text)?,
            None => default_timeout.min(MAX_TIMEOUT),
        };
        let priority = match header(headers, "x-priority")? {
            None => Priority::Normal,
            Some(name) if name.eq_ignore_ascii_case("high") => Priority::High,
            Some(name) if name.eq_ignore_ascii_case("normal") => Priority::Normal,
            Some(name) if name.eq_ignore_ascii_case("low") => Priority::Low,
            Some(name) => {
                return Err(malformed(format!(
                    "header x-priority: expected high, normal or low, got `{name}`"
                )));
            }
        };
        Ok(Self { timeout, priority })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Failure> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(malformed(format!("header {name}: not readable as text"))),
    }
}

fn parse_timeout(text: &str) -> Result<Duration, Failure> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .map(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let parsed = seconds.unwrap_or_else(|| humantime::parse_duration(text).ok());
    match parsed {
        Some(timeout) if timeout > MAX_TIMEOUT => Err(malformed(format!(
            "header x-request-timeout: `{text}` is too long, at most 24h"
        ))),
        Some(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err(malformed(format!(
            "header x-request-timeout: expected a duration such as 250ms or 2s, or seconds, got `{text}`"
        ))),
    }
}

fn malformed(message: String) -> Failure {
    Failure::new(Code::Malformed, message)
}

/// The client's own request id, if it may stand in a log and in a header as it is.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(allowed)).then_some(id)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_timeout_has_a_unit_or_is_seconds() {
        let timeout = |text| {
            Hints::read(&headers(&[("x-request-timeout", text)]), Duration::from_secs(9))
                .map(|hints| hints.timeout.as_millis())
        };
        assert_eq!(timeout("250ms"), Ok(250));
        assert_eq!(timeout(" 2s "), Ok(2000));
        assert_eq!(timeout("1m 5s"), Ok(65_000));
        assert_eq!(timeout("0.5"), Ok(500));
        for bad in [
            "",
            "0",
            "0ms",
            "-1",
            "soon",
            "nan",
            "inf",
            "1e300",
            "25h",
            "99999999999999999999s",
        ] {
            let failure = timeout(bad).expect_err("a bad timeout");
            assert_eq!(failure.code.status(), 400, "for {bad}");
        }
    }

    #[test]
    fn a_request_that_says_nothing_gets_the_defaults() {
        let hints = Hints::read(&HeaderMap::new(), Duration::from_secs(9)).expect("no headers are fine");
        assert_eq!(
            hints,
            Hints {
                timeout: Duration::from_secs(9),
                priority: Priority::Normal
            }
        );
    }

    #[test]
    fn a_priority_is_one_of_three() {
        let priority = |text| {
            Hints::read(&headers(&[("x-priority", text)]), Duration::from_secs(9)).map(|hints| hints.priority)
        };
        assert_eq!(priority("high"), Ok(Priority::High));
        assert_eq!(priority("Low"), Ok(Priority::Low));
        assert!(priority("urgent").is_err());
    }

    #[test]
    fn a_request_id_is_taken_only_if_it_is_harmless() {
        let id = |text| request_id(&headers(&[("x-request-id", text)])).map(str::to_owned);
        assert_eq!(id("a1-b2.c3"), Some("a1-b2.c3".to_owned()));
        assert_eq!(id(""), None);
        assert_eq!(id("a b"), None);
        assert_eq!(id("a\"b"), None);
    }
}
