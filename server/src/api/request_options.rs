//! What clients say of a request besides its content: deadline, priority, request id, trace.
//!
//! Headers of HTTP and metadata of gRPC have the same names and mean the same. Either is read through a function from a
//! name to a value, as their types have nothing in common.

use std::sync::Arc;
use std::time::Duration;

use super::failure::{Code, Failure};
use crate::batching::Priority;

/// How a request wants to be treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hints {
    /// How long after its arrival it must be answered.
    pub timeout: Duration,
    /// Its class.
    pub priority: Priority,
    /// Its id in the log; empty if it has none.
    pub request_id: Arc<str>,
}

/// Nobody waits for longer; also keeps deadlines within what the clock can express.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

impl Hints {
    /// Reads `x-request-timeout`, `x-priority` and `x-request-id`. `header` gives the value of a header.
    pub fn read<'a>(
        header: impl Fn(&'static str) -> Option<&'a [u8]>,
        default_timeout: Duration,
    ) -> Result<Self, Failure> {
        let timeout = match text(&header, "x-request-timeout")? {
            Some(text) => parse_timeout(text)?,
            None => default_timeout.min(MAX_TIMEOUT),
        };
        let priority = match text(&header, "x-priority")? {
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
        Ok(Self {
            timeout,
            priority,
            request_id: request_id(header).unwrap_or_default().into(),
        })
    }

    /// Takes over what the request's own parameters say: `timeout` in microseconds, and `priority`, where 1 is the highest,
    /// 2 is normal, and 0 says nothing. So Triton has them.
    pub fn override_with(&mut self, timeout: Option<u64>, priority: Option<u64>) {
        if let Some(micros @ 1..) = timeout {
            self.timeout = Duration::from_micros(micros).min(MAX_TIMEOUT);
        }
        match priority {
            None | Some(0) => {}
            Some(1) => self.priority = Priority::High,
            Some(2) => self.priority = Priority::Normal,
            Some(3..) => self.priority = Priority::Low,
        }
    }
}

fn text<'a>(
    header: impl Fn(&'static str) -> Option<&'a [u8]>,
    name: &'static str,
) -> Result<Option<&'a str>, Failure> {
    let Some(value) = header(name) else {
        return Ok(None);
    };
    match std::str::from_utf8(value) {
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
pub fn request_id<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Option<&'a str> {
    let id = std::str::from_utf8(header("x-request-id")?).ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(allowed)).then_some(id)
}

/// The trace that the request belongs to, by its W3C `traceparent`: 32 hexadecimal digits.
pub fn trace_id<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Option<&'a str> {
    let parent = std::str::from_utf8(header("traceparent")?).ok()?;
    let mut parts = parent.trim().split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let known = version.len() == 2 && trace.len() == 32 && hexadecimal(version) && hexadecimal(trace);
    (known && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(
        name: &'static str,
        value: &'static str,
    ) -> impl Fn(&'static str) -> Option<&'static [u8]> + Copy {
        move |asked| (asked == name).then_some(value.as_bytes())
    }

    #[test]
    fn a_timeout_has_a_unit_or_is_seconds() {
        let timeout = |text| {
            Hints::read(header("x-request-timeout", text), Duration::from_secs(9))
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
        let hints = Hints::read(|_| None, Duration::from_secs(9)).expect("no headers are fine");
        assert_eq!(
            hints,
            Hints {
                timeout: Duration::from_secs(9),
                priority: Priority::Normal,
                request_id: "".into(),
            }
        );
    }

    #[test]
    fn a_priority_is_one_of_three() {
        let priority = |text| {
            Hints::read(header("x-priority", text), Duration::from_secs(9)).map(|hints| hints.priority)
        };
        assert_eq!(priority("high"), Ok(Priority::High));
        assert_eq!(priority("Low"), Ok(Priority::Low));
        assert!(priority("urgent").is_err());
    }

    #[test]
    fn a_request_id_is_taken_only_if_it_is_harmless() {
        let id = |text| request_id(header("x-request-id", text)).map(str::to_owned);
        assert_eq!(id("a1-b2.c3"), Some("a1-b2.c3".to_owned()));
        assert_eq!(id(""), None);
        assert_eq!(id("a b"), None);
        assert_eq!(id("a\"b"), None);
    }

    #[test]
    fn parameters_go_before_headers() {
        let mut hints = Hints {
            timeout: Duration::from_secs(9),
            priority: Priority::Low,
            request_id: "".into(),
        };
        hints.override_with(Some(0), Some(0));
        assert_eq!((hints.timeout.as_secs(), hints.priority), (9, Priority::Low));
        hints.override_with(Some(250_000), Some(1));
        assert_eq!((hints.timeout.as_millis(), hints.priority), (250, Priority::High));
        hints.override_with(Some(u64::MAX), Some(7));
        assert_eq!((hints.timeout, hints.priority), (MAX_TIMEOUT, Priority::Low));
    }

    #[test]
    fn a_trace_is_known_by_its_parent() {
        let trace = |text| trace_id(header("traceparent", text));
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(
            trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            Some(id)
        );
        for bad in [
            "",
            "00",
            "00-xyz-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-1-01",
        ] {
            assert_eq!(trace(bad), None, "{bad}");
        }
    }
}
