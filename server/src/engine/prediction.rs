//! One batch's way through the model: in halves if memory is short, and again if what ran it was lost.

use std::time::{Duration, Instant};

use super::Outcome;
use super::queue::Queued;
use super::sink::BatchSink;
use super::worker::{Worker, crash_loop};
use crate::batcher::Item;
use crate::clock;
use crate::error::ItemError;
use crate::model::{BatchError, BatchItem, Health};

/// How often a worker without anything to run a batch looks after what waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Prediction<'a> {
    worker: &'a Worker,
    task: usize,
    /// When the model was last given a batch. What was lost before is no measure of what batches cost.
    pub(super) started: Instant,
    /// The smallest cost that did not fit.
    pub(super) too_much: Option<u64>,
}

/// What has become of a batch so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// Nothing.
    First,
    /// It was lost once.
    Second,
    /// It was lost twice, and this item of it runs alone.
    Alone,
}

/// An item of a batch, and its place among the outcomes.
type Placed<'a> = (usize, &'a Item<Queued>);

impl<'a> Prediction<'a> {
    pub(super) fn new(worker: &'a Worker, task: usize, started: Instant) -> Self {
        Self {
            worker,
            task,
            started,
            too_much: None,
        }
    }

    /// One outcome per item; none for an item that nobody waits for any more. An error of the batch, or a breach of the
    /// contract, fails all of its items.
    pub(super) fn predict(&mut self, items: &[Item<Queued>], cost: u64) -> Vec<Option<Outcome>> {
        let mut outcomes: Vec<Option<Outcome>> = std::iter::repeat_with(|| None).take(items.len()).collect();
        let placed: Vec<Placed<'_>> = items.iter().enumerate().collect();
        self.attempt(&placed, cost, Attempt::First, &mut outcomes);
        outcomes
    }

    fn attempt(
        &mut self,
        items: &[Placed<'_>],
        cost: u64,
        attempt: Attempt,
        outcomes: &mut [Option<Outcome>],
    ) {
        let error = match self.run(items) {
            None => return,
            Some(Ok(settled)) => {
                for ((place, _), outcome) in items.iter().zip(settled) {
                    outcomes[*place] = Some(outcome);
                }
                return;
            }
            Some(Err(BatchError::OutOfMemory(message))) if items.len() > 1 => {
                self.worker.tasks[self.task].metrics.out_of_memory.inc();
                log::debug!("a batch of {} items is halved: {message}", items.len());
                self.too_much = Some(self.too_much.map_or(cost, |least| least.min(cost)));
                return self.halve(items, cost, attempt, outcomes);
            }
            Some(Err(BatchError::TooLarge(error))) if items.len() > 1 => {
                log::debug!("a batch of {} items is halved: {error}", items.len());
                return self.halve(items, cost, attempt, outcomes);
            }
            Some(Err(BatchError::TooLarge(error))) => error,
            Some(Err(BatchError::OutOfMemory(message))) => {
                self.worker.tasks[self.task].metrics.out_of_memory.inc();
                ItemError::OutOfMemory(message)
            }
            Some(Err(BatchError::WorkerLost(reason))) => {
                return self.lost(items, cost, attempt, &reason, outcomes);
            }
            Some(Err(BatchError::Failed(error))) => error,
            Some(Err(BatchError::NoWorker)) => match self.worker.model.health() {
                Health::CrashLoop { reason } => crash_loop(&reason),
                _ => ItemError::Fault(BatchError::NoWorker.to_string()),
            },
            Some(Err(error @ BatchError::Panicked(_))) => ItemError::Fault(error.to_string()),
        };
        self.fail(items, &error, outcomes);
    }

    fn halve(&mut self, items: &[Placed<'_>], cost: u64, attempt: Attempt, outcomes: &mut [Option<Outcome>]) {
        let (first, second) = items.split_at(items.len() / 2);
        self.attempt(first, cost / 2, attempt, outcomes);
        self.attempt(second, cost - cost / 2, attempt, outcomes);
    }

    /// What ran the batch was lost. The batch is run once more, then item by item; who is lost alone, after a first loss, is
    /// to blame.
    fn lost(
        &mut self,
        items: &[Placed<'_>],
        cost: u64,
        attempt: Attempt,
        reason: &str,
        outcomes: &mut [Option<Outcome>],
    ) {
        let name = &self.worker.tasks[self.task].name;
        let wanted: Vec<Placed<'_>> = items
            .iter()
            .filter(|(_, item)| item.payload.ticket.is_wanted())
            .copied()
            .collect();
        match (attempt, wanted.as_slice()) {
            (_, []) => {}
            (Attempt::First, wanted) => {
                log::warn!(
                    "task `{name}`: the process that ran a batch of {} items {reason}; running it again",
                    items.len()
                );
                self.attempt(wanted, cost, Attempt::Second, outcomes);
            }
            (Attempt::Second, wanted) if items.len() > 1 => {
                log::warn!(
                    "task `{name}`: the process that ran a batch of {} items again {reason}; running its items one by one",
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

    fn fail(&self, items: &[Placed<'_>], error: &ItemError, outcomes: &mut [Option<Outcome>]) {
        log::error!(
            "task `{}`: a batch of {} items failed: {error}",
            self.worker.tasks[self.task].name,
            items.len()
        );
        for (place, _) in items {
            outcomes[*place] = Some(Err(error.clone()));
        }
    }

    /// Gives the items to the model, as soon as it has something to run them. `None` if meanwhile nobody waits for them.
    fn run(&mut self, items: &[Placed<'_>]) -> Option<Result<Vec<Outcome>, BatchError>> {
        let worker = self.worker;
        let batch: Vec<BatchItem<'_>> = items
            .iter()
            .map(|(_, item)| BatchItem {
                input: &item.payload.input,
                prepared: item.payload.prepared.as_ref(),
            })
            .collect();
        loop {
            let mut sink = BatchSink::new(items.len());
            let started = clock::now();
            let result = worker
                .model
                .predict_batch(worker.index, self.task, &batch, &mut sink);
            if result == Err(BatchError::NoWorker) {
                if items.iter().all(|(_, item)| !item.payload.ticket.is_wanted()) {
                    return None;
                }
                if matches!(worker.model.health(), Health::CrashLoop { .. }) {
                    return Some(Err(BatchError::NoWorker));
                }
                worker.model.wait_for_worker(worker.index, PATIENCE);
                continue;
            }
            self.started = started;
            if result.is_ok() {
                for (place, weight) in sink.take_weights() {
                    let payload = &items[place].1.payload;
                    if payload.prepared.is_none() {
                        payload.ticket.add_weight(weight);
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
