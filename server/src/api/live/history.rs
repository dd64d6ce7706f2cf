//! The last ten minutes of each model, one point per second.
//!
//! # Memory
//! A ring has at most [`SECONDS`] points. A point takes about 100 bytes and 120 for each task, so that a model with one task
//! takes at most 140 KiB, and each further task at most 75 KiB. Models and tasks are configured; clients cannot add any.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batching::DispatchReason;
use crate::engine::{Engine, SIZE_CLASSES, TaskCounters};
use crate::latency::LatencyTotals;
use crate::metrics::{Metrics, StageLatencies, WorkerCounts};
use crate::model::{WorkerPhase, WorkerProcess};
use crate::registry::{ModelEntry, Snapshot};

/// Number of seconds that are kept.
pub const SECONDS: usize = 600;

/// Seconds that one value of [`ModelHistory::requests`] covers.
const MEAN_OF: u64 = 10;

/// Maximum number of workers of a model that are shown one by one.
pub const MAX_WORKERS: usize = 16;

/// The median and the 99th percentile of durations, in milliseconds; `None` if there were none.
pub(super) type Percentiles = Option<[f32; 2]>;

/// What a model did in one second.
#[derive(Debug, PartialEq)]
pub struct ModelPoint {
    /// The end of the second, in Unix time.
    pub unix_seconds: u64,
    /// What each worker did: the worker processes if the model has any, otherwise the threads.
    pub workers: Box<[WorkerPoint]>,
    /// Worker processes that are serving; `None` if the model runs in threads.
    pub processes: Option<u16>,
    /// Worker processes that were lost.
    pub restarts: u16,
    /// The tasks, in the order of the manifest.
    pub tasks: Box<[TaskPoint]>,
}

/// What a worker did in one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPoint {
    /// It served, and ran batches in this part of the second, in percent.
    Busy(u8),
    /// It was lost in this second, or was being replaced at its end.
    Restarting,
}

/// What a task did in one second.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskPoint {
    /// Requests answered, per second.
    pub requests: f32,
    /// Items that failed and requests that were rejected, per second.
    pub errors: f32,
    /// Time from the head of a request to its reply.
    pub latency: Percentiles,
    /// Duration of each stage: prepare, queue, inference, encode.
    pub stages: [Percentiles; StageLatencies::COUNT],
    /// Items that wait at the end of the second.
    pub queued: u32,
    /// Batches by the class of their size.
    pub sizes: [u16; SIZE_CLASSES],
    /// Batches by the reason to run them, in the order of [`DispatchReason::ALL`].
    pub reasons: [u16; DispatchReason::ALL.len()],
}

/// The histories of all models.
#[derive(Default)]
pub(super) struct Histories(BTreeMap<String, ModelHistory>);

impl Histories {
    /// Adds a point for every model that is serving. Drops the histories of models that are no longer configured.
    pub(super) fn sample(&mut self, snapshot: &Snapshot, metrics: &Metrics, now: Instant, unix_seconds: u64) {
        self.0.retain(|name, _| snapshot.model(name).is_some());
        for entry in snapshot.models() {
            let history = self.0.entry(entry.name().to_owned()).or_default();
            let processes = metrics.worker_counts(entry.name());
            history.sample(Counters::of(entry, processes, now), unix_seconds);
        }
    }

    pub(super) fn model(&self, name: &str) -> Option<&ModelHistory> {
        self.0.get(name)
    }
}

/// The counters of a model at one moment.
struct Counters {
    at: Instant,
    generation: u64,
    names: Vec<String>,
    workers: Vec<WorkerProcess>,
    processes: Option<WorkerCounts>,
    tasks: Vec<TaskCounters>,
}

impl Counters {
    /// `None` if no generation is serving.
    fn of(entry: &ModelEntry, processes: Option<WorkerCounts>, at: Instant) -> Option<Self> {
        let generation = entry.generation()?;
        let tasks = &generation.manifest.tasks;
        let engine: &Engine = &generation.engine;
        let mut workers = engine.worker_processes();
        if workers.is_empty() {
            workers = engine.busy_by_worker().into_iter().map(thread).collect();
        }
        workers.truncate(MAX_WORKERS);
        Some(Self {
            at,
            generation: generation.number,
            names: tasks.iter().map(|task| task.name.clone()).collect(),
            workers,
            processes,
            tasks: (0..tasks.len()).map(|task| engine.counters(task)).collect(),
        })
    }
}

/// A worker that is a thread, which is never replaced.
fn thread(busy: Duration) -> WorkerProcess {
    WorkerProcess {
        phase: WorkerPhase::Waiting,
        process_id: None,
        busy,
        restarts: 0,
    }
}

/// The history of a model. It continues with the next generation if that has the same tasks.
#[derive(Default)]
pub(super) struct ModelHistory {
    previous: Option<Counters>,
    points: VecDeque<Arc<ModelPoint>>,
}

impl ModelHistory {
    fn sample(&mut self, counters: Option<Counters>, unix_seconds: u64) {
        let Some(counters) = counters else {
            self.previous = None;
            return;
        };
        if let Some(previous) = &self.previous {
            if previous.names != counters.names {
                self.points.clear();
            } else if let Some(point) = difference(previous, &counters, unix_seconds) {
                self.push(point);
            }
        }
        self.previous = Some(counters);
    }

    fn push(&mut self, point: ModelPoint) {
        if self.points.len() == SECONDS {
            self.points.pop_front();
        }
        self.points.push_back(Arc::new(point));
    }

    pub(super) fn points(&self) -> impl Iterator<Item = &Arc<ModelPoint>> {
        self.points.iter()
    }

    pub(super) fn latest(&self) -> Option<&Arc<ModelPoint>> {
        self.points.back()
    }

    /// Means of the requests per second in intervals of ten seconds, oldest first, up to `unix_seconds`.
    pub(super) fn requests(&self, unix_seconds: u64) -> Vec<Option<f32>> {
        const INTERVALS: usize = SECONDS / MEAN_OF as usize;
        let end = unix_seconds / MEAN_OF;
        let mut sums = [(0.0_f32, 0_u16); INTERVALS];
        for point in &self.points {
            let age = end.saturating_sub(point.unix_seconds / MEAN_OF);
            // The present interval is not over.
            if let Some(index) = usize::try_from(age)
                .ok()
                .filter(|age| (1..=INTERVALS).contains(age))
            {
                let (sum, count) = &mut sums[INTERVALS - index];
                *sum += point.tasks.iter().map(|task| task.requests).sum::<f32>();
                *count += 1;
            }
        }
        let mean = |(sum, count): (f32, u16)| (count > 0).then(|| sum / f32::from(count));
        sums.into_iter().map(mean).collect()
    }
}

/// What happened between two samples. `None` if no time has passed.
fn difference(before: &Counters, after: &Counters, unix_seconds: u64) -> Option<ModelPoint> {
    let seconds = after.at.saturating_duration_since(before.at).as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    // The engine of a new generation counts from zero.
    let is_same = before.generation == after.generation;
    let earlier = |worker: usize| before.workers.get(worker).filter(|_| is_same);
    let workers = after
        .workers
        .iter()
        .enumerate()
        .map(|(number, worker)| worker_difference(earlier(number), worker, seconds));
    let tasks = before.tasks.iter().zip(&after.tasks);
    let restarts = |counters: &Counters| counters.processes.map_or(0, |processes| processes.restarts);
    Some(ModelPoint {
        unix_seconds,
        workers: workers.collect(),
        processes: after.processes.map(|processes| saturated(processes.serving)),
        restarts: saturated(restarts(after).saturating_sub(restarts(before))),
        tasks: tasks
            .map(|(before, after)| task_difference(before, after, is_same, seconds))
            .collect(),
    })
}

fn worker_difference(before: Option<&WorkerProcess>, after: &WorkerProcess, seconds: f64) -> WorkerPoint {
    let (busy, restarts) = before.map_or((Duration::ZERO, 0), |before| (before.busy, before.restarts));
    if after.phase == WorkerPhase::Restarting || after.restarts > restarts {
        return WorkerPoint::Restarting;
    }
    let busy = after.busy.saturating_sub(busy).as_secs_f64();
    WorkerPoint::Busy((busy / seconds * 100.0).round().clamp(0.0, 100.0) as u8)
}

fn task_difference(before: &TaskCounters, after: &TaskCounters, is_same: bool, seconds: f64) -> TaskPoint {
    let (old, new) = (&before.totals, &after.totals);
    let of_engine = |before: u64, after: u64| after.saturating_sub(if is_same { before } else { 0 });
    let rate = |count: u64| (count as f64 / seconds) as f32;
    let errors = new.failed_items + new.rejected();
    TaskPoint {
        requests: rate(of_engine(old.requests.count, new.requests.count)),
        errors: rate(errors.saturating_sub(old.failed_items + old.rejected())),
        latency: percentiles(&old.latencies, &new.latencies),
        stages: std::array::from_fn(|stage| percentiles(&before.stages[stage], &after.stages[stage])),
        queued: u32::try_from(after.queued).unwrap_or(u32::MAX),
        sizes: std::array::from_fn(|class| saturated(of_engine(before.sizes[class], after.sizes[class]))),
        reasons: std::array::from_fn(|reason| {
            saturated(new.reasons[reason].saturating_sub(old.reasons[reason]))
        }),
    }
}

fn percentiles(before: &LatencyTotals, after: &LatencyTotals) -> Percentiles {
    let between = after.since(before);
    let millis = |quantile| {
        let duration = between.quantile(quantile)?;
        Some((duration.as_secs_f64() * 1e3) as f32)
    };
    Some([millis(0.5)?, millis(0.99)?])
}

fn saturated(count: u64) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::explanation::{Stage, TaskTotals};
    use crate::latency::LatencyCounts;

    /// The counters of a model with one task, `second` seconds after the start.
    fn counters(start: Instant, second: u64, generation: u64, requests: u64) -> Counters {
        let latencies = LatencyCounts::default();
        (0..requests).for_each(|_| latencies.observe(Duration::from_millis(20)));
        let mut reasons = [0; DispatchReason::ALL.len()];
        reasons[DispatchReason::Idle as usize] = requests;
        Counters {
            at: start + Duration::from_secs(second),
            generation,
            names: vec!["task".to_owned()],
            workers: vec![thread(Duration::from_millis(requests * 20))],
            processes: Some(WorkerCounts {
                serving: 1,
                restarts: generation - 1,
            }),
            tasks: vec![TaskCounters {
                totals: TaskTotals {
                    requests: Stage {
                        count: requests,
                        seconds: 0.0,
                    },
                    failed_items: requests / 2,
                    latencies: latencies.totals(),
                    reasons,
                    ..TaskTotals::default()
                },
                stages: std::array::from_fn(|_| latencies.totals()),
                sizes: std::array::from_fn(|class| if class == 2 { requests } else { 0 }),
                queued: 3,
            }],
        }
    }

    #[test]
    fn a_point_has_what_happened_in_its_second() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        history.sample(Some(counters(start, 0, 1, 100)), 1000);
        assert_eq!(history.points().count(), 0, "one sample is no difference");
        history.sample(Some(counters(start, 1, 1, 110)), 1001);
        let point = history.latest().expect("there are two samples").clone();
        assert_eq!(
            (point.unix_seconds, &*point.workers),
            (1001, &[WorkerPoint::Busy(20)][..])
        );
        assert_eq!((point.processes, point.restarts), (Some(1), 0));
        let task = &point.tasks[0];
        assert_eq!((task.requests, task.errors, task.queued), (10.0, 5.0, 3));
        assert_eq!(
            (task.sizes[2], task.reasons[DispatchReason::Idle as usize]),
            (10, 10)
        );
        for percentiles in task.stages.iter().chain([&task.latency]) {
            let [p50, p99] = percentiles.expect("requests were answered");
            assert!(
                (15.0..25.0).contains(&p50) && (15.0..25.0).contains(&p99),
                "{percentiles:?}"
            );
        }
        history.sample(Some(counters(start, 2, 1, 110)), 1002);
        let idle = &history.latest().expect("it has points").tasks[0];
        assert_eq!((idle.requests, idle.latency), (0.0, None));
    }

    /// The engine of a new generation counts from zero, and the metrics continue.
    #[test]
    fn a_reload_continues_the_history() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        history.sample(Some(counters(start, 0, 1, 100)), 1000);
        let mut reloaded = counters(start, 1, 2, 104);
        reloaded.tasks[0].totals.requests.count = 4;
        reloaded.tasks[0].sizes[2] = 4;
        reloaded.workers[0].busy = Duration::from_millis(500);
        history.sample(Some(reloaded), 1001);
        let point = history.latest().expect("there are two samples");
        let task = &point.tasks[0];
        assert_eq!((task.requests, task.errors, task.sizes[2]), (4.0, 2.0, 4));
        assert_eq!(
            (&*point.workers, point.restarts),
            (&[WorkerPoint::Busy(50)][..], 1)
        );
    }

    #[test]
    fn a_worker_process_that_is_lost_is_restarting_even_if_it_is_replaced_within_the_second() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        let mut sample = |second: u64, change: &dyn Fn(&mut WorkerProcess)| {
            let mut counters = counters(start, second, 1, 0);
            change(&mut counters.workers[0]);
            history.sample(Some(counters), 1000 + second);
            history.latest().map(|point| point.workers[0])
        };
        assert_eq!(sample(0, &|_| ()), None);
        assert_eq!(sample(1, &|_| ()), Some(WorkerPoint::Busy(0)));
        let replaced = |worker: &mut WorkerProcess| worker.restarts = 1;
        assert_eq!(sample(2, &replaced), Some(WorkerPoint::Restarting));
        assert_eq!(sample(3, &replaced), Some(WorkerPoint::Busy(0)));
        let down = |worker: &mut WorkerProcess| {
            worker.restarts = 1;
            worker.phase = WorkerPhase::Restarting;
        };
        assert_eq!(sample(4, &down), Some(WorkerPoint::Restarting));
    }

    #[test]
    fn other_tasks_start_a_new_history() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        history.sample(Some(counters(start, 0, 1, 0)), 1000);
        history.sample(Some(counters(start, 1, 1, 5)), 1001);
        let mut other = counters(start, 2, 2, 9);
        other.names[0] = "other".to_owned();
        history.sample(Some(other), 1002);
        assert_eq!(history.points().count(), 0);
    }

    #[test]
    fn the_ring_has_ten_minutes() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        for second in 0..=700 {
            history.sample(Some(counters(start, second, 1, second)), 1000 + second);
        }
        let times: Vec<u64> = history.points().map(|point| point.unix_seconds).collect();
        assert_eq!(times, (1101..=1700).collect::<Vec<_>>());
    }

    #[test]
    fn means_cover_whole_intervals_and_have_gaps_while_the_model_did_not_serve() {
        let start = clock::now();
        let mut history = ModelHistory::default();
        for second in 0..=60 {
            let serving = !(20..30).contains(&second);
            history.sample(
                serving.then(|| counters(start, second, 1, second * 2)),
                1000 + second,
            );
        }
        let requests = history.requests(1060);
        assert_eq!(requests.len(), 60);
        assert_eq!(
            requests[54..],
            [Some(2.0), Some(2.0), None, Some(2.0), Some(2.0), Some(2.0)]
        );
        assert!(requests[..54].iter().all(Option::is_none));
    }
}
