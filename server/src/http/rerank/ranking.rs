//! The output of a reranker.

use serde::Deserialize;

use crate::api::{Code, Failure};
use crate::engine::Outcome;
use crate::json;
use crate::values::Value;

/// The output of a reranker.
#[derive(Deserialize)]
pub(super) struct Ranking {
    pub(super) results: Vec<Ranked>,
}

#[derive(Deserialize)]
pub(super) struct Ranked {
    /// Index of the document in the request.
    pub(super) index: usize,
    pub(super) score: f64,
}

impl Ranking {
    pub(super) fn of(outcome: Option<Outcome>) -> Result<Self, Failure> {
        let fault = |message: String| Failure::new(Code::ModelFault, message);
        match outcome {
            Some(Ok(Value::Json(output))) => json::from_slice(&output)
                .map_err(|error| fault(format!("the reranker returned an invalid ranking: {error}"))),
            Some(Err(error)) => Err(Failure::from(&error)),
            Some(Ok(_)) | None => Err(fault("the reranker did not return a ranking".to_owned())),
        }
    }
}
