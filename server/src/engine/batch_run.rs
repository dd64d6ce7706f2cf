//! Runs one batch: in halves if memory is short, and again if the process that ran it was lost.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Outcome;
use super::crew::crash_loop;
use super::sink::BatchSink;
use super::worker::{BatchedItem, Worker};
use crate::batch_context::{BatchContext, log_batch, logged_error_count};
use crate::clock;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, FiniteEmbeddings, Health};

/// Interval at which a worker that has no process looks at the queue.
pub(super) const NO_PROCESS_INTERVAL: Duration = Duration::from_millis(50);

/// A batch that a worker runs.
pub(super) struct BatchRun<'a> {
    worker: &'a Worker,
    task: usize,
    /// When the model was last given a batch. Attempts that were lost before do not count as the cost of the batch.
    pub(super) started: Instant,
    /// The smallest cost that did not fit in memory.
    pub(super) out_of_memory: Option<u64>,
    /// Number of calls of the model: one, unless the batch was divided or lost.
    pub(super) calls: usize,
    /// Whether the plugin logged an error while it ran the last attempt.
    plugin_logged: bool,
}

/// The previous attempts to run a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Never before.
    First,
    /// It was lost once.
    Second,
    /// It was lost twice, and this item of it runs alone.
    Alone,
}

/// An item of a batch, and its index among the outcomes.
type Indexed<'a> = (usize, &'a BatchedItem);

impl<'a> BatchRun<'a> {
    pub(super) fn new(worker: &'a Worker, task: usize, started: Instant) -> Self {
        Self {
            worker,
            task,
            started,
            out_of_memory: None,
            calls: 0,
            plugin_logged: false,
        }
    }

    /// Returns one outcome per item; none for an item whose client has gone. An error of the batch, or a violation of the
    /// plugin's contract, fails all of its items.
    pub(super) fn run(&mut self, items: &[BatchedItem], cost: u64) -> Vec<Option<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = std::iter::repeat_with(|| None).take(items.len()).collect();
        let placed: Vec<Indexed<'_>> = items.iter().enumerate().collect();
        self.attempt(&placed, cost, Attempt::First, &mut outcomes);
        outcomes
    }

    fn attempt(
        &mut self,
        items: &[Indexed<'_>],
        cost: u64,
        attempt: Attempt,
        outcomes: &mut [Option<Outcome>],
    ) {
        let error = match self.call_model(items) {
            None => return,
            Some(Ok(settled)) => {
                self.log_failed_items(items, &settled);
                for ((place, _), outcome) in items.iter().zip(settled) {
                    outcomes[*place] = Some(outcome);
                }
                return;
            }
            Some(Err(BatchError::OutOfMemory(message))) if items.len() > 1 => {
                self.worker.metrics(self.task).out_of_memory.inc();
                log_batch!(
                    debug,
                    self.context(items),
                    "a batch of {} items ran out of memory; running it in halves: {message}",
                    items.len()
                );
                self.out_of_memory = Some(self.out_of_memory.map_or(cost, |least| least.min(cost)));
                return self.halve(items, cost, attempt, outcomes);
            }
            Some(Err(BatchError::TooLarge(error))) if items.len() > 1 => {
                log_batch!(
                    debug,
                    self.context(items),
                    "a batch of {} items is too large; running it in halves: {error}",
                    items.len()
                );
                return self.halve(items, cost, attempt, outcomes);
            }
            Some(Err(BatchError::TooLarge(error))) => error,
            Some(Err(BatchError::OutOfMemory(message))) => {
                self.worker.metrics(self.task).out_of_memory.inc();
                ItemError::OutOfMemory(message)
            }
            Some(Err(BatchError::WorkerLost(reason))) => {
                return self.lost(items, cost, attempt, &reason, outcomes);
            }
            Some(Err(BatchError::Failed(error))) => error,
            Some(Err(BatchError::NoWorker)) => match self.worker.model().health() {
                Health::CrashLoop { reason } => crash_loop(&reason),
                _ => ItemError::Fault(BatchError::NoWorker.to_string()),
            },
            Some(Err(error @ BatchError::Panicked(_))) => ItemError::Fault(error.to_string()),
        };
        self.fail(items, &error, outcomes);
    }

    fn halve(
        &mut self,
        items: &[Indexed<'_>],
        cost: u64,
        attempt: Attempt,
        outcomes: &mut [Option<Outcome>],
    ) {
        let (first, second) = items.split_at(items.len() / 2);
        self.attempt(first, cost / 2, attempt, outcomes);
        self.attempt(second, cost - cost / 2, attempt, outcomes);
    }

    /// The process that ran the batch was lost. The batch is run once more, then item by item. An item that is lost alone,
    /// after a first loss, is at fault.
    fn lost(
        &mut self,
        items: &[Indexed<'_>],
        cost: u64,
        attempt: Attempt,
        reason: &str,
        outcomes: &mut [Option<Outcome>],
    ) {
        let wanted: Vec<Indexed<'_>> = items
            .iter()
            .filter(|(_, item)| item.handle.is_wanted())
            .copied()
            .collect();
        match (attempt, wanted.as_slice()) {
            (_, []) => {}
            (Attempt::First, wanted) => {
                log_batch!(
                    warn,
                    self.context(items),
                    "the process that ran a batch of {} items {reason}; running the batch again",
                    items.len()
                );
                self.attempt(wanted, cost, Attempt::Second, outcomes);
            }
            (Attempt::Second, wanted) if items.len() > 1 => {
                log_batch!(
                    warn,
                    self.context(items),
                    "the process that ran a batch of {} items {reason} again; running its items one by one",
                    items.len()
                );
                for item in wanted {
                    self.attempt(&[*item], item.1.weight, Attempt::Alone, outcomes);
                }
            }
            (Attempt::Second | Attempt::Alone, wanted) => {
                let error = ItemError::Fault(format!(
                    "this item ends the process of the model: it {reason}, and so it did before when it ran this item"
                ));
                self.fail(wanted, &error, outcomes);
            }
        }
    }

    fn fail(&self, items: &[Indexed<'_>], error: &ItemError, outcomes: &mut [Option<Outcome>]) {
        let items_text = if items.len() == 1 { "item" } else { "items" };
        let batch = format_args!("a batch of {} {items_text} failed: {error}", items.len());
        self.log_failure(items, error, batch);
        for (place, _) in items {
            outcomes[*place] = Some(Err(error.clone()));
        }
    }

    /// Logs a failure: the model's own as an error unless the plugin has logged one, a client's for debugging.
    fn log_failure(&self, items: &[Indexed<'_>], error: &ItemError, message: fmt::Arguments<'_>) {
        if error.is_of_input() || self.plugin_logged {
            log_batch!(debug, self.context(items), "{message}");
        } else {
            log_batch!(error, self.context(items), "{message}");
        }
    }

    /// Logs the items that failed while their batch succeeded, in one line.
    fn log_failed_items(&self, items: &[Indexed<'_>], settled: &[Outcome]) {
        let faults = |(_, outcome): &(_, &Outcome)| outcome.as_ref().is_err_and(|error| !error.is_of_input());
        let failed: Vec<(&Indexed<'_>, &Outcome)> = items.iter().zip(settled).filter(faults).collect();
        if let Some((_, Err(error))) = failed.first() {
            let placed: Vec<Indexed<'_>> = failed.iter().map(|(placed, _)| **placed).collect();
            let message = format_args!("{} of {} items failed: {error}", failed.len(), items.len());
            self.log_failure(&placed, error, message);
        }
    }

    fn context(&self, items: &[Indexed<'_>]) -> BatchContext {
        self.worker
            .context(self.task, items.iter().map(|(_, item)| *item))
    }

    fn predict(&self, batch: &[BatchItem<'_>], sink: &mut BatchSink) -> Result<(), BatchError> {
        let (model, worker) = (self.worker.model(), self.worker.index);
        match model.manifest().tasks[self.task].embedding {
            true => model.predict_batch(worker, self.task, batch, &mut FiniteEmbeddings(sink)),
            false => model.predict_batch(worker, self.task, batch, sink),
        }
    }

    /// Passes the items to the model, as soon as it has a process to run them. `None` if their clients have gone meanwhile.
    fn call_model(&mut self, items: &[Indexed<'_>]) -> Option<Result<Vec<Outcome>, BatchError>> {
        let worker = self.worker;
        let batch: Vec<BatchItem<'_>> = items
            .iter()
            .map(|(_, item)| BatchItem {
                input: &item.input,
                prepared: item.prepared.as_ref(),
            })
            .collect();
        loop {
            let mut sink = BatchSink::new(items.len());
            let started = clock::now();
            let errors_before = logged_error_count();
            let entered = Arc::new(self.context(items)).enter();
            let result = self.predict(&batch, &mut sink);
            drop(entered);
            self.plugin_logged = logged_error_count() > errors_before;
            if result == Err(BatchError::NoWorker) {
                if items.iter().all(|(_, item)| !item.handle.is_wanted()) {
                    return None;
                }
                if matches!(worker.model().health(), Health::CrashLoop { .. }) {
                    return Some(Err(BatchError::NoWorker));
                }
                worker.model().wait_for_worker(worker.index, NO_PROCESS_INTERVAL);
                continue;
            }
            self.started = started;
            self.calls += 1;
            if result.is_ok() {
                for (index, weight) in sink.take_weights() {
                    let item = items[index].1;
                    if item.prepared.is_none() {
                        item.handle.add_weight(weight);
                    }
                }
            }
            return Some(result.and_then(|()| settled(sink, items.len())));
        }
    }
}

/// The outcomes of a batch that the model says it has run.
fn settled(sink: BatchSink, items: usize) -> Result<Vec<Outcome>, BatchError> {
    let fault = |message| BatchError::Failed(ItemError::Fault(message));
    let outcomes = sink.finish().map_err(fault)?;
    let answered = outcomes.iter().flatten().count();
    if answered != items {
        return Err(fault(format!(
            "the plugin answered {answered} of the {items} items of its batch"
        )));
    }
    Ok(outcomes.into_iter().flatten().collect())
}
