//! The service layer, which all protocols share: addressing, request options, conversion between tensors and items,
//! model metadata, API keys, sessions of browsers, the live state, the access log, the log of slow requests, traces, and error codes.
//!
//! It does not know wire formats or sockets. `http` and `grpc` depend on it and never on each other.

pub mod access_log;
mod api_keys;
mod call;
mod decoding;
mod execution;
mod failure;
pub mod live;
pub mod load_report;
pub mod model_control;
mod model_explanation;
mod model_view;
pub mod open_inference;
mod repeated_headers;
mod request_options;
pub mod request_parameters;
mod request_record;
mod slow_requests;
mod task_role;
mod telemetry;
pub mod tensors;
#[cfg_attr(
    not(feature = "traces"),
    allow(
        dead_code,
        reason = "a build without the feature only reads the ids of traces"
    )
)]
pub mod traces;

pub use api_keys::{ApiKeys, Client, Rights, SESSION_MAX_AGE, Sessions};
pub use call::{Call, DEFAULT_SIGNATURE, VERSION, is_ready};
pub use decoding::Decoding;
pub use execution::{Checked, Execution, Gate, ItemsOutcome, JobExecution};
pub use failure::{Code, Failure, ItemCount, MAX_MESSAGE};
pub use model_explanation::{ModelExplanation, TaskExplanation, explain_model};
pub use model_view::ModelView;
pub use repeated_headers::reject_repeated_headers;
pub use request_options::{JOB_HEADERS, MAX_TIMEOUT, RequestOptions, reject_job_headers, request_id};
pub use request_record::RequestRecord;
pub use slow_requests::SlowRequestLog;
pub use task_role::{ModelName, TaskRole, Unnamed};
pub use telemetry::Telemetry;

/// Limits on the content of a request body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Maximum number of items in a request.
    pub items: usize,
    /// Maximum nesting depth of JSON, counting the outermost array or object.
    pub depth: usize,
}
