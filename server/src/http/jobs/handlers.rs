//! Handlers of the routes below `/v1/jobs`.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value as Json, json};
use tokio::sync::broadcast::Receiver;

use super::document::{describe, state_name};
use super::failures::of_store;
use super::options::excerpt;
use super::parameters::{
    LIST_LIMIT, expect_no_parameters, parse_cursor, parse_limit, parse_states, parse_text, parse_wait, query,
    unknown_parameter,
};
use crate::api::{Client, Code, Failure};
use crate::clock;
use crate::http::request_headers::RequestHead as _;
use crate::http::respond;
use crate::http::server::Shared;
use crate::jobs::{
    JobChange, JobFilter, JobId, JobRecord, JobState, JobStore, Owner, Removal, StoredReply, Verdict, Viewer,
};

type Outcome = Result<HttpResponse, Failure>;

/// `GET /v1/jobs`
pub(in crate::http) async fn list(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    answer(&request, try_list(&request, &shared).await)
}

/// `GET` and `DELETE /v1/jobs/{job}`
pub(in crate::http) async fn job(
    request: HttpRequest,
    shared: Data<Shared>,
    id: Path<String>,
) -> HttpResponse {
    let outcome = match *request.method() {
        Method::DELETE => try_delete(&request, &shared, &id).await,
        _ => try_get(&request, &shared, &id).await,
    };
    answer(&request, outcome)
}

/// `GET /v1/jobs/{job}/result`
pub(in crate::http) async fn result(
    request: HttpRequest,
    shared: Data<Shared>,
    id: Path<String>,
) -> HttpResponse {
    answer(&request, try_result(&request, &shared, &id).await)
}

/// `POST /v1/jobs/{job}/retry`
pub(in crate::http) async fn retry(
    request: HttpRequest,
    shared: Data<Shared>,
    id: Path<String>,
) -> HttpResponse {
    answer(&request, try_retry(&request, &shared, &id).await)
}

fn answer(request: &HttpRequest, outcome: Outcome) -> HttpResponse {
    outcome.unwrap_or_else(|failure| respond::failure(request, &failure))
}

/// The jobs that a client can see: those of its key, or all for the administrator and without keys.
pub(in crate::http) fn viewer(client: &Client) -> Viewer {
    match client.holder() {
        Some(holder) if !client.is_admin() => Viewer::Owner(Owner::new(holder)),
        _ => Viewer::All,
    }
}

/// The store. `None` if jobs are disabled.
pub(in crate::http) async fn store(shared: &Shared) -> Result<Option<Arc<dyn JobStore>>, Failure> {
    shared.jobs.store().await.map_err(|error| of_store(&error))
}

/// The store and the id of a job. There are no jobs without a store.
async fn find_store(shared: &Shared, id: &str) -> Result<(Arc<dyn JobStore>, JobId), Failure> {
    let parsed = JobId::from_str(id).map_err(|_| unknown(id))?;
    let store = store(shared).await?.ok_or_else(|| unknown(id))?;
    Ok((store, parsed))
}

fn unknown(id: &str) -> Failure {
    let message = format!(
        "unknown job `{}`; finished jobs are removed after some time",
        excerpt(id)
    );
    Failure::new(Code::NotFound, message)
}

async fn find(store: &dyn JobStore, id: JobId, viewer: &Viewer) -> Result<JobRecord, Failure> {
    let found = store.get(id, viewer).await.map_err(|error| of_store(&error))?;
    found.ok_or_else(|| unknown(&id.to_string()))
}

fn one(status: u16, record: &JobRecord) -> HttpResponse {
    respond::json(status, describe(record).to_string())
}

async fn try_get(request: &HttpRequest, shared: &Shared, id: &str) -> Outcome {
    let mut wait = Duration::ZERO;
    for (name, value) in query(request)? {
        match name.as_str() {
            "wait" => wait = parse_wait(&value)?,
            _ => return Err(unknown_parameter(&name, "`wait`")),
        }
    }
    let (store, id) = find_store(shared, id).await?;
    let record = wait_for(&*store, shared, (id, &viewer(&request.client())), wait).await?;
    Ok(one(200, &record))
}

/// Waits until a job has ended, `wait` is over, or the server shuts down. Returns the job as it is then.
async fn wait_for(
    store: &dyn JobStore,
    shared: &Shared,
    (id, viewer): (JobId, &Viewer),
    wait: Duration,
) -> Result<JobRecord, Failure> {
    let deadline = tokio::time::Instant::from_std(clock::now() + wait);
    // Before the job is read, so that no change is missed.
    let mut changes = store.changes();
    loop {
        let record = find(store, id, viewer).await?;
        if record.state.is_final() || wait.is_zero() {
            return Ok(record);
        }
        tokio::select! {
            () = changed(&mut changes, id) => {}
            () = tokio::time::sleep_until(deadline) => return find(store, id, viewer).await,
            () = shared.jobs.stopping() => return Ok(record),
        }
    }
}

/// Waits for a change that can be the end of a job.
async fn changed(changes: &mut Receiver<JobChange>, id: JobId) {
    loop {
        match changes.recv().await {
            Ok(JobChange::Ended(ended, _)) if ended != id => {}
            Ok(JobChange::Queued { .. } | JobChange::Started(_)) => {}
            Ok(JobChange::Ended(..) | JobChange::Unknown) => return,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => return,
            // The store was closed.
            Err(tokio::sync::broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn try_list(request: &HttpRequest, shared: &Shared) -> Outcome {
    let mut filter = JobFilter::default();
    let (mut cursor, mut limit) = (None, LIST_LIMIT.0);
    for (name, value) in query(request)? {
        match name.as_str() {
            "state" => filter.states = parse_states(&value)?,
            "model" => filter.model = Some(parse_text("model", value)?),
            "label" => filter.label = Some(parse_text("label", value)?),
            "cursor" => cursor = Some(parse_cursor(&value)?),
            "limit" => limit = parse_limit(&value)?,
            _ => {
                let known = "`state`, `model`, `label`, `cursor` or `limit`";
                return Err(unknown_parameter(&name, known));
            }
        }
    }
    let Some(store) = store(shared).await? else {
        return Ok(page(Vec::new(), None));
    };
    let viewer = viewer(&request.client());
    let found = store.list(&filter, &viewer, cursor, limit).await;
    let found = found.map_err(|error| of_store(&error))?;
    Ok(page(found.jobs.iter().map(describe).collect(), found.next))
}

fn page(jobs: Vec<Json>, next: Option<JobId>) -> HttpResponse {
    let next = next.map(|id| id.to_string());
    let body = json!({"object": "list", "data": jobs, "next_cursor": next});
    respond::json(200, body.to_string())
}

async fn try_delete(request: &HttpRequest, shared: &Shared, id: &str) -> Outcome {
    expect_no_parameters(request)?;
    let (store, id) = find_store(shared, id).await?;
    let viewer = viewer(&request.client());
    let record = find(&*store, id, &viewer).await?;
    if record.state.is_final() {
        let removal = store
            .remove(id, &viewer)
            .await
            .map_err(|error| of_store(&error))?;
        return match removal {
            Removal::Removed => {
                let body = json!({"id": id.to_string(), "object": "job", "deleted": true});
                Ok(respond::json(200, body.to_string()))
            }
            Removal::NotFound => Err(unknown(&id.to_string())),
            // It was retried meanwhile.
            Removal::NotFinal(state) => Err(conflict(id, state, "cancel it first, with the same request")),
        };
    }
    cancel_in(&*store, id, &viewer)
        .await
        .map(|record| one(200, &record))
}

/// Cancels a job. If it has ended meanwhile, it stays as it is.
async fn cancel_in(store: &dyn JobStore, id: JobId, viewer: &Viewer) -> Result<JobRecord, Failure> {
    let cancelled = store.cancel(id, viewer).await.map_err(|error| of_store(&error))?;
    match cancelled {
        Some(_) => find(store, id, viewer).await,
        None => Err(unknown(&id.to_string())),
    }
}

/// Cancels a job that has not ended.
///
/// # Errors
/// `NotFound` if the client cannot see the job; `Conflict` if it has ended.
#[cfg(feature = "ui")]
pub(in crate::http) async fn cancel(
    shared: &Shared,
    client: &Client,
    id: &str,
) -> Result<JobRecord, Failure> {
    let (store, id) = find_store(shared, id).await?;
    let viewer = viewer(client);
    let record = find(&*store, id, &viewer).await?;
    match record.state.is_final() {
        true => Err(conflict(id, record.state, "it has ended and cannot be cancelled")),
        false => cancel_in(&*store, id, &viewer).await,
    }
}

async fn try_retry(request: &HttpRequest, shared: &Shared, id: &str) -> Outcome {
    expect_no_parameters(request)?;
    let record = queue_again(shared, &request.client(), id).await?;
    let mut response = one(202, &record);
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{}", record.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Queues a job again that has used all of its attempts.
///
/// # Errors
/// `NotFound` if the client cannot see the job; `Conflict` if it cannot be retried.
pub(in crate::http) async fn queue_again(
    shared: &Shared,
    client: &Client,
    id: &str,
) -> Result<JobRecord, Failure> {
    let (store, id) = find_store(shared, id).await?;
    let viewer = viewer(client);
    let verdict = store.retry(id, &viewer).await.map_err(|error| of_store(&error))?;
    match verdict {
        None => Err(unknown(&id.to_string())),
        Some(Verdict::Applied(_)) => find(&*store, id, &viewer).await,
        Some(Verdict::Rejected(_)) => {
            let record = find(&*store, id, &viewer).await?;
            let why = "only a job that has used all of its attempts can be retried (`can_retry`)";
            Err(conflict(id, record.state, why))
        }
    }
}

fn conflict(id: JobId, state: JobState, hint: &str) -> Failure {
    Failure::new(
        Code::Conflict,
        format!("job {id} is {}: {hint}", state_name(state)),
    )
}

async fn try_result(request: &HttpRequest, shared: &Shared, id: &str) -> Outcome {
    expect_no_parameters(request)?;
    let (store, id) = find_store(shared, id).await?;
    let viewer = viewer(&request.client());
    let record = find(&*store, id, &viewer).await?;
    if !record.state.is_final() {
        let hint = "it has no result yet; wait for it with `?wait=30s` at the job";
        return Err(conflict(id, record.state, hint));
    }
    let reply = store.reply(id, &viewer).await.map_err(|error| of_store(&error))?;
    match reply {
        Some(reply) => Ok(synchronous(reply)),
        None => {
            let why = record
                .error
                .map_or_else(String::new, |error| format!(": {}", error.message));
            let message = format!("job {id} is {} and has no result{why}", state_name(record.state));
            Err(Failure::new(Code::Gone, message))
        }
    }
}

/// The reply of the synchronous call.
fn synchronous(reply: StoredReply) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status).body(reply.body);
    let content_type = reply.content_type.map(String::into_bytes);
    let headers = reply
        .headers
        .into_iter()
        .map(|header| (header.name, header.value));
    let content_type = content_type.map(|value| (CONTENT_TYPE.as_str().to_owned(), value));
    for (name, value) in headers.chain(content_type) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_str(&name), HeaderValue::from_bytes(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
