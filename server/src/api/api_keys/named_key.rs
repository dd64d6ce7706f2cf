//! A key of the file of named keys.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::permissions::Permissions;
use super::rate_limit::{Excess, RateLimit, Remaining, ServerClock, Unit};
use crate::api::failure::{Code, Failure, excerpt};
use crate::config::{KeySettings, RateSettings};
use crate::digest::Digest;
use crate::metrics::{KeyCounters, KeyMetrics};

/// How long before its expiry a key is reported in the log.
const WARNING_TIME: u64 = 7 * 24 * 60 * 60;

/// A named key, with its permissions and the state of its limits.
pub(super) struct NamedKey {
    name: String,
    hash: Digest,
    admin: bool,
    /// Unix time from which it is rejected.
    expires: Option<u64>,
    /// `None` allows everything.
    permissions: Option<Permissions>,
    requests: Option<Arc<RateLimit>>,
    items: Option<Arc<RateLimit>>,
    counters: Arc<KeyCounters>,
    /// The number of the last warning about its expiry.
    warned: AtomicU8,
}

impl NamedKey {
    /// Creates a key. The state of the `previous` key with this name is kept where it has the same limit.
    pub(super) fn new(settings: &KeySettings, previous: Option<&Self>, metrics: &KeyMetrics) -> Self {
        Self {
            name: settings.name.clone(),
            hash: settings.hash,
            admin: settings.admin,
            expires: settings.expires,
            permissions: settings.models.as_deref().map(Permissions::new),
            requests: limit(
                Unit::Requests,
                settings.requests,
                previous.and_then(|key| key.requests.as_ref()),
            ),
            items: limit(
                Unit::Items,
                settings.items,
                previous.and_then(|key| key.items.as_ref()),
            ),
            counters: match previous {
                Some(previous) => previous.counters.clone(),
                None => Arc::new(metrics.counters(&settings.name)),
            },
            warned: AtomicU8::new(0),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn hash(&self) -> Digest {
        self.hash
    }

    pub(super) fn is_admin(&self) -> bool {
        self.admin
    }

    pub(super) fn counters(&self) -> &KeyCounters {
        &self.counters
    }

    /// The names of the models that the key may use; `None` for all.
    pub(super) fn permissions(&self) -> Option<&Permissions> {
        self.permissions.as_ref()
    }

    /// The limit on what `unit` counts, if there is one.
    pub(super) fn limit(&self, unit: Unit) -> Option<&RateLimit> {
        match unit {
            Unit::Requests => self.requests.as_deref(),
            Unit::Items => self.items.as_deref(),
        }
    }

    /// # Errors
    /// `Unauthorized` if the key has expired.
    pub(super) fn check_expiry(&self, unix_seconds: u64) -> Result<(), Failure> {
        match self.expires {
            Some(expires) if expires <= unix_seconds => {
                let message = format!("API key `{}` expired at {}", self.name, date_time(expires));
                Err(Failure::new(Code::Unauthorized, message))
            }
            _ => Ok(()),
        }
    }

    /// The error for a model or task that the key may not use.
    pub(super) fn forbidden(&self, permissions: &Permissions, what: &str) -> Failure {
        let message = format!(
            "API key `{}` may not use {what}; it may use: {}",
            self.name,
            permissions.describe()
        );
        Failure::new(Code::Forbidden, message)
    }

    /// Counts `count` requests or items. Returns what is left of the limit, or `None` if there is no limit.
    pub(super) fn take(
        &self,
        unit: Unit,
        count: NonZeroU32,
    ) -> Result<Option<Remaining>, (Failure, Option<Remaining>)> {
        let Some(limit) = self.limit(unit) else {
            return Ok(None);
        };
        let RateSettings { per_second, burst } = limit.settings();
        match limit.take(count) {
            Ok(remaining) => Ok(Some(remaining)),
            Err(Excess::Wait(wait, remaining)) => {
                let message = format!(
                    "API key `{}` exceeds its limit of {per_second} {} per second, with bursts of up to {burst}; \
                     retry in {} ms",
                    self.name,
                    unit.name(),
                    wait.as_micros().div_ceil(1000)
                );
                let failure = Failure {
                    retry_after: Some(wait),
                    ..Failure::new(Code::RateLimited, message)
                };
                Err((failure, Some(remaining)))
            }
            Err(Excess::Burst) => {
                let message = format!(
                    "the request has {count} items, more than API key `{}` allows at once ({burst}): split it",
                    self.name
                );
                Err((Failure::new(Code::Malformed, message), None))
            }
        }
    }

    /// Logs a warning if the key expires soon or has expired, once for each.
    pub(super) fn warn_of_expiry(&self, unix_seconds: u64) {
        let Some(expires) = self.expires else { return };
        let due = match expires.saturating_sub(unix_seconds) {
            0 => 2,
            1..=WARNING_TIME => 1,
            _ => 0,
        };
        if self.warned.swap(due, Ordering::Relaxed) >= due {
            return;
        }
        let (key, time) = (self.name.as_str(), date_time(expires));
        match due {
            2 => log::warn!(key; "API key `{key}` expired at {time}; requests with it are rejected"),
            _ => log::warn!(key; "API key `{key}` expires at {time}"),
        }
    }
}

/// The limit of these settings, with the state of the previous one if its settings are the same.
fn limit(
    unit: Unit,
    settings: Option<RateSettings>,
    previous: Option<&Arc<RateLimit>>,
) -> Option<Arc<RateLimit>> {
    let settings = settings?;
    match previous.filter(|previous| previous.settings() == settings) {
        Some(previous) => Some(previous.clone()),
        None => RateLimit::new(unit, settings, ServerClock::default()).map(Arc::new),
    }
}

/// Describes a model by a name that a client sent.
pub(super) fn model(name: &str) -> String {
    format!("model `{}`", excerpt(name))
}

fn date_time(unix_seconds: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(unix_seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
