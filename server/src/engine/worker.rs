//! The workers of a model: the threads that drive its scheduler and run its batches.
//!
//! # Panics
//! Nothing here should panic, and models catch the panics of plugins. If something does, the worker starts over: its batch
//! is answered with an error, and after several panics without a completed batch the model has failed (see
//! [`Panics`](super::crew::Panics)).

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::EngineConfig;
use super::admission::{Message, Queued};
use super::batch_record::EndedBatch;
use super::batch_run::{BatchRun, NO_PROCESS_INTERVAL};
use super::crew::{Assignment, Crew, Report, Turn};
use super::request::{ItemHandle, Outcome};
use crate::batch_context::BatchContext;
use crate::batcher::cost_model::BatchShape;
use crate::batcher::{BatchOutcome, BatchToken, Item};
use crate::batching::{DispatchReason, Priority};
use crate::clock;
use crate::metrics::TaskMetrics;
use crate::model::{Health, Model, PreparedItem};
use crate::niceness;
use crate::values::ItemInput;

/// An item of a batch that runs.
pub(super) struct BatchedItem {
    pub(super) handle: ItemHandle,
    pub(super) input: ItemInput,
    pub(super) prepared: Option<PreparedItem>,
    pub(super) weight: u64,
    is_background: bool,
    ready: Instant,
}

impl BatchedItem {
    fn new(item: Item<Queued>) -> Option<Self> {
        let Queued { handle, prepared } = item.payload;
        Some(Self {
            input: handle.take_input()?,
            handle,
            prepared,
            weight: item.weight,
            is_background: item.priority == Priority::Background,
            ready: item.ready,
        })
    }

    /// How long it waited for a batch that started at this instant.
    pub(super) fn waited(&self, started: Instant) -> Duration {
        started.saturating_duration_since(self.ready)
    }
}

/// Counts items as executing while it exists.
struct Executing<'a>(&'a TaskMetrics, i64);

impl<'a> Executing<'a> {
    fn new(metrics: &'a TaskMetrics, items: usize) -> Self {
        metrics.executing_items.add(items as i64);
        Self(metrics, items as i64)
    }
}

impl Drop for Executing<'_> {
    fn drop(&mut self) {
        self.0.executing_items.sub(self.1);
    }
}

/// One thread that runs batches.
pub(super) struct Worker {
    pub(super) index: usize,
    crew: Arc<Crew>,
    /// When its last batch ended.
    finished: Cell<Option<Instant>>,
}

impl Worker {
    /// Starts all workers of a model.
    pub(super) fn start_all(crew: &Arc<Crew>, config: &EngineConfig<'_>) -> io::Result<Vec<JoinHandle<()>>> {
        (0..config.workers)
            .map(|index| {
                let worker = Self {
                    index,
                    crew: crew.clone(),
                    finished: Cell::new(None),
                };
                let nice = config.nice;
                thread::Builder::new()
                    .name(format!("model {} {index}", config.name))
                    .spawn(move || {
                        niceness::raise_to(nice);
                        worker.work();
                    })
            })
            .collect()
    }

    /// Runs batches until the engine has ended. Starts over after a panic.
    fn work(self) {
        self.crew.wakeups.register(self.index);
        let mut running = None;
        while catch_unwind(AssertUnwindSafe(|| self.run_batches(&mut running))).is_err() {
            self.recover(running.take());
        }
    }

    /// `running` is the token of the batch that runs, for the case of a panic.
    fn run_batches(&self, running: &mut Option<BatchToken>) {
        let crew = &*self.crew;
        loop {
            let can_run = crew.model.wait_for_worker(self.index, NO_PROCESS_INTERVAL);
            let turn = if can_run {
                crew.advance(self.index, [Message::WorkerAvailable(self.index)])
            } else if matches!(crew.model.health(), Health::CrashLoop { .. }) {
                // This may last, so queued items fail at once, as new requests do.
                let unavailable = Message::WorkerUnavailable(self.index);
                crew.advance(self.index, [unavailable, Message::FailQueued])
            } else {
                crew.advance(self.index, [Message::WorkerUnavailable(self.index)])
            };
            match turn {
                Turn::Run(assignment) => self.run(assignment, running),
                Turn::Wait(_) if !can_run => {}
                Turn::Wait(None) => thread::park(),
                Turn::Wait(Some(until)) => {
                    thread::park_timeout(until.saturating_duration_since(clock::now()));
                }
                Turn::Stop => return,
            }
        }
    }

    /// Reports a panic of this worker. The items of its batch were answered as they were dropped.
    fn recover(&self, running: Option<BatchToken>) {
        let crew = &*self.crew;
        crew.running.end(self.index);
        crew.panics.panicked();
        if let Some(token) = running {
            crew.complete(token, Report::failed());
        }
        let name = thread::current().name().unwrap_or_default().to_owned();
        match crew.panics.failure() {
            None => log::error!("worker `{name}` panicked and was replaced; its batch failed"),
            Some(failure) => {
                log::error!("worker `{name}` panicked and was replaced; the model has failed: {failure}");
                // The message is passed on only once this worker has no assignment.
                while let Turn::Run(assignment) = crew.advance(self.index, [Message::Failed]) {
                    crew.abandon(assignment);
                }
            }
        }
    }

    /// The log context of a batch of these items.
    pub(super) fn context<'a>(
        &self,
        task: usize,
        items: impl Iterator<Item = &'a BatchedItem> + Clone,
    ) -> BatchContext {
        self.crew.tasks[task].context(items.map(|item| item.handle.request_tag()))
    }

    pub(super) fn model(&self) -> &dyn Model {
        self.crew.model.as_ref()
    }

    pub(super) fn metrics(&self, task: usize) -> &TaskMetrics {
        &self.crew.tasks[task].metrics
    }

    /// The time from the end of the previous batch to the start of this one. None if the worker may have been idle meanwhile:
    /// if the batch was not full, or its items were not all waiting.
    fn turnaround(
        &self,
        reason: DispatchReason,
        items: &[BatchedItem],
        started: Instant,
    ) -> Option<Duration> {
        let finished = self.finished.get()?;
        let is_full = matches!(
            reason,
            DispatchReason::Full | DispatchReason::Weight | DispatchReason::Enough
        );
        let waited = items.iter().all(|item| item.ready <= finished);
        (is_full && waited).then(|| started.saturating_duration_since(finished))
    }

    fn run(&self, assignment: Assignment, running: &mut Option<BatchToken>) {
        let Assignment { batch, waited } = assignment;
        let crew = &*self.crew;
        let task = &*crew.tasks[batch.task];
        let token = running.insert(batch.token);
        let (index, cost, memory) = (token.task(), token.cost(), token.memory());
        if let Some(bytes) = token.predicted_memory() {
            task.memory.predicted(bytes, &task.metrics);
        }
        let items: Vec<BatchedItem> = batch.items.into_iter().filter_map(BatchedItem::new).collect();
        let reason = batch.reason;
        task.metrics.count_batch(reason.as_str());
        task.metrics.batch_wait_seconds.observe(waited.as_secs_f64());
        task.metrics.batch_size.observe(items.len() as f64);
        task.metrics.batch_weight.observe(cost as f64);
        let background = items.iter().filter(|item| item.is_background).count();
        task.metrics.background_items.inc_by(background as u64);
        let shape = BatchShape::of(items.iter().map(|item| item.weight));
        task.memory.ran(&shape);
        task.metrics.item_weight.inc_by(shape.sum);

        let executing = Executing::new(&task.metrics, items.len());
        let started = clock::now();
        let context = self.context(index, items.iter());
        let expected = task
            .service()
            .map(|service| service.batch_time(items.len(), cost));
        crew.running
            .begin(self.index, Arc::new(context), started, expected, memory);
        let mut run = BatchRun::new(self, index, started);
        let outcomes = run.run(&items, cost);
        let finished = clock::now();
        crew.running.end(self.index);
        drop(executing);
        let inference = finished - started;
        task.metrics.inference_seconds.observe(inference.as_secs_f64());
        task.metrics.stage_latencies.inference.observe(inference);
        task.statistics.batch_ran(items.len(), inference);
        crew.panics.batch_completed();
        let succeeded = outcomes.iter().any(|outcome| matches!(outcome, Some(Ok(_))));
        // A batch that did not run as it was predicted does not show whether the prediction is right.
        if task.memory.is_predicted()
            && succeeded
            && run.calls == 1
            && let Some(bytes) = crew.model.batch_memory(self.index)
        {
            crew.memory_measured(index, shape, bytes);
        }
        if let Some(token) = running.take() {
            let report = Report {
                outcome: BatchOutcome {
                    started: run.started,
                    finished,
                    succeeded,
                },
                out_of_memory: run.out_of_memory,
                // Waiting for a process that restarts takes longer, and is not expected of the next batch.
                turnaround: self
                    .turnaround(reason, &items, started)
                    .map(|time| time.min(inference)),
            };
            self.finished.set(Some(finished));
            crew.complete(token, report);
        }
        let ended = EndedBatch {
            started,
            took: inference,
            weight: cost,
            reason,
            worker: self.index,
        };
        answer(items, outcomes, ended, &task.metrics);
    }
}

fn answer(items: Vec<BatchedItem>, outcomes: Vec<Option<Outcome>>, ended: EndedBatch, metrics: &TaskMetrics) {
    ended.record(&items);
    let mut last: Option<&ItemHandle> = None;
    for item in &items {
        let waited = item.waited(ended.started);
        if !item.is_background {
            metrics.queue_seconds.observe(waited.as_secs_f64());
            metrics.stage_latencies.queue.observe(waited);
        }
        item.handle.waited(waited);
        // The items of a request are next to each other in a batch.
        if !last.is_some_and(|last| last.is_of_same_request(&item.handle)) {
            item.handle.ran_in(ended.took);
        }
        last = Some(&item.handle);
    }
    for (item, outcome) in items.into_iter().zip(outcomes) {
        match outcome {
            Some(outcome) => item.handle.settle(outcome),
            None => item.handle.cancel(),
        }
        // After the reply, so that freeing what a plugin prepared does not delay it.
        drop((item.input, item.prepared));
    }
}
