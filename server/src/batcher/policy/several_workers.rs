//! Decisions that depend on what other workers do: waiting although a worker is idle, and leaving items to another worker.
//!
//! Pure functions of the policy [`adaptive`](super::adaptive), and the mean rate of arrivals. They know neither the queue
//! nor where the expected arrivals come from.
//!
//! # Spreading the starts
//! W workers that need s seconds for a batch can start one every s / W seconds. If a worker becomes idle shortly after
//! another one started, and runs the few items that have arrived since, it is missing when it would be its turn:
//! everything that arrives in between waits for the next worker, so that again several workers start at almost the same
//! time. A batch therefore waits until a worker is *due*, as long as that pays. The first of the running batches ends after e
//! seconds, and i workers are idle, so a worker is due every e / i seconds. Of the k + r items that are present after a wait
//! of d, k wait already. If they run now, the other r wait until a worker is due, and run with all items that arrive until
//! then, n:
//!
//! ```text
//! gain  = r × (e / i + service(n) − service(k + r) − d / 2)
//! price = k × (service(k + r) − service(k) + d)
//! ```
//!
//! # Splitting a batch
//! If the time of a batch grows with its size, its first items are answered earlier without the last ones, which the next
//! worker can run. That takes more time of the workers in total, during which other items wait, so it is charged for.
//! Batches of similar size result, and no client waits for an exceptionally large one.

use std::time::Instant;

use super::profile::Profile;
use super::{Crew, View};

/// Factor by which a gain must exceed its price, because expected arrivals may not happen.
const MARGIN: f64 = 1.25;

/// Minimum number of expected arrivals that justifies a wait.
const MIN_EXPECTED: f64 = 0.05;

/// Additional time of one of W workers delays this multiple of 1 / W of the items that wait.
const DELAYED: f64 = 2.0;

/// A batch is split if the sum of the latencies becomes less than this fraction.
const WORTH_SPLITTING: f64 = 0.97;

/// Number of recent arrivals that the mean rate covers.
const RECENT: f64 = 64.0;

/// The mean rate of arrivals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    latest: Option<Instant>,
    /// Mean seconds between two arrivals.
    gap: Option<f64>,
}

impl Rate {
    /// Records an arrival.
    pub(super) fn arrived(&mut self, at: Instant) {
        if let Some(latest) = self.latest {
            let gap = at.saturating_duration_since(latest).as_secs_f64();
            let mean = self.gap.get_or_insert(gap);
            *mean += (gap - *mean) / RECENT;
        }
        self.latest = self.latest.max(Some(at));
    }

    /// Arrivals per second; zero before the second one.
    pub(super) fn per_second(self) -> f64 {
        self.gap.map_or(0.0, |gap| gap.max(1e-6).recip())
    }
}

/// A wait that pays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SpreadWait {
    pub(super) seconds: f64,
    /// Expected arrivals during the wait.
    pub(super) expected: f64,
    /// Sum over all items, in seconds.
    pub(super) benefit: f64,
}

/// The best wait of at most `longest` seconds for the batch in `view`, if up to `room` items can join it. `arrivals` are
/// those expected within a time, and `service` is the time of a batch by its size.
pub(super) fn best_wait(
    view: &View,
    room: usize,
    longest: f64,
    arrivals: impl Fn(f64) -> f64,
    service: impl Fn(f64) -> f64,
) -> Option<SpreadWait> {
    let (size, room) = (view.size as f64, room as f64);
    let alone = service(size);
    let due = match view.crew.until_next_end {
        Some(end) => end.as_secs_f64() / view.crew.idle as f64,
        None => alone / view.crew.workers as f64,
    };
    let until_due = arrivals(due).min(view.max_batch_size as f64);
    let mut best = None::<SpreadWait>;
    for seconds in Profile::ages().take_while(|age| *age <= longest.min(due)) {
        let expected = arrivals(seconds).min(room);
        if expected < MIN_EXPECTED {
            continue;
        }
        // Less than one expected item is a single item with a probability.
        let (joining, chance) = (expected.max(1.0), expected.min(1.0));
        let together = service(size + joining);
        let otherwise = due + service(until_due.max(joining));
        let gain = expected * (otherwise - together - seconds / 2.0);
        let price = size * (seconds + chance * (together - alone));
        let benefit = gain - MARGIN * price;
        if benefit > best.map_or(0.0, |best| best.benefit) {
            best = Some(SpreadWait {
                seconds,
                expected,
                benefit,
            });
        }
        if expected >= room {
            break;
        }
    }
    best
}

/// The number of the first of `waiting` items that are better run without the others, if the next worker can run those.
/// `service` is the time of a batch by its size.
pub(super) fn first_part(waiting: usize, crew: Crew, service: impl Fn(f64) -> f64) -> Option<usize> {
    let until_next_end = crew.until_next_end.filter(|_| crew.idle == 1)?.as_secs_f64();
    let size = waiting as f64;
    let together = service(size);
    let delayed = DELAYED * size / crew.workers as f64;
    let cost = |part: usize| {
        let (part, rest) = (part as f64, (waiting - part) as f64);
        let (first, second) = (service(part), service(rest));
        part * first + rest * (until_next_end + second) + (first + second - together) * delayed
    };
    let mut best = (size * together * WORTH_SPLITTING, None);
    for quarters in [3, 2, 1] {
        let part = (waiting * quarters).div_ceil(4);
        if (1..waiting).contains(&part) && cost(part) < best.0 {
            best = (cost(part), Some(part));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Four workers, of which one is idle. The next of the others ends its batch after this many milliseconds.
    fn crew(until_next_end: u64) -> Crew {
        Crew {
            workers: 4,
            idle: 1,
            running_items: 12,
            until_next_end: Some(ms(until_next_end)),
        }
    }

    fn view(size: usize, crew: Crew) -> View {
        let now = crate::clock::now();
        View {
            now,
            idle_since: Some(now),
            present: size + crew.running_items,
            size,
            max_size: 32,
            max_batch_size: 32,
            cost: size as u64,
            oldest_ready: now,
            earliest_deadline: None,
            crew,
            overtaken: false,
            reached: None,
        }
    }

    /// Seconds of a batch that is mostly overhead.
    fn overhead(size: f64) -> f64 {
        5e-3 + 0.1e-3 * size
    }

    /// Seconds of a batch whose items take as long alone.
    fn linear(size: f64) -> f64 {
        0.1e-3 + 1e-3 * size
    }

    /// The best wait if `per_milli` items arrive each millisecond.
    fn wait(view: &View, per_milli: f64, service: fn(f64) -> f64) -> Option<f64> {
        let arrivals = |seconds: f64| per_milli * 1e3 * seconds;
        best_wait(view, 32 - view.size, 10e-3, arrivals, service).map(|wait| wait.seconds)
    }

    #[test]
    fn the_last_idle_worker_waits_if_much_arrives_before_the_next_one_is_idle() {
        let seconds = wait(&view(1, crew(4)), 4.0, overhead).expect("it waits");
        assert!((0.5e-3..=4e-3).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_batch_does_not_wait_if_the_next_worker_is_idle_soon() {
        assert_eq!(wait(&view(8, crew(1)), 4.0, overhead), None);
    }

    #[test]
    fn a_batch_does_not_wait_if_little_arrives() {
        assert_eq!(wait(&view(1, crew(5)), 0.1, overhead), None);
    }

    #[test]
    fn a_wait_is_shorter_if_further_workers_are_idle() {
        let alone = wait(&view(1, crew(4)), 4.0, overhead).expect("it waits");
        let among_three = Crew { idle: 3, ..crew(4) };
        assert!(wait(&view(1, among_three), 4.0, overhead).is_none_or(|seconds| seconds < alone));
    }

    #[test]
    fn items_are_left_to_the_next_worker_if_they_delay_the_others() {
        let part = first_part(16, crew(1), linear).expect("it is split");
        assert!((4..=12).contains(&part), "{part}");
    }

    #[test]
    fn a_batch_that_is_mostly_overhead_is_not_split() {
        assert_eq!(first_part(16, crew(1), overhead), None);
    }

    #[test]
    fn a_batch_is_not_split_if_no_other_worker_is_expected_soon() {
        assert_eq!(first_part(16, crew(60), linear), None);
        let unknown = Crew {
            until_next_end: None,
            ..crew(1)
        };
        assert_eq!(first_part(16, unknown, linear), None);
        assert_eq!(first_part(1, crew(0), linear), None);
    }

    #[test]
    fn the_rate_is_that_of_recent_arrivals() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        let start = crate::clock::now();
        for nth in 0..1000 {
            rate.arrived(start + ms(1) * nth);
        }
        assert!((rate.per_second() - 1000.0).abs() < 1.0);
    }
}
