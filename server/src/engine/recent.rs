//! What an engine did recently: a sample of its counters for each second, and the windows that are explained.
//!
//! One thread adds samples, and publishes the windows for all other threads. Readers, such as the event loop, take no lock.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus::Histogram;

use super::task_queue::TaskQueue;
use crate::batching::DispatchReason;
use crate::explanation::{EXPLAINED, History, SUMMARIZED, Sample, Stage, TaskTotals, Window};
use crate::latency::LatencyTotals;
use crate::metrics::StageLatencies;

/// What happened in the latest windows.
#[derive(Debug, Default)]
pub struct Recent {
    /// The window that is explained.
    pub explained: Window,
    /// The window that figures summarize.
    pub summarized: Window,
}

/// Records samples.
pub(super) struct Recorder {
    history: Mutex<History>,
    recent: ArcSwap<Recent>,
}

impl Default for Recorder {
    /// Holds the samples of the longest window, at one per second.
    fn default() -> Self {
        let intervals = EXPLAINED.max(SUMMARIZED).as_secs();
        Self {
            history: Mutex::new(History::new(usize::try_from(intervals).unwrap_or(usize::MAX))),
            recent: ArcSwap::default(),
        }
    }
}

impl Recorder {
    /// Adds a sample. Is called about once per second.
    pub(super) fn record(&self, sample: Sample) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(sample);
        self.recent.store(Arc::new(Recent {
            explained: history.window(EXPLAINED),
            summarized: history.window(SUMMARIZED),
        }));
    }

    /// The windows up to the latest sample.
    pub(super) fn recent(&self) -> Arc<Recent> {
        self.recent.load_full()
    }
}

/// Number of classes of the sizes of batches: 1, 2, up to 4, up to 8, and so on; the last has all larger batches.
pub const SIZE_CLASSES: usize = 10;

/// The counters of a task, for its history.
#[derive(Clone, Debug)]
pub struct TaskCounters {
    /// Those that are explained.
    pub totals: TaskTotals,
    /// The durations of the stages: prepare, queue, inference, encode.
    pub stages: [LatencyTotals; StageLatencies::COUNT],
    /// Batches by the class of their size.
    pub sizes: [u64; SIZE_CLASSES],
    /// Number of items that wait now.
    pub queued: usize,
}

pub(super) fn counters(task: &TaskQueue) -> TaskCounters {
    let mut sizes = [0; SIZE_CLASSES];
    for (items, total) in task.statistics.shown_batches().iter() {
        sizes[size_class(*items)] += total.count;
    }
    TaskCounters {
        totals: totals(task),
        stages: task.metrics.stage_latencies.totals(),
        sizes,
        queued: task.len(),
    }
}

/// The class of a batch with this many items.
fn size_class(items: usize) -> usize {
    let class = items.max(1).next_power_of_two().trailing_zeros() as usize;
    class.min(SIZE_CLASSES - 1)
}

/// The counters of a task. They are those of the metrics, so requests are not counted twice.
pub(super) fn totals(task: &TaskQueue) -> TaskTotals {
    let metrics = &task.metrics;
    let stage = |histogram: &Histogram| Stage {
        count: histogram.get_sample_count(),
        seconds: histogram.get_sample_sum(),
    };
    let answered = task.statistics.answered();
    TaskTotals {
        requests: Stage {
            count: answered.count,
            seconds: answered.time.as_secs_f64(),
        },
        prepare: stage(&metrics.prepare_seconds),
        queue: stage(&metrics.queue_seconds),
        inference: stage(&metrics.inference_seconds),
        encode: stage(&metrics.encode_seconds),
        batch_wait: stage(&metrics.batch_wait_seconds),
        batched_items: metrics.batch_size.get_sample_sum() as u64,
        background_items: metrics.background_items.get(),
        reasons: DispatchReason::ALL.map(|reason| metrics.batches_run(reason.as_str())),
        out_of_memory: metrics.out_of_memory.get(),
        failed_items: metrics.failed_items(),
        rejections: metrics.rejected(),
        latencies: metrics.requests.latencies.totals(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[test]
    fn sizes_of_batches_are_classified_by_powers_of_two() {
        for (items, class) in [
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (8, 3),
            (256, 8),
            (257, 9),
            (5000, 9),
        ] {
            assert_eq!(size_class(items), class, "{items} items");
        }
    }

    #[test]
    fn the_windows_follow_the_latest_sample() {
        let recorder = Recorder::default();
        assert_eq!(recorder.recent().explained, Window::default());
        let start = clock::now();
        for second in 0..=90 {
            recorder.record(Sample {
                at: start + Duration::from_secs(second),
                busy: Duration::from_secs(second),
                queued: second,
                tasks: Box::default(),
            });
        }
        let recent = recorder.recent();
        let window = |window: &Window| (window.seconds, window.busy_seconds, window.queued);
        assert_eq!(window(&recent.explained), (60.0, 60.0, 90));
        assert_eq!(window(&recent.summarized), (10.0, 10.0, 90));
    }
}
