//! The parameters in the query of the routes below `/v1/jobs`.

use std::str::FromStr as _;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Query;

use super::document::state_name;
use super::options::{duration, excerpt, malformed};
use crate::api::Failure;
use crate::jobs::{JobId, JobState};

/// Maximum time that a request waits for a job.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Number of jobs in a list: the default, and the maximum.
pub(super) const LIST_LIMIT: (u32, u32) = (100, 1000);

/// The parameters of the query. Each has one value.
pub(super) fn query(request: &HttpRequest) -> Result<Vec<(String, String)>, Failure> {
    let parameters = Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map(Query::into_inner)
        .map_err(|error| malformed(format!("invalid query: {error}")))?;
    for (index, (name, _)) in parameters.iter().enumerate() {
        if parameters[..index].iter().any(|(other, _)| other == name) {
            let name = excerpt(name);
            return Err(malformed(format!("parameter `{name}` is given more than once")));
        }
    }
    Ok(parameters)
}

pub(super) fn expect_no_parameters(request: &HttpRequest) -> Result<(), Failure> {
    match query(request)?.first() {
        None => Ok(()),
        Some((name, _)) => Err(unknown_parameter(name, "none")),
    }
}

/// A text to filter by. No job has a control character there, and not every store can look for one.
pub(super) fn parse_text(name: &str, value: String) -> Result<String, Failure> {
    match value.chars().any(char::is_control) {
        false => Ok(value),
        true => Err(malformed(format!(
            "invalid value for parameter `{name}`: expected text without control characters"
        ))),
    }
}

pub(super) fn unknown_parameter(name: &str, known: &str) -> Failure {
    malformed(format!("unknown parameter `{}`: expected {known}", excerpt(name)))
}

pub(super) fn parse_wait(value: &str) -> Result<Duration, Failure> {
    match duration(value) {
        Some(wait) if wait <= MAX_WAIT => Ok(wait),
        _ => Err(malformed(format!(
            "invalid value `{}` for parameter `wait`: expected a duration of up to {} s, such as 30s",
            excerpt(value),
            MAX_WAIT.as_secs()
        ))),
    }
}

/// The states that a client means: several are separated by commas.
pub(in crate::http) fn parse_states(value: &str) -> Result<Vec<JobState>, Failure> {
    let mut states = Vec::new();
    for name in value.split(',').map(str::trim) {
        let named = JobState::ALL
            .into_iter()
            .filter(|state| state_name(*state) == name || state.name() == name);
        let before = states.len();
        states.extend(named);
        if states.len() == before {
            return Err(malformed(format!(
                "invalid value `{}` for parameter `state`: expected queued, running, succeeded, failed, dead_letter, \
                 cancelled or expired",
                excerpt(name)
            )));
        }
    }
    Ok(states)
}

pub(in crate::http) fn parse_cursor(value: &str) -> Result<JobId, Failure> {
    JobId::from_str(value).map_err(|_| {
        malformed(format!(
            "invalid value `{}` for parameter `cursor`: expected `next_cursor` of the previous page",
            excerpt(value)
        ))
    })
}

pub(super) fn parse_limit(value: &str) -> Result<u32, Failure> {
    let max = LIST_LIMIT.1;
    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| {
        malformed(format!(
            "invalid value `{}` for parameter `limit`: expected an integer from 1 to {max}",
            excerpt(value)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Code;

    #[test]
    fn a_client_does_not_have_to_know_why_a_job_failed() {
        assert_eq!(
            parse_states("failed"),
            Ok(vec![JobState::Failed, JobState::DeadLetter])
        );
        assert_eq!(parse_states("dead_letter"), Ok(vec![JobState::DeadLetter]));
        assert_eq!(
            parse_states("queued, running"),
            Ok(vec![JobState::Queued, JobState::Running])
        );
        let failure = parse_states("queued,done").expect_err("there is no such state");
        assert!(failure.message.contains("`done`"), "{}", failure.message);
    }

    #[test]
    fn parameters_have_limits() {
        assert_eq!(parse_wait("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_wait("0.5"), Ok(Duration::from_millis(500)));
        for value in ["301s", "-1", "long", ""] {
            assert_eq!(parse_wait(value).expect_err(value).code, Code::Malformed);
        }
        assert_eq!(parse_limit("1000"), Ok(1000));
        for value in ["0", "1001", "all"] {
            assert_eq!(parse_limit(value).expect_err(value).code, Code::Malformed);
        }
    }
}
