//! The estimates of a policy, as a value for people and metrics.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// What the policy `adaptive` has learned about one task. Durations are serialized as seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimates {
    /// Batches learned from.
    pub batches: u64,
    /// Fixed time of a batch, by the straight line that fits best.
    #[serde(serialize_with = "as_seconds")]
    pub cost_per_batch: Option<Duration>,
    /// Additional time of each item, or of each unit of weight.
    #[serde(serialize_with = "as_seconds")]
    pub cost_per_unit: Option<Duration>,
    /// Whether the weight of a batch predicts its time better than the number of its items.
    pub unit_is_weight: bool,
    /// Size above which batches take longer per item; `None` if there is no such size.
    pub efficient_size: Option<usize>,
    /// Arrivals after a reply, per reply, before the next batch completes.
    pub returns_per_reply: f64,
    /// Time within which half of them arrive.
    #[serde(serialize_with = "as_seconds")]
    pub half_return_within: Option<Duration>,
    /// Time within which nine of ten arrive.
    #[serde(serialize_with = "as_seconds")]
    pub most_return_within: Option<Duration>,
    /// Number of closed-loop clients; `None` if the clients do not form a closed loop.
    pub closed_loop_clients: Option<usize>,
    /// Arrivals that follow the first one of a burst.
    pub followers_in_burst: f64,
    /// Planned duration of the latest wait.
    #[serde(serialize_with = "as_seconds")]
    pub last_wait: Option<Duration>,
    /// Reason of the latest wait, as metrics name it.
    pub last_wait_for: Option<&'static str>,
    /// Items expected during the latest wait.
    pub last_wait_expected: Option<f64>,
}

fn as_seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
