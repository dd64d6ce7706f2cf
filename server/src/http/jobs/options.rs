//! The headers with which a client submits a job.

use std::time::Duration;

use crate::api::{self, Code, Failure};
use crate::clock;
use crate::http::request_headers::RequestHead;
use crate::jobs::Timestamp;
use crate::jobs::webhooks::{WebhookSettings, check_target};

/// Maximum length of a label and of an idempotency key, in bytes.
const MAX_TEXT: usize = 255;

/// Minimum time to live, which is that of the clocks of stores.
const MIN_TTL: Duration = Duration::from_millis(1);

/// Maximum time that a job can wait, or be due in.
const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Whether the client prefers that the request runs as a job: `Prefer: respond-async`, as in RFC 7240.
pub(in crate::http) fn wants_job(request: &dyn RequestHead) -> bool {
    let values = request.header_values("prefer");
    let preferences = values.iter().flat_map(|value| value.split(|byte| *byte == b','));
    preferences.into_iter().any(|preference| {
        let name = preference.split(|byte| matches!(byte, b';' | b'=')).next();
        name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"respond-async"))
    })
}

/// Rejects a request that has the headers of a job and does not ask for one.
///
/// # Errors
/// It has such a header.
pub(in crate::http) fn reject_job_headers(request: &dyn RequestHead) -> Result<(), Failure> {
    api::reject_job_headers(|name| request.header(name), "the header `prefer: respond-async`")
}

/// The options of a job, except its priority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobOptions {
    pub(super) ttl: Option<Duration>,
    pub(super) not_before: Option<StartTime>,
    pub(super) label: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) webhook_url: Option<String>,
}

/// The time before which a job does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartTime {
    pub(super) at: Timestamp,
    /// As the client has written it, which can be relative to now.
    pub(super) written: String,
}

impl JobOptions {
    /// Reads the headers of a request. None of them is repeated, which was checked together with the key.
    ///
    /// # Errors
    /// A header is invalid.
    pub(super) fn read(request: &dyn RequestHead, webhooks: &WebhookSettings) -> Result<Self, Failure> {
        let ttl = text(request, "x-job-ttl")?.map(parse_ttl).transpose()?;
        let not_before = text(request, "x-job-not-before")?.map(parse_time).transpose()?;
        Ok(Self {
            ttl,
            not_before,
            label: bounded_text(request, "x-job-label")?,
            idempotency_key: bounded_text(request, "idempotency-key")?,
            webhook_url: webhook_url(request, webhooks)?,
        })
    }
}

fn text<'a>(request: &'a dyn RequestHead, name: &'static str) -> Result<Option<&'a str>, Failure> {
    let value = request.header(name).map(std::str::from_utf8);
    let value = value
        .transpose()
        .map_err(|_| malformed(format!("header {name}: expected UTF-8 text")))?;
    Ok(value.map(|value| value.trim_matches([' ', '\t'])))
}

fn bounded_text(request: &dyn RequestHead, name: &'static str) -> Result<Option<String>, Failure> {
    let Some(value) = text(request, name)? else {
        return Ok(None);
    };
    if value.is_empty() || value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(malformed(format!(
            "header {name}: expected 1 to {MAX_TEXT} bytes of text without control characters, got {} bytes",
            value.len()
        )));
    }
    Ok(Some(value.to_owned()))
}

fn webhook_url(request: &dyn RequestHead, settings: &WebhookSettings) -> Result<Option<String>, Failure> {
    let Some(url) = text(request, "x-webhook-url")? else {
        return Ok(None);
    };
    check_target(url, settings).map_err(|error| malformed(format!("header x-webhook-url: {error}")))?;
    Ok(Some(url.to_owned()))
}

fn parse_ttl(value: &str) -> Result<Duration, Failure> {
    let invalid = || {
        malformed(format!(
            "invalid value `{}` for header x-job-ttl: expected a duration from 1ms to a year, such as 10m or 24h, or a \
             number of seconds",
            excerpt(value)
        ))
    };
    let ttl = duration(value).ok_or_else(invalid)?;
    match (MIN_TTL..=MAX_WAIT).contains(&ttl) {
        true => Ok(ttl),
        false => Err(invalid()),
    }
}

fn parse_time(value: &str) -> Result<StartTime, Failure> {
    let invalid = || {
        malformed(format!(
            "invalid value `{}` for header x-job-not-before: expected a time of the coming year, such as \
             2027-01-31T12:00:00Z, or a duration from now, such as 10m",
            excerpt(value)
        ))
    };
    let now = Timestamp::from_millis(clock::unix_millis());
    let time = match humantime::parse_rfc3339_weak(value) {
        Ok(time) => {
            let since = time
                .duration_since(std::time::UNIX_EPOCH)
                .map_err(|_| invalid())?;
            Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        }
        Err(_) => now.plus(duration(value).ok_or_else(invalid)?),
    };
    match time.since(now) <= MAX_WAIT {
        true => Ok(StartTime {
            at: time,
            written: value.to_owned(),
        }),
        false => Err(invalid()),
    }
}

/// Parses a duration with units, or a number of seconds.
pub(super) fn duration(value: &str) -> Option<Duration> {
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(value).ok(),
    }
}

/// The start of a text from a client, for a message.
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

pub(super) fn malformed(message: impl Into<String>) -> Failure {
    Failure::new(Code::Malformed, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::Client;
    use crate::api::traces::Trace;
    use crate::jobs::webhooks::{HostPattern, WebhookSecret};

    /// Settings with webhooks to these hosts.
    fn webhooks(allowed: &[&str]) -> WebhookSettings {
        WebhookSettings {
            allowed_hosts: allowed.iter().map(|host| HostPattern::parse(host)).collect(),
            secret: WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ..WebhookSettings::disabled()
        }
    }

    struct Headers(Vec<(&'static str, &'static str)>);

    impl RequestHead for Headers {
        fn path(&self) -> &str {
            "/v1/models/m/predict"
        }

        fn header(&self, name: &'static str) -> Option<&[u8]> {
            let found = self.0.iter().find(|(found, _)| *found == name);
            found.map(|(_, value)| value.as_bytes())
        }

        fn header_values(&self, name: &'static str) -> Vec<&[u8]> {
            let found = self.0.iter().filter(|(found, _)| *found == name);
            found.map(|(_, value)| value.as_bytes()).collect()
        }

        fn request_id(&self) -> Option<Arc<str>> {
            None
        }

        fn trace(&self) -> Trace {
            Trace::default()
        }

        fn client(&self) -> Client {
            Client::default()
        }
    }

    #[test]
    fn a_job_is_wanted_if_one_of_the_preferences_is_respond_async() {
        for (values, wanted) in [
            (&["respond-async"][..], true),
            (&["Respond-Async"], true),
            (&["return=minimal, respond-async, wait=10"], true),
            (&["return=minimal", "respond-async;foo=bar"], true),
            (&["respond-async=true"], true),
            (&[], false),
            (&["wait=10"], false),
            (&["respond-asynchronously"], false),
            (&["foo=respond-async"], false),
        ] {
            let headers = Headers(values.iter().map(|value| ("prefer", *value)).collect());
            assert_eq!(wants_job(&headers), wanted, "{values:?}");
        }
    }

    #[test]
    fn options_are_read_from_headers() {
        let headers = Headers(vec![
            ("x-job-ttl", "10m"),
            ("x-job-not-before", "1970-01-02T00:00:00Z"),
            ("x-job-label", " nightly "),
            ("idempotency-key", "k-1"),
            ("x-webhook-url", "https://hooks.example.com/jobs?a=b"),
        ]);
        let expected = JobOptions {
            ttl: Some(Duration::from_secs(600)),
            not_before: Some(StartTime {
                at: Timestamp::from_millis(24 * 60 * 60 * 1000),
                written: "1970-01-02T00:00:00Z".to_owned(),
            }),
            label: Some("nightly".to_owned()),
            idempotency_key: Some("k-1".to_owned()),
            webhook_url: Some("https://hooks.example.com/jobs?a=b".to_owned()),
        };
        assert_eq!(JobOptions::read(&headers, &webhooks(&[])), Ok(expected));
        for settings in [webhooks(&[]), WebhookSettings::disabled()] {
            let options = JobOptions::read(&Headers(Vec::new()), &settings);
            assert_eq!(options, Ok(JobOptions::default()));
        }
    }

    #[test]
    fn an_invalid_option_is_rejected_with_its_header() {
        for (name, value) in [
            ("x-job-ttl", "soon"),
            ("x-job-ttl", "0"),
            ("x-job-ttl", "1ns"),
            ("x-job-ttl", "NaN"),
            ("x-job-ttl", "-1"),
            ("x-job-ttl", "10y"),
            ("x-job-not-before", "tomorrow"),
            ("x-job-not-before", "-10m"),
            ("x-job-not-before", "1e300"),
            ("x-job-not-before", "9999-01-01T00:00:00Z"),
            ("x-job-label", ""),
            ("x-job-label", "\u{85}a"),
            ("idempotency-key", "a\u{7}b"),
            ("x-webhook-url", "example.com"),
        ] {
            let failure = JobOptions::read(&Headers(vec![(name, value)]), &webhooks(&[])).expect_err(value);
            assert_eq!(failure.code, Code::Malformed, "{name}: {value}");
            assert!(failure.message.contains(name), "{}", failure.message);
        }
    }

    #[test]
    fn a_webhook_that_is_not_allowed_is_rejected_with_the_setting_that_decides() {
        for (url, settings, message) in [
            (
                "https://hooks.example.com",
                WebhookSettings::disabled(),
                "header x-webhook-url: webhooks are disabled on this server: the operator can enable them with \
                 `webhook_secret` in [jobs]; otherwise, poll the job",
            ),
            (
                "https://10.0.0.1/",
                webhooks(&[]),
                "header x-webhook-url: the host `10.0.0.1` has a private address: expected a public address, or a host in \
                 `webhook_allowed_hosts` in [jobs]",
            ),
            (
                "http://hooks.example.com",
                webhooks(&[]),
                "header x-webhook-url: expected an https URL: http is allowed only for hosts in `webhook_allowed_hosts` in \
                 [jobs]",
            ),
            (
                "https://other.example.com",
                webhooks(&["hooks.example.com"]),
                "header x-webhook-url: the host `other.example.com` is not allowed: expected one of \
                 `webhook_allowed_hosts` in [jobs]",
            ),
        ] {
            let failure = JobOptions::read(&Headers(vec![("x-webhook-url", url)]), &settings).expect_err(url);
            assert_eq!(
                (failure.code, failure.message.as_str()),
                (Code::Malformed, message)
            );
        }
    }

    #[test]
    fn headers_of_jobs_are_rejected_without_the_preference() {
        let failure = reject_job_headers(&Headers(vec![("x-job-ttl", "1m")])).expect_err("it has a header");
        assert!(
            failure.message.contains("x-job-ttl requires"),
            "{}",
            failure.message
        );
        assert_eq!(
            reject_job_headers(&Headers(vec![("idempotency-key", "1")])),
            Ok(())
        );
    }
}
