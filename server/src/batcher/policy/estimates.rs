//! What a policy believes of its task, as a value to show to people and to measure.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// What the policy `adaptive` has learned of one task. Durations are written as seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimates {
    /// Batches that it learned from.
    pub batches: u64,
    /// What a batch takes however small it is, by the straight line that fits best.
    #[serde(serialize_with = "as_seconds")]
    pub cost_per_batch: Option<Duration>,
    /// What each further item, or unit of weight, adds.
    #[serde(serialize_with = "as_seconds")]
    pub cost_per_unit: Option<Duration>,
    /// Whether the weight of a batch tells its time better than the number of its items.
    pub unit_is_weight: bool,
    /// The size from which on larger batches were found to take longer per item.
    pub efficient_size: Option<usize>,
    /// Arrivals that follow a reply, before the next batch is done.
    pub returns_per_reply: f64,
    /// Half of them come within this time.
    #[serde(serialize_with = "as_seconds")]
    pub half_return_within: Option<Duration>,
    /// Nine of ten come within this time.
    #[serde(serialize_with = "as_seconds")]
    pub most_return_within: Option<Duration>,
    /// How many callers come again and again, each after its reply; none if they do not.
    pub closed_loop_clients: Option<usize>,
    /// Arrivals that follow the first one of a cluster.
    pub followers_in_burst: f64,
    /// How long the latest wait was meant to be.
    #[serde(serialize_with = "as_seconds")]
    pub last_wait: Option<Duration>,
    /// What it was for, as metrics name it.
    pub last_wait_for: Option<&'static str>,
    /// How many items were expected by it.
    pub last_wait_expected: Option<f64>,
}

fn as_seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs_f64()).serialize(serializer)
}
