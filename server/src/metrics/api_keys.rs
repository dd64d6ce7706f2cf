//! Requests by the name of their key.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, Opts};

use super::{Metrics, register};

/// The outcome of a request with a named key, the label `outcome` of `inference_key_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOutcome {
    /// Answered without an error.
    Success,
    /// Answered with an error, or the client disconnected.
    Error,
    /// The key does not allow the model or the operation.
    Forbidden,
    /// A rate limit of the key was exceeded.
    RateLimited,
    /// The key has expired.
    Expired,
}

impl KeyOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Success,
        Self::Error,
        Self::Forbidden,
        Self::RateLimited,
        Self::Expired,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Expired => "expired",
        }
    }
}

/// Requests of named keys, by key and outcome. A series exists once such a request was counted.
pub struct KeyMetrics(IntCounterVec);

/// The counters of one key.
pub struct KeyCounters {
    family: IntCounterVec,
    key: String,
    /// Looked up once.
    counters: [OnceLock<IntCounter>; KeyOutcome::ALL.len()],
}

impl KeyMetrics {
    /// # Errors
    /// The family is already registered.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "inference_key_requests_total",
            "Requests with a named API key, by key and outcome.",
        );
        let family = IntCounterVec::new(requests, &["key", "outcome"])?;
        Ok(Self(register(metrics.registry(), family)?))
    }

    /// The counters of a key, which are created when they first count.
    pub fn counters(&self, key: &str) -> KeyCounters {
        KeyCounters {
            family: self.0.clone(),
            key: key.to_owned(),
            counters: Default::default(),
        }
    }

    /// Removes the series of a key that no longer exists.
    pub fn remove(&self, key: &str) {
        for outcome in KeyOutcome::ALL {
            // Fails if there is no such series.
            let _ = self.0.remove_label_values(&[key, outcome.label()]);
        }
    }
}

impl KeyCounters {
    /// Counts a request.
    pub fn count(&self, outcome: KeyOutcome) {
        let create = || {
            self.family
                .with_label_values(&[self.key.as_str(), outcome.label()])
        };
        if let Some(counter) = self.counters.get(outcome as usize) {
            counter.get_or_init(create).inc();
        }
    }
}
