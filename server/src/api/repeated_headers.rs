//! Rejects requests that repeat a header which has one value: nothing says which of the values the client means.

use super::failure::{Code, Failure};

/// The headers of which the server reads one value, over HTTP and gRPC.
///
/// Lists such as `accept` can be repeated. So can headers to which each proxy adds a value, such as `x-forwarded-proto` and
/// `x-request-id`. A trace with several parents is not continued, as the specification of trace contexts requires.
const SINGLE_VALUED: [&str; 14] = [
    "api-key",
    "authorization",
    "content-type",
    "endpoint-load-metrics-format",
    "grpc-timeout",
    "host",
    "idempotency-key",
    "inference-header-content-length",
    "x-job-label",
    "x-job-not-before",
    "x-job-ttl",
    "x-priority",
    "x-request-timeout",
    "x-webhook-url",
];

/// Rejects a request that repeats a header which has one value. `repeats_any` states whether any header is repeated, which most
/// requests do not, and `count` returns the number of values of a header.
///
/// # Errors
/// There is such a header.
pub fn reject_repeated_headers(
    repeats_any: bool,
    count: impl Fn(&'static str) -> usize,
) -> Result<(), Failure> {
    if !repeats_any {
        return Ok(());
    }
    let mut counts = SINGLE_VALUED.into_iter().map(|name| (name, count(name)));
    match counts.find(|(_, count)| *count > 1) {
        None => Ok(()),
        Some((name, count)) => Err(Failure::new(
            Code::Malformed,
            format!("header {name}: expected one value, got {count}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_one_value_must_not_be_repeated() {
        for name in SINGLE_VALUED {
            let repeated = |asked| if asked == name { 3 } else { 1 };
            let failure = reject_repeated_headers(true, repeated).expect_err(name);
            assert_eq!(failure.code, Code::Malformed);
            assert_eq!(
                failure.message,
                format!("header {name}: expected one value, got 3")
            );
        }
        assert_eq!(reject_repeated_headers(true, |_| 1), Ok(()));
        let lists = |asked| usize::from(["accept", "cookie", "prefer"].contains(&asked)) * 2;
        assert_eq!(reject_repeated_headers(true, lists), Ok(()));
    }
}
