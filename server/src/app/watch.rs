//! Watches the workers of all models: measures their load, and warns about batches that run for longer than their requests can
//! wait. Samples the live state for the page for operators. Reports how many slow requests were not logged. Also watches the keys, and warns about those that expire.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::live::LiveFeed;
use crate::api::{ApiKeys, Telemetry};
use crate::batch_context::log_batch;
use crate::clock;
use crate::registry::{Generation, Registry};

/// Interval between checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Maximum interval between two warnings about one batch.
const MAX_WARNING_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Watches until the future is dropped.
pub(super) async fn watch_workers(
    registry: Arc<Registry>,
    telemetry: Arc<Telemetry>,
    feed: Option<Arc<LiveFeed>>,
) -> Infallible {
    let mut warned = HashMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        check_all(&registry, &mut warned);
        telemetry.slow_requests.report_suppressed();
        if let Some(feed) = &feed {
            feed.sample();
        }
    }
}

/// Interval between checks of the expiry of keys.
const KEY_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Warns about keys that expire, until the future is dropped.
pub(super) async fn watch_keys(keys: ApiKeys) -> Infallible {
    loop {
        keys.warn_of_expiry(clock::unix_seconds());
        tokio::time::sleep(KEY_INTERVAL).await;
    }
}

/// A batch: its generation, worker and start.
type Batch = (u64, usize, Instant);

/// Warns about the batches that are due. `warned` has the age at which each is due next.
fn check_all(registry: &Registry, warned: &mut HashMap<Batch, Duration>) {
    let mut still_running = HashMap::new();
    for entry in registry.snapshot().models() {
        if let Some(generation) = entry.generation() {
            let limit = entry.settings.request_timeout;
            generation.engine.measure_load();
            check_generation(generation, limit, warned, &mut still_running);
        }
    }
    *warned = still_running;
}

fn check_generation(
    generation: &Generation,
    limit: Duration,
    warned: &HashMap<Batch, Duration>,
    still_running: &mut HashMap<Batch, Duration>,
) {
    for (worker, batch) in generation.engine.running() {
        let key = (generation.number, worker, batch.started());
        let age = batch.age();
        let mut due = warned.get(&key).copied().unwrap_or(limit);
        if age >= due {
            let context = &batch.context;
            log_batch!(
                warn,
                context,
                "worker {worker} of model `{}` has been running a batch of task `{}` for {:.0} s, longer than \
                 request_timeout ({} s)",
                context.model,
                context.task,
                age.as_secs_f64(),
                limit.as_secs_f64()
            );
            due = next_due(age, due);
        }
        still_running.insert(key, due);
    }
}

/// The age at which a batch of this age is due again: the interval doubles with each warning, up to an hour.
fn next_due(age: Duration, due: Duration) -> Duration {
    age + due.max(INTERVAL).min(MAX_WARNING_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_between_warnings_doubles_up_to_an_hour() {
        let seconds = Duration::from_secs;
        let mut due = seconds(60);
        let mut ages = Vec::new();
        for _ in 0..9 {
            ages.push(due.as_secs());
            due = next_due(due, due);
        }
        assert_eq!(ages, [60, 120, 240, 480, 960, 1920, 3840, 7440, 11040]);
        assert_eq!(
            next_due(Duration::from_millis(900), Duration::from_millis(1)),
            Duration::from_millis(1900)
        );
    }
}
