//! Submits a request as a job.

use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use actix_web::HttpResponse;
use actix_web::dev::Payload;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use bytes::Bytes;

use super::document::{describe, priority_name};
use super::failures::{of_store, of_submission};
use super::options::JobOptions;
use super::request::{CheckedHead, STORED_HEADERS, payload};
use crate::api::{Checked, Code, Execution, Failure};
use crate::batching::Priority;
use crate::clock;
use crate::digest::Digest;
use crate::http::error_format::ErrorFormat;
use crate::http::offload::{MAX_INLINE_BODY, run_by_size};
use crate::http::openapi::{path_segment, path_segments};
use crate::http::request_body::receive;
use crate::http::request_headers::RequestHead;
use crate::http::respond;
use crate::http::server::Shared;
use crate::http::task_routes::{self, TaskPath};
use crate::jobs::{Header, IdempotencyKey, JobRecord, NewJob, Owner, StoredRequest, Submission};
use crate::routes::{self, TaskRoute};

/// The value of `preference-applied`.
const APPLIED: HeaderValue = HeaderValue::from_static("respond-async");

/// Stores a request to a route that runs a task. The request is checked as if it ran now.
pub(in crate::http) async fn submit(
    task: TaskRoute,
    request: &dyn RequestHead,
    payload: Payload,
    shared: &Shared,
    path: TaskPath,
) -> HttpResponse {
    match try_submit(task, request, payload, shared, path).await {
        Ok(response) => response,
        Err(failure) => respond::failure_in(ErrorFormat::of_task(task), request, &failure),
    }
}

async fn try_submit(
    task: TaskRoute,
    request: &dyn RequestHead,
    sent: Payload,
    shared: &Shared,
    path: TaskPath,
) -> Result<HttpResponse, Failure> {
    let jobs = &shared.jobs;
    if !jobs.settings.enabled {
        let message = "jobs are disabled on this server; send the request without `prefer: respond-async`";
        return Err(Failure::new(Code::Forbidden, message));
    }
    let options = JobOptions::read(request, &jobs.webhooks)?;
    let body = receive(request, sent, &shared.receive, clock::now(), 0).await?;
    let max_size = jobs.settings.max_job_size;
    if body.len() > max_size {
        let message = format!(
            "the body of a job is too large: got {} bytes, expected at most {max_size} bytes",
            body.len()
        );
        return Err(Failure::new(Code::TooLarge, message));
    }
    let stored = stored_request(task, request, &path, body.clone());
    let checked = match check(task, request, body, shared, path).await {
        Ok(checked) => checked,
        Err(response) => return Ok(response),
    };
    let job = new_job(checked, options, stored, request, jobs.settings.max_attempts).await?;
    match jobs.submit(job).await.map_err(|error| of_store(&error))? {
        Submission::Created(record) | Submission::Existing(record) => Ok(accepted(&record)),
        rejected => Err(of_submission(&rejected)),
    }
}

/// Checks a request as far as that is possible without running it. An error is the reply of the synchronous call.
async fn check(
    task: TaskRoute,
    request: &dyn RequestHead,
    body: Bytes,
    shared: &Shared,
    path: TaskPath,
) -> Result<Checked, HttpResponse> {
    let checked = Arc::new(OnceLock::new());
    let head = CheckedHead {
        request,
        execution: Execution::Check(checked.clone()),
    };
    let response = task_routes::run(task, &head, payload(body), shared, path).await;
    checked.get().cloned().ok_or(response)
}

/// The request as the job will repeat it.
fn stored_request(task: TaskRoute, request: &dyn RequestHead, path: &TaskPath, body: Bytes) -> StoredRequest {
    let header = |name: &'static str| {
        let value = match name {
            "x-request-id" => request.request_id()?.as_bytes().to_vec(),
            name => request.header(name)?.to_vec(),
        };
        let name = name.to_owned();
        Some(Header { name, value })
    };
    StoredRequest {
        method: "POST".to_owned(),
        path: canonical_path(task, request.path(), path),
        query: None,
        headers: STORED_HEADERS.into_iter().filter_map(header).collect(),
        content_type: request
            .header("content-type")
            .map(|value| String::from_utf8_lossy(value).into_owned()),
        body,
    }
}

/// The path of the task that a request names, without encoded characters and not that of a short route, which can change.
fn canonical_path(task: TaskRoute, path: &str, values: &TaskPath) -> String {
    let is_plain = !path.contains('%') && routes::find(path).is_some_and(|route| route.task == Some(task));
    if is_plain {
        return path.to_owned();
    }
    // The name of a model can have a slash, which is not encoded.
    let model = path_segments(&values.model);
    let versions = values.version.as_ref().map_or_else(String::new, |version| {
        format!("/versions/{}", path_segment(version))
    });
    match task {
        TaskRoute::Task => format!("/v1/models/{model}/tasks/{}/predict", path_segment(&values.task)),
        TaskRoute::Default => format!("/v1/models/{model}/predict"),
        TaskRoute::V1 => format!("/v1/models/{model}{versions}:predict"),
        TaskRoute::V2 => format!("/v2/models/{model}{versions}/infer"),
        TaskRoute::Embeddings if !model.is_empty() => format!("/openai/deployments/{model}/embeddings"),
        TaskRoute::Embeddings => "/v1/embeddings".to_owned(),
        TaskRoute::Rerank if model.is_empty() => "/v1/rerank".to_owned(),
        TaskRoute::Score => "/v1/score".to_owned(),
        TaskRoute::TeiRoot => format!("/{model}"),
        other => {
            let pattern = routes::tasks().find(|(_, task)| *task == other);
            let pattern = pattern.and_then(|(route, _)| route.patterns.first().copied());
            match model.is_empty() {
                true => pattern.unwrap_or_default().to_owned(),
                false => format!("/{model}{}", pattern.unwrap_or_default()),
            }
        }
    }
}

async fn new_job(
    checked: Checked,
    options: JobOptions,
    request: StoredRequest,
    head: &dyn RequestHead,
    max_attempts: u32,
) -> Result<NewJob, Failure> {
    let idempotency_key = match options.idempotency_key.clone() {
        None => None,
        Some(key) => {
            let (size, request) = (request.body.len(), request.clone());
            let wanted = (checked.priority, options.clone());
            let request = run_by_size(size, MAX_INLINE_BODY, move || digest(&request, &wanted)).await?;
            Some(IdempotencyKey { key, request })
        }
    };
    Ok(NewJob {
        request,
        model: checked.model,
        task: checked.task,
        owner: head.client().holder().map(Owner::new),
        priority: checked.priority,
        ttl: options.ttl,
        not_before: options.not_before.map(|time| time.at),
        label: options.label,
        idempotency_key,
        webhook_url: options.webhook_url,
        max_attempts,
        items: u32::try_from(checked.items).unwrap_or(u32::MAX),
    })
}

/// Digest of everything that the client has asked for: what determines the reply, and the options of the job.
fn digest(request: &StoredRequest, (priority, options): &(Priority, JobOptions)) -> Digest {
    let mut head = format!("{}\n{}\n", request.method, request.path).into_bytes();
    let of_content = request
        .content_type
        .iter()
        .map(|value| ("content-type", value.as_bytes()));
    // Each repetition has another id.
    let others = request
        .headers
        .iter()
        .filter(|header| header.name != "x-request-id");
    let others = others.map(|header| (header.name.as_str(), header.value.as_slice()));
    let ttl = options.ttl.map(|ttl| ttl.as_millis().to_string());
    let of_job = [
        ("x-priority", Some(priority_name(*priority))),
        ("x-job-ttl", ttl.as_deref()),
        (
            "x-job-not-before",
            options.not_before.as_ref().map(|time| time.written.as_str()),
        ),
        ("x-job-label", options.label.as_deref()),
        ("x-webhook-url", options.webhook_url.as_deref()),
    ];
    let of_job = of_job
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.as_bytes())));
    for (name, value) in of_content.chain(others).chain(of_job) {
        head.extend_from_slice(format!("{name}:{}:", value.len()).as_bytes());
        head.extend_from_slice(value);
    }
    head.push(b'\n');
    let whole = head.as_slice().chain(&*request.body);
    Digest::of_reader(whole).expect("reading memory cannot fail")
}

/// The reply to a job that was stored.
fn accepted(record: &JobRecord) -> HttpResponse {
    let mut response = respond::json(202, describe(record).to_string());
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", record.id)) {
        headers.insert(LOCATION, location);
    }
    headers.insert(HeaderName::from_static("preference-applied"), APPLIED);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_path_is_stored_in_its_plain_form() {
        let values = TaskPath {
            model: "m".to_owned(),
            task: "a".to_owned(),
            version: None,
        };
        for (task, sent, stored) in [
            (
                TaskRoute::Task,
                "/v1/models/%6D/tasks/a/predict",
                "/v1/models/m/tasks/a/predict",
            ),
            (
                TaskRoute::Default,
                "/v1/models/%6D/predict",
                "/v1/models/m/predict",
            ),
            (TaskRoute::V1, "/v1/models/%6D:predict", "/v1/models/m:predict"),
            (TaskRoute::V2, "/v2/models/%6D/infer", "/v2/models/m/infer"),
            (TaskRoute::Rerank, "/v2/rerank", "/v2/rerank"),
            (TaskRoute::Task, "/say", "/v1/models/m/tasks/a/predict"),
            (TaskRoute::TeiEmbed, "/m/embed", "/m/embed"),
            (TaskRoute::Rerank, "/m/rerank", "/m/rerank"),
            (TaskRoute::TeiEmbed, "/embed", "/embed"),
            (TaskRoute::TeiRoot, "/%6D", "/m"),
        ] {
            assert_eq!(canonical_path(task, sent, &values), stored);
        }
    }
}
