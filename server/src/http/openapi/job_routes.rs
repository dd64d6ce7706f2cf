//! The routes of durable jobs, and how every operation that runs a task accepts one.

use serde_json::{Value as Json, json};

use super::components::Components;
use super::native_routes::binary;
use super::operations::{Operation, Operations, json_response};
use super::{Access, JOBS};
use crate::jobs::WebhookState;

/// Names of the states of jobs.
const STATES: [&str; 6] = ["queued", "running", "succeeded", "failed", "cancelled", "expired"];

/// Error statuses of a submission, beyond those of the synchronous call.
pub(super) const SUBMIT_FAILURES: &[u16] = &[409, 507];

/// Adds the schema of a job.
pub(super) fn add_schema(components: &mut Components) -> Json {
    let required = [
        "id",
        "object",
        "state",
        "model",
        "task",
        "label",
        "priority",
        "attempts",
        "max_attempts",
        "items",
        "items_done",
        "created_at",
        "started_at",
        "finished_at",
        "not_before",
        "expires_at",
        "can_retry",
        "result_status",
        "error",
        "webhook",
    ];
    components.add(
        "Job",
        json!({
            "type": "object",
            "required": required,
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "object": {"type": "string", "const": "job"},
                "state": {"type": "string", "enum": STATES},
                "model": {"type": "string"},
                "task": {"type": "string"},
                "label": {"type": ["string", "null"]},
                "priority": {"type": "string", "enum": ["high", "normal", "low"]},
                "attempts": count("How often the job was started."),
                "max_attempts": count("How often it may be started."),
                "items": count("Number of items."),
                "items_done": count("Number of items that have an outcome, in the current attempt; updated about once per second."),
                "created_at": {"type": "string", "format": "date-time"},
                "started_at": time("When the last attempt started."),
                "finished_at": time("When the job ended."),
                "not_before": time("The job does not start before this time."),
                "expires_at": time("The job expires if it has not started by this time."),
                "can_retry": {"type": "boolean", "description": "Whether the job has used all of its attempts, so that it can be retried."},
                "result_status": {"type": ["integer", "null"], "description": "HTTP status of the result, if there is one."},
                "error": {
                    "description": "Why the job failed; for other states, why its last attempt did.",
                    "type": ["object", "null"],
                    "required": ["code", "message"],
                    "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
                },
                "webhook": webhook(),
            },
        }),
    )
}

/// The schema of the delivery of a message to the receiver of a job.
fn webhook() -> Json {
    let states = WebhookState::ALL.map(WebhookState::name);
    json!({
        "description": "Delivery of the message to `x-webhook-url`, if the job has one.",
        "type": ["object", "null"],
        "required": [
            "state", "attempts", "last_attempt_at", "last_status", "last_error", "next_attempt_at", "delivered_at"
        ],
        "properties": {
            "state": {
                "type": "string",
                "enum": states,
                "description": "`waiting` until the job ends; `failed` if the message was abandoned.",
            },
            "attempts": count("How often the message was sent."),
            "last_attempt_at": time("When the last attempt ended."),
            "last_status": {
                "type": ["integer", "null"],
                "description": "HTTP status with which the receiver answered the last attempt.",
            },
            "last_error": {"type": ["string", "null"], "description": "Why the last attempt failed."},
            "next_attempt_at": time("When the message is sent next. While it is being sent, when that is repeated if the server dies."),
            "delivered_at": time("When the receiver accepted the message."),
        },
    })
}

fn time(description: &str) -> Json {
    json!({"type": ["string", "null"], "format": "date-time", "description": description})
}

fn count(description: &str) -> Json {
    json!({"type": "integer", "minimum": 0, "description": description})
}

/// The header with which a client asks for a job.
pub(super) fn preference() -> Json {
    json!({
        "name": "prefer",
        "in": "header",
        "required": false,
        "description": "`respond-async` stores the request as a durable job and replies with 202. The job can have the headers \
            `idempotency-key` (repeated submissions return the same job), `x-job-label`, `x-job-ttl` (maximum wait, such as \
            `10m`), `x-job-not-before` (a time, or a duration from now) and `x-webhook-url` (receives a signed message when \
            the job ends).",
        "schema": {"type": "string"},
    })
}

/// The response to a submission.
pub(super) fn accepted(job: &Json) -> Json {
    let mut response = json_response("The job is stored, and will run.", job);
    let header = |description: &str, example: &str| json!({"description": description, "schema": {"type": "string"}, "example": example});
    response["headers"] = json!({
        "Location": header("Path of the job.", "/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057"),
        "Preference-Applied": header("The preference that was applied.", "respond-async"),
    });
    response
}

/// Adds the routes below `/v1/jobs`.
pub(super) fn add(operations: &mut Operations, components: &mut Components, job: &Json) {
    let list = components.add(
        "JobList",
        json!({
            "type": "object",
            "required": ["object", "data", "next_cursor"],
            "properties": {
                "object": {"type": "string", "const": "list"},
                "data": {"type": "array", "items": job},
                "next_cursor": {"type": ["string", "null"], "description": "Value of `cursor` for the next page; null on the last one."},
            },
        }),
    );
    let deleted = components.add(
        "DeletedJob",
        json!({
            "type": "object",
            "required": ["id", "object", "deleted"],
            "properties": {
                "id": {"type": "string"},
                "object": {"type": "string", "const": "job"},
                "deleted": {"type": "boolean", "const": true},
            },
        }),
    );
    let query = |name: &str, description: &str, schema: Json| json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema});
    let path = || json!({"name": "job", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}});
    let operation = |method: &'static str,
                     path: &str,
                     id: &str,
                     summary: &str,
                     responses: Vec<(u16, Json)>,
                     failures: &'static [u16]| Operation {
        method,
        path: path.to_owned(),
        id: id.to_owned(),
        tag: JOBS,
        summary: summary.to_owned(),
        description: String::new(),
        parameters: Vec::new(),
        body: None,
        responses,
        failures,
        all_failed: None,
        access: Access::Client,
    };
    let mut states = STATES.to_vec();
    states.push("dead_letter");
    let jobs = vec![(200, json_response("The jobs, newest first.", &list))];
    operations.add(Operation {
        description: "Lists the jobs of the API key; the admin key lists all jobs.".to_owned(),
        parameters: vec![
            query(
                "state",
                "Only jobs in this state. `dead_letter`: failed jobs that can be retried.",
                json!({"type": "string", "enum": states}),
            ),
            query("model", "Only jobs of this model.", text()),
            query("label", "Only jobs with this label.", text()),
            query(
                "limit",
                "Maximum number of jobs.",
                json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
            ),
            query(
                "cursor",
                "`next_cursor` of the previous page.",
                json!({"type": "string", "format": "uuid"}),
            ),
        ],
        ..operation(
            "get",
            "/v1/jobs",
            "list jobs",
            "List jobs",
            jobs,
            &[400, 406, 503, 507],
        )
    });
    let one = vec![(200, json_response("The job.", job))];
    operations.add(Operation {
        parameters: vec![
            path(),
            query(
                "wait",
                "Maximum time to wait until the job has ended, up to 300 s.",
                json!({"type": "string", "pattern": "^([0-9]{1,2}(\\.[0-9]+)?s?|[0-9]{1,5}ms)$"}),
            ),
        ],
        ..operation(
            "get",
            "/v1/jobs/{job}",
            "get job",
            "Get the state of a job",
            one,
            &[400, 404, 406, 503, 507],
        )
    });
    let removed = json!({"anyOf": [job, deleted]});
    let removed = vec![(
        200,
        json_response(
            "The job, which is cancelled; or confirmation that a job that had ended was removed.",
            &removed,
        ),
    )];
    operations.add(Operation {
        parameters: vec![path()],
        ..operation(
            "delete",
            "/v1/jobs/{job}",
            "delete job",
            "Cancel a job, or remove one that has ended",
            removed,
            &[400, 404, 406, 409, 503, 507],
        )
    });
    let result = json!({
        "description": "What the synchronous call would have replied, in the format of its protocol; or an error about the job.",
        "content": {"application/json": {"schema": {}}, "application/octet-stream": {"schema": binary()}},
    });
    let statuses = [200, 400, 404, 413, 415, 422, 500, 503, 504];
    operations.add(Operation {
        description:
            "Replies with the status, the content type and the body of the synchronous call, which can be an error."
                .to_owned(),
        parameters: vec![path()],
        ..operation(
            "get",
            "/v1/jobs/{job}/result",
            "get job result",
            "Get the result of a job",
            statuses.map(|status| (status, result.clone())).to_vec(),
            &[406, 409, 410, 507],
        )
    });
    operations.add(Operation {
        parameters: vec![path()],
        ..operation(
            "post",
            "/v1/jobs/{job}/retry",
            "retry job",
            "Queue a job again that has used all of its attempts",
            vec![(202, accepted(job))],
            &[400, 404, 406, 409, 503, 507],
        )
    });
}

/// A text without control characters, which no model or label contains.
fn text() -> Json {
    json!({"type": "string", "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"})
}
