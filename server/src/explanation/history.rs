//! A ring of samples of a model's counters, and the differences between them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::batching::DispatchReason;
use crate::latency::LatencyTotals;
use crate::metrics::REJECTIONS;

/// Count and total duration of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stage {
    /// Number of events.
    pub count: u64,
    /// Total duration in seconds.
    pub seconds: f64,
}

impl Stage {
    /// Mean duration in seconds; `None` without an event.
    pub fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.seconds / self.count as f64)
    }

    fn since(self, before: Self) -> Self {
        Self {
            count: self.count.saturating_sub(before.count),
            seconds: (self.seconds - before.seconds).max(0.0),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            seconds: self.seconds + other.seconds,
        }
    }
}

/// Number of reasons to run a batch.
const REASONS: usize = DispatchReason::ALL.len();

/// The counters of a task: at one moment, or their increase between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskTotals {
    /// Requests, from their arrival to their replies.
    pub requests: Stage,
    /// Preparations of items.
    pub prepare: Stage,
    /// Waits of items, from the end of their preparation to the start of their batch.
    pub queue: Stage,
    /// Batches in the model.
    pub inference: Stage,
    /// Writing of replies.
    pub encode: Stage,
    /// Waits of free workers for more items, once per batch.
    pub batch_wait: Stage,
    /// Items in batches.
    pub batched_items: u64,
    /// Those of them that were background items.
    pub background_items: u64,
    /// Batches by the reason to run them, in the order of [`DispatchReason::ALL`].
    pub reasons: [u64; REASONS],
    /// Batches that did not fit in memory.
    pub out_of_memory: u64,
    /// Items that failed.
    pub failed_items: u64,
    /// Requests that were rejected, in the order of [`REJECTIONS`].
    pub rejections: [u64; REJECTIONS.len()],
    /// Latencies of the requests that succeeded.
    pub latencies: LatencyTotals,
}

impl TaskTotals {
    /// Number of batches that ran for this reason.
    pub fn batches_for(&self, reason: DispatchReason) -> u64 {
        self.reasons[reason as usize]
    }

    /// Number of batches that ran.
    pub fn batches(&self) -> u64 {
        self.reasons.iter().sum()
    }

    /// Number of requests that were rejected.
    pub fn rejected(&self) -> u64 {
        self.rejections.iter().sum()
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.since(before.requests),
            prepare: self.prepare.since(before.prepare),
            queue: self.queue.since(before.queue),
            inference: self.inference.since(before.inference),
            encode: self.encode.since(before.encode),
            batch_wait: self.batch_wait.since(before.batch_wait),
            batched_items: self.batched_items.saturating_sub(before.batched_items),
            background_items: self.background_items.saturating_sub(before.background_items),
            reasons: each(&self.reasons, &before.reasons, u64::saturating_sub),
            out_of_memory: self.out_of_memory.saturating_sub(before.out_of_memory),
            failed_items: self.failed_items.saturating_sub(before.failed_items),
            rejections: each(&self.rejections, &before.rejections, u64::saturating_sub),
            latencies: self.latencies.since(&before.latencies),
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.plus(other.requests),
            prepare: self.prepare.plus(other.prepare),
            queue: self.queue.plus(other.queue),
            inference: self.inference.plus(other.inference),
            encode: self.encode.plus(other.encode),
            batch_wait: self.batch_wait.plus(other.batch_wait),
            batched_items: self.batched_items + other.batched_items,
            background_items: self.background_items + other.background_items,
            reasons: each(&self.reasons, &other.reasons, |a, b| a + b),
            out_of_memory: self.out_of_memory + other.out_of_memory,
            failed_items: self.failed_items + other.failed_items,
            rejections: each(&self.rejections, &other.rejections, |a, b| a + b),
            latencies: self.latencies.plus(&other.latencies),
        }
    }
}

fn each<const N: usize>(a: &[u64; N], b: &[u64; N], combine: fn(u64, u64) -> u64) -> [u64; N] {
    std::array::from_fn(|index| combine(a[index], b[index]))
}

/// The counters of a model at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The moment.
    pub at: Instant,
    /// Total time of all workers in batches, up to now.
    pub busy: Duration,
    /// Waiting items.
    pub queued: u64,
    /// The counters of each task, in the order of the manifest.
    pub tasks: Box<[TaskTotals]>,
}

impl Sample {
    /// Whether requests were in progress between an earlier sample and this one.
    fn is_active_since(&self, before: &Self) -> bool {
        self.busy > before.busy || self.queued > 0 || self.tasks != before.tasks
    }
}

/// What happened between two samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Length in seconds; 0 if there is only one sample.
    pub seconds: f64,
    /// The seconds in which requests were in progress, rounded up to whole intervals between samples.
    pub active_seconds: f64,
    /// Total time of all workers in batches, in seconds.
    pub busy_seconds: f64,
    /// Waiting items at the end.
    pub queued: u64,
    /// The increase of the counters of each task.
    pub tasks: Vec<TaskTotals>,
}

impl Window {
    /// The counters of all tasks together.
    pub fn all_tasks(&self) -> TaskTotals {
        let none = TaskTotals::default();
        self.tasks.iter().fold(none, |all, task| all.plus(task))
    }
}

/// The latest samples of a model. The ring has a fixed capacity, so its memory is bounded: about 700 bytes per sample and task.
#[derive(Debug)]
pub struct History {
    samples: VecDeque<Sample>,
    capacity: usize,
}

impl History {
    /// An empty history for windows of up to `intervals` intervals between samples, at least 1.
    pub fn new(intervals: usize) -> Self {
        let capacity = intervals.max(1) + 1;
        Self {
            samples: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// Adds a sample, which replaces the oldest one if the ring is full. A sample of the same moment as the latest is ignored.
    pub fn push(&mut self, sample: Sample) {
        if self.samples.back().is_some_and(|latest| sample.at <= latest.at) {
            return;
        }
        if self.samples.len() == self.capacity {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// What happened in the last `length` seconds, or since the first sample. Samples are not taken at exact intervals, so the window
    /// starts with the sample that is closest to its length.
    pub fn window(&self, length: Duration) -> Window {
        let Some(last) = self.samples.back() else {
            return Window::default();
        };
        let distance = |sample: &Sample| (last.at - sample.at).abs_diff(length);
        let start = (0..self.samples.len()).min_by_key(|index| distance(&self.samples[*index]));
        let start = start.unwrap_or_default();
        let first = &self.samples[start];
        let pairs = self.samples.range(start..).zip(self.samples.range(start + 1..));
        let active = pairs.filter(|(before, after)| after.is_active_since(before));
        let active: Duration = active.map(|(before, after)| after.at - before.at).sum();
        let tasks = last.tasks.iter().zip(&first.tasks);
        Window {
            seconds: (last.at - first.at).as_secs_f64(),
            active_seconds: active.as_secs_f64(),
            busy_seconds: last.busy.saturating_sub(first.busy).as_secs_f64(),
            queued: last.queued,
            tasks: tasks.map(|(after, before)| after.since(before)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A history of a model with one task, with a sample per second: the requests answered so far.
    fn history(intervals: usize, requests: &[u64]) -> History {
        let start = clock::now();
        let mut history = History::new(intervals);
        for (second, requests) in (0..).zip(requests) {
            let requests = Stage {
                count: *requests,
                seconds: *requests as f64 / 10.0,
            };
            history.push(Sample {
                at: start + Duration::from_secs(second),
                busy: Duration::from_millis(requests.count * 100),
                queued: 0,
                tasks: Box::new([TaskTotals {
                    requests,
                    ..TaskTotals::default()
                }]),
            });
        }
        history
    }

    #[test]
    fn a_window_has_what_happened_between_its_first_and_its_last_sample() {
        let history = history(60, &[5, 5, 7, 7, 11]);
        let window = |seconds| history.window(Duration::from_secs(seconds));
        for (seconds, length, active, requests) in [
            (1, 1.0, 1.0, 4),
            (2, 2.0, 1.0, 4),
            (3, 3.0, 2.0, 6),
            (60, 4.0, 2.0, 6),
        ] {
            let window = window(seconds);
            assert_eq!(
                (
                    window.seconds,
                    window.active_seconds,
                    window.tasks[0].requests.count
                ),
                (length, active, requests),
                "{seconds} s"
            );
            assert!((window.busy_seconds - requests as f64 / 10.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_window_without_two_samples_is_empty() {
        assert_eq!(
            History::new(60).window(Duration::from_secs(60)),
            Window::default()
        );
        let window = history(60, &[5]).window(Duration::from_secs(60));
        assert_eq!((window.seconds, window.tasks[0].requests.count), (0.0, 0));
    }

    #[test]
    fn the_ring_drops_the_oldest_samples() {
        let requests: Vec<u64> = (0..100).collect();
        let history = history(60, &requests);
        assert_eq!(history.samples().count(), 61);
        let window = history.window(Duration::from_secs(600));
        assert_eq!((window.seconds, window.tasks[0].requests.count), (60.0, 60));
    }

    /// A histogram can be read in the middle of an observation.
    #[test]
    fn counters_that_decrease_count_as_unchanged() {
        let stage = |count, seconds| Stage { count, seconds };
        assert_eq!(stage(2, 0.5).since(stage(3, 0.75)), stage(0, 0.0));
    }

    #[test]
    fn reasons_are_counted_in_their_order() {
        for (index, reason) in DispatchReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
