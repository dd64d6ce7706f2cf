//! Runs the requests of jobs through the handlers of synchronous calls, so that their replies are the same.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{MessageBody as _, to_bytes_limited};
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use actix_web::web::Data;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, LocalBoxFuture};

use super::request::{JobHead, payload};
use crate::api::{Code, Execution, Failure, Gate, ItemsOutcome, JobExecution};
use crate::engine::Progress;
use crate::http::server::Shared;
use crate::http::task_routes::{self, TaskPath};
use crate::jobs::{Attempt, Completion, Execute, Executed, Header, JobError, NotBegun, StoredReply};
use crate::routes::{self, Route, TaskRoute};

/// Header of a reply that is part of the result, other than `content-type`.
const RESULT_HEADER: &str = "inference-header-content-length";

/// Pause before a request that could not run is tried again, if its reply does not say.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// Runs the requests of jobs.
pub struct JobExecutor(pub(in crate::http) Data<Shared>);

impl Execute for JobExecutor {
    fn execute(&self, attempt: Arc<Attempt>) -> LocalBoxFuture<'static, Executed> {
        execute(self.0.clone(), attempt).boxed_local()
    }
}

/// Counts the attempt before the items start, and the items that have an outcome while it runs.
struct AttemptGate(Arc<Attempt>);

impl Gate for AttemptGate {
    fn pass(&self) -> BoxFuture<'_, Result<(), Failure>> {
        let begin = async {
            self.0.begin().await.map_err(|error| {
                let code = match error {
                    NotBegun::Lost => Code::Gone,
                    NotBegun::Store(_) => Code::Unavailable,
                };
                Failure::new(code, error.to_string())
            })
        };
        begin.boxed()
    }

    fn queued(&self, progress: Progress) {
        self.0.follow(move || progress.items_done());
    }
}

async fn execute(shared: Data<Shared>, attempt: Arc<Attempt>) -> Executed {
    let request = &attempt.request;
    let of_route = |route: &'static Route| Some((route.task?, TaskPath::read(route, &request.path)));
    let below_model = || {
        let (model, route) = routes::below_model(&request.path)?;
        Some((route.task?, TaskPath::of_model(model)))
    };
    // The name of a model alone.
    let model = || {
        let model = request.path.strip_prefix('/')?;
        Some((TaskRoute::TeiRoot, TaskPath::of_model(model)))
    };
    let found = routes::find_for(true, &request.path)
        .and_then(of_route)
        .or_else(below_model)
        .or_else(model);
    let Some((task, path)) = found else {
        let message = format!("the path `{}` of the job runs no task", request.path);
        return failed("not_found", message, None);
    };
    let execution = Arc::new(JobExecution::new(AttemptGate(attempt.clone())));
    let head = JobHead {
        request,
        execution: Execution::Job(execution.clone()),
    };
    let response = task_routes::run(task, &head, payload(request.body.clone()), &shared, path).await;
    let pause = pause_of(&response);
    let status = response.status().as_u16();
    let reply = match read(response, shared.jobs.settings.max_result_size).await {
        Ok(reply) => reply,
        Err(message) => return failed("result_too_large", message, None),
    };
    match execution.outcome() {
        Some(outcome) => after_run(outcome, reply, pause, attempt.is_last),
        None => match status {
            429 | 503 => Executed::Postponed(pause),
            // A reload has removed the model after the job was claimed.
            404 if shared.registry.snapshot().model(&attempt.model).is_none() => Executed::Postponed(pause),
            500.. => Executed::Interrupted(error_of(&reply)),
            _ => Executed::Done(of_reply(reply)),
        },
    }
}

/// The outcome of a request whose items have run.
fn after_run(outcome: &ItemsOutcome, reply: StoredReply, pause: Duration, is_last: bool) -> Executed {
    let Some(failure) = &outcome.failure else {
        return Executed::Done(of_reply(reply));
    };
    match failure.code {
        Code::Unavailable => Executed::Postponed(pause),
        Code::DeadlineExceeded | Code::OutOfMemory | Code::ModelFault | Code::Internal => {
            // Some items succeeded, and no other attempt is left for the rest.
            if is_last && reply.status < 400 {
                return Executed::Done(of_reply(reply));
            }
            Executed::Interrupted(JobError {
                code: failure.code.name().to_owned(),
                message: failure.client_message().into_owned(),
            })
        }
        _ => Executed::Done(of_reply(reply)),
    }
}

fn of_reply(reply: StoredReply) -> Completion {
    if reply.status < 400 {
        return Completion::Succeeded(reply);
    }
    Completion::Failed {
        error: error_of(&reply),
        reply: Some(reply),
    }
}

fn failed(code: &str, message: String, reply: Option<StoredReply>) -> Executed {
    let code = code.to_owned();
    Executed::Done(Completion::Failed {
        error: JobError { code, message },
        reply,
    })
}

/// The error that a reply describes, in the format of any protocol.
fn error_of(reply: &StoredReply) -> JobError {
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let error = &json["error"];
    let code = Code::ALL.into_iter().find(|code| code.status() == reply.status);
    let code = error["code"]
        .as_str()
        .or(code.map(Code::name))
        .unwrap_or("failed");
    let message = error["message"].as_str().or_else(|| error.as_str());
    JobError {
        code: code.to_owned(),
        message: message.unwrap_or("the request failed").to_owned(),
    }
}

/// The time after which a client of this reply would try again.
fn pause_of(response: &HttpResponse) -> Duration {
    let header = response.headers().get(RETRY_AFTER).map(HeaderValue::to_str);
    let seconds = header.and_then(Result::ok).and_then(|text| text.parse().ok());
    seconds.map_or(DEFAULT_PAUSE, Duration::from_secs)
}

async fn read(response: HttpResponse, max_size: usize) -> Result<StoredReply, String> {
    let header = |name: &str| response.headers().get(name).map(HeaderValue::as_bytes);
    let content_type = header(CONTENT_TYPE.as_str()).map(|value| String::from_utf8_lossy(value).into_owned());
    let of_result = header(RESULT_HEADER).map(|value| Header {
        name: RESULT_HEADER.to_owned(),
        value: value.to_vec(),
    });
    let status = response.status().as_u16();
    let too_large = || format!("the result is larger than {max_size} bytes (`max_result_size` in [jobs])");
    let body = match response.into_body().try_into_bytes() {
        Ok(body) if body.len() > max_size => return Err(too_large()),
        Ok(body) => body,
        Err(stream) => match to_bytes_limited(stream, max_size).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(format!("the result cannot be read: {error}")),
            Err(_) => return Err(too_large()),
        },
    };
    Ok(StoredReply {
        status,
        content_type,
        headers: of_result.into_iter().collect(),
        body,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn reply(status: u16, body: &'static str) -> StoredReply {
        StoredReply {
            status,
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn outcome(code: Option<Code>) -> ItemsOutcome {
        ItemsOutcome {
            succeeded: 1,
            failure: code.map(|code| Failure::new(code, "it failed")),
        }
    }

    #[test]
    fn an_attempt_is_repeated_only_if_that_can_change_its_outcome() {
        let run =
            |code, status, is_last| after_run(&outcome(code), reply(status, "{}"), DEFAULT_PAUSE, is_last);
        let succeeded = Executed::Done(Completion::Succeeded(reply(200, "{}")));
        let interrupted = |code: Code| {
            Executed::Interrupted(JobError {
                code: code.name().to_owned(),
                message: "it failed".to_owned(),
            })
        };
        assert_eq!(run(None, 200, false), succeeded);
        assert_eq!(run(Some(Code::InvalidInput), 200, false), succeeded);
        for code in [Code::ModelFault, Code::OutOfMemory, Code::DeadlineExceeded] {
            assert_eq!(run(Some(code), 200, false), interrupted(code));
            assert_eq!(run(Some(code), 500, true), interrupted(code));
            assert_eq!(
                run(Some(code), 200, true),
                succeeded,
                "the other items are not lost"
            );
        }
        assert_eq!(
            run(Some(Code::Unavailable), 503, false),
            Executed::Postponed(DEFAULT_PAUSE)
        );
        assert!(matches!(
            run(Some(Code::InvalidInput), 422, false),
            Executed::Done(Completion::Failed { reply: Some(_), .. })
        ));
    }

    #[test]
    fn the_error_of_a_reply_is_found_in_the_format_of_every_protocol() {
        for (status, body, code, message) in [
            (
                422,
                r#"{"error":{"code":"invalid_input","message":"no"}}"#,
                "invalid_input",
                "no",
            ),
            (400, r#"{"error":"no"}"#, "malformed_request", "no"),
            (
                413,
                r#"{"error":"no","error_type":"Validation","message":"no"}"#,
                "body_too_large",
                "no",
            ),
            (418, "tea", "failed", "the request failed"),
        ] {
            let error = error_of(&reply(status, body));
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message));
        }
    }
}
