//! Options that clients send in headers: timeout, priority and request id.
//!
//! HTTP headers and gRPC metadata have the same names and meaning. Both are read through a function from name to
//! value, since their types differ.

use std::sync::Arc;
use std::time::Duration;

use super::execution::Execution;
use super::failure::{Code, Failure};
use crate::batching::Priority;

/// Options of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOptions {
    /// Maximum time from arrival to reply.
    pub timeout: Duration,
    /// Priority in the queue.
    pub priority: Priority,
    /// Request id for the log; empty if there is none.
    pub request_id: Arc<str>,
    /// How its items run.
    pub execution: Execution,
}

/// Maximum timeout. It keeps deadlines within the range of the clock.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

impl RequestOptions {
    /// Parses `x-request-timeout`, `x-priority` and `x-request-id`. `header` returns the value of a header.
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
                    "invalid value `{name}` for header x-priority: expected high, normal or low"
                )));
            }
        };
        Ok(Self {
            timeout,
            priority,
            request_id: request_id(header).unwrap_or_default().into(),
            execution: Execution::Interactive,
        })
    }

    /// Applies Triton's request parameters, which take precedence over headers: `timeout` in microseconds, and
    /// `priority`, where 1 is high, 2 is normal, higher numbers are low, and 0 keeps the current value.
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
        Err(_) => Err(malformed(format!("header {name}: expected UTF-8 text"))),
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
            "invalid value `{text}` for header x-request-timeout: expected at most 24h"
        ))),
        Some(timeout) if !timeout.is_zero() => Ok(timeout),
        _ => Err(malformed(format!(
            "invalid value `{text}` for header x-request-timeout: expected a duration such as 250ms or 2s, or a number of seconds"
        ))),
    }
}

fn malformed(message: String) -> Failure {
    Failure::new(Code::Malformed, message)
}

/// Headers that only jobs have.
pub const JOB_HEADERS: [&str; 4] = ["x-job-ttl", "x-job-not-before", "x-job-label", "x-webhook-url"];

/// Rejects the headers of a job for a call that does not run as one. `requirement` states what a job requires.
///
/// # Errors
/// There is such a header.
pub fn reject_job_headers<'a>(
    header: impl Fn(&'static str) -> Option<&'a [u8]>,
    requirement: &str,
) -> Result<(), Failure> {
    match JOB_HEADERS.into_iter().find(|name| header(name).is_some()) {
        None => Ok(()),
        Some(name) => Err(malformed(format!("header {name} requires {requirement}"))),
    }
}

/// The request id that the client sent, if it is safe to copy into logs and headers.
pub fn request_id<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Option<&'a str> {
    let id = std::str::from_utf8(header("x-request-id")?).ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(allowed)).then_some(id)
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
    fn a_timeout_without_a_unit_is_in_seconds() {
        let timeout = |text| {
            RequestOptions::read(header("x-request-timeout", text), Duration::from_secs(9))
                .map(|options| options.timeout.as_millis())
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
            let failure = timeout(bad).expect_err("the timeout is invalid");
            assert_eq!(failure.code.status(), 400, "for {bad}");
        }
    }

    #[test]
    fn a_request_without_headers_gets_the_defaults() {
        let options = RequestOptions::read(|_| None, Duration::from_secs(9)).expect("no headers are fine");
        assert_eq!(
            options,
            RequestOptions {
                timeout: Duration::from_secs(9),
                priority: Priority::Normal,
                request_id: "".into(),
                execution: Execution::Interactive,
            }
        );
    }

    #[test]
    fn a_priority_is_one_of_three() {
        let priority = |text| {
            RequestOptions::read(header("x-priority", text), Duration::from_secs(9))
                .map(|options| options.priority)
        };
        assert_eq!(priority("high"), Ok(Priority::High));
        assert_eq!(priority("Low"), Ok(Priority::Low));
        assert!(priority("urgent").is_err());
    }

    #[test]
    fn a_request_id_is_accepted_only_if_it_is_safe_to_log() {
        let id = |text| request_id(header("x-request-id", text)).map(str::to_owned);
        assert_eq!(id("a1-b2.c3"), Some("a1-b2.c3".to_owned()));
        assert_eq!(id(""), None);
        assert_eq!(id("a b"), None);
        assert_eq!(id("a\"b"), None);
    }

    #[test]
    fn parameters_take_precedence_over_headers() {
        let mut options = RequestOptions {
            timeout: Duration::from_secs(9),
            priority: Priority::Low,
            request_id: "".into(),
            execution: Execution::Interactive,
        };
        options.override_with(Some(0), Some(0));
        assert_eq!((options.timeout.as_secs(), options.priority), (9, Priority::Low));
        options.override_with(Some(250_000), Some(1));
        assert_eq!(
            (options.timeout.as_millis(), options.priority),
            (250, Priority::High)
        );
        options.override_with(Some(u64::MAX), Some(7));
        assert_eq!((options.timeout, options.priority), (MAX_TIMEOUT, Priority::Low));
    }
}
