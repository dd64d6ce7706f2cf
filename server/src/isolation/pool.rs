//! The child processes of one model: which of them are serving, which are free, and which one gets an item or a batch.
//!
//! # Where items are prepared
//! A prepared item can only be run in the process that prepared it. Items are therefore prepared in the process that will
//! probably run their batch. Processes take batches in the order in which they become free, which is about the order in which
//! they started their current batches, and the number of prepared items ahead of an item predicts which batch it will be in.
//! If the prediction is wrong, the item is prepared again.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use plugin_abi::manifest::{ModelManifest, TaskManifest};

use super::backoff::{RestartBackoff, RestartDelays};
use super::process::{Process, ProcessExit};
use super::published_processes::PublishedProcess;
use super::remote::RemoteModel;
use crate::clock;
use crate::metrics::WorkerMetrics;
use crate::model::{BatchItem, Health, WorkerPhase, WorkerProcess};

/// The child processes of one model.
pub(super) struct Pool {
    metrics: Arc<WorkerMetrics>,
    manifest: OnceLock<ModelManifest>,
    state: Mutex<State>,
    changed: Condvar,
    /// As of the last change of `state`. The event loop reads it for every request, and must not wait for the lock, which
    /// threads of lower priority hold.
    health: ArcSwap<Health>,
    /// What each slot does, for the same reason.
    published: Box<[Arc<PublishedProcess>]>,
}

/// The locked state, whose health is published when it is unlocked.
struct Locked<'a> {
    state: MutexGuard<'a, State>,
    health: &'a ArcSwap<Health>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let health = self.state.health();
        if **self.health.load() != health {
            self.health.store(Arc::new(health));
        }
    }
}

struct State {
    slots: Vec<Slot>,
    /// Whether a child process is reserved for the next batch of each worker.
    reserved: Vec<bool>,
    stopping: bool,
    /// Estimated size of a full batch, from recent batches.
    batch_size: f64,
    /// Number of crash loops that the metrics currently show.
    reported_crash_loops: usize,
}

struct Slot {
    /// Changed by [`Slot::set_phase`].
    phase: Phase,
    published: Arc<PublishedProcess>,
    backoff: RestartBackoff,
    /// How its last process exited.
    last_exit: Option<String>,
}

enum Phase {
    /// The process is being started, loaded or warmed up.
    Starting(Option<Arc<Process>>),
    /// It is waiting for a batch.
    Free(Arc<RemoteModel>),
    /// It has been running a batch since this time.
    Busy(Arc<RemoteModel>, Instant),
    /// It has exited and has not been restarted yet.
    Down,
}

impl Slot {
    fn set_phase(&mut self, phase: Phase) {
        match &phase {
            Phase::Starting(_) | Phase::Down => self.published.set_phase(WorkerPhase::Restarting),
            Phase::Free(model) => {
                self.published.set_process_id(model.process_id());
                self.published.set_phase(WorkerPhase::Waiting);
            }
            Phase::Busy(..) => self.published.set_phase(WorkerPhase::Busy),
        }
        self.phase = phase;
    }

    fn model(&self) -> Option<&Arc<RemoteModel>> {
        match &self.phase {
            Phase::Free(model) | Phase::Busy(model, _) => Some(model),
            Phase::Starting(_) | Phase::Down => None,
        }
    }

    fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Free(_))
    }
}

impl Pool {
    pub(super) fn new(children: usize, delays: RestartDelays, metrics: Arc<WorkerMetrics>) -> Self {
        let published: Box<[_]> = (0..children)
            .map(|_| Arc::new(PublishedProcess::new(clock::now())))
            .collect();
        let slot = |published: &Arc<PublishedProcess>| Slot {
            phase: Phase::Starting(None),
            published: published.clone(),
            backoff: RestartBackoff::new(delays),
            last_exit: None,
        };
        Self {
            metrics,
            manifest: OnceLock::new(),
            state: Mutex::new(State {
                slots: published.iter().map(slot).collect(),
                reserved: vec![false; children],
                stopping: false,
                batch_size: 1.0,
                reported_crash_loops: 0,
            }),
            changed: Condvar::new(),
            health: ArcSwap::from_pointee(Health::Ready),
            published,
        }
    }

    /// What each process does. Does not wait for the lock.
    pub(super) fn processes(&self) -> Vec<WorkerProcess> {
        let now = clock::now();
        self.published.iter().map(|process| process.read(now)).collect()
    }

    fn lock(&self) -> Locked<'_> {
        Locked {
            state: self.lock_to_read(),
            health: &self.health,
        }
    }

    /// Locks the state for changes that do not concern its health, or for none.
    fn lock_to_read(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest that the first process reported.
    pub(super) fn manifest(&self) -> Option<&ModelManifest> {
        self.manifest.get()
    }

    /// Checks that a process reports the same model as the first one. Ignores the outcomes of trials, which may differ between
    /// processes.
    pub(super) fn check_manifest(&self, manifest: &ModelManifest) -> bool {
        let first = self.manifest.get_or_init(|| manifest.clone());
        let untried = |task: &TaskManifest| TaskManifest {
            trial: None,
            ..task.clone()
        };
        let (known, tasks) = (
            first.tasks.iter().map(untried),
            manifest.tasks.iter().map(untried),
        );
        first.platform == manifest.platform && known.eq(tasks)
    }

    /// Records a process that has been started.
    pub(super) fn set_starting(&self, slot: usize, process: Arc<Process>) {
        let mut state = self.lock();
        if state.stopping {
            process.kill();
        }
        state.slots[slot].set_phase(Phase::Starting(Some(process)));
    }

    /// Makes a process available for batches, unless the pool is shutting down.
    pub(super) fn add(&self, slot: usize, model: Arc<RemoteModel>) {
        let mut state = self.lock();
        if state.stopping {
            return;
        }
        let slot = &mut state.slots[slot];
        slot.backoff.serving(clock::now());
        slot.set_phase(Phase::Free(model));
        self.metrics.processes.inc();
        self.report_crash_loops(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// Removes a process after a failed call, so that it gets no further calls.
    pub(super) fn remove(&self, model: &Arc<RemoteModel>) {
        if let Some(slot) = self.lock().slot_of(model) {
            self.take_down(slot);
        }
    }

    /// Records that a process exited or could not be started. Returns the delay before the next start.
    pub(super) fn mark_down(&self, index: usize, exit: &ProcessExit) -> Duration {
        let mut state = self.lock();
        let slot = &mut state.slots[index];
        self.take_down(slot);
        slot.last_exit = Some(
            exit.public_description
                .as_ref()
                .unwrap_or(&exit.description)
                .clone(),
        );
        let delay = slot.backoff.exited(clock::now(), fastrand::f64());
        if !state.stopping {
            self.metrics.count_restart(exit.reason);
            self.published[index].count_restart();
        }
        self.report_crash_loops(&mut state);
        drop(state);
        // Callers that wait for a process may have to give up.
        self.changed.notify_all();
        delay
    }

    fn take_down(&self, slot: &mut Slot) {
        if slot.model().is_some() {
            self.metrics.processes.dec();
        }
        slot.set_phase(Phase::Down);
    }

    /// Updates the metric of crash loops. It is shared with other generations of the model.
    fn report_crash_loops(&self, state: &mut State) {
        let in_crash_loop = |slot: &&Slot| slot.model().is_none() && slot.backoff.is_crash_loop();
        let now = match state.stopping {
            true => 0,
            false => state.slots.iter().filter(in_crash_loop).count(),
        };
        self.metrics
            .crash_loops
            .add(now as i64 - state.reported_crash_loops as i64);
        state.reported_crash_loops = now;
    }

    /// Kills the processes that are computing. No process is started afterwards.
    pub(super) fn kill_busy(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let models = state.slots.iter().filter_map(Slot::model);
        models
            .filter(|model| model.is_computing())
            .for_each(|model| model.kill());
    }

    /// The first process that is serving.
    pub(super) fn first_serving(&self) -> Option<Arc<RemoteModel>> {
        self.lock().slots.iter().find_map(Slot::model).cloned()
    }

    /// Whether the pool is shutting down.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock_to_read().stopping
    }

    /// Shuts the pool down. Kills processes that are still starting.
    pub(super) fn shut_down(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for slot in &mut state.slots {
            if let Phase::Starting(Some(process)) = &slot.phase {
                process.kill();
            }
            self.take_down(slot);
        }
        self.report_crash_loops(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a process is free for the next batch of `worker`, and reserves it. Returns whether it succeeded.
    pub(super) fn reserve(&self, worker: usize, timeout: Duration) -> bool {
        let none_available = |state: &mut State| {
            let free = state.slots.iter().filter(|slot| slot.is_free()).count();
            let others = state.reserved.iter().enumerate();
            let reserved = others
                .filter(|(other, reserved)| **reserved && *other != worker)
                .count();
            free <= reserved
        };
        let (mut state, waited) = self
            .changed
            .wait_timeout_while(self.lock_to_read(), timeout, none_available)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(reserved) = state.reserved.get_mut(worker) {
            *reserved = !waited.timed_out();
        }
        !waited.timed_out()
    }

    /// Takes the idle process that prepared the largest number of the batch's items.
    pub(super) fn acquire(&self, worker: usize, items: &[BatchItem<'_>]) -> Option<Arc<RemoteModel>> {
        let mut state = self.lock_to_read();
        if let Some(reserved) = state.reserved.get_mut(worker) {
            *reserved = false;
        }
        let free = state
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, state)| match &state.phase {
                Phase::Free(model) => Some((slot, model.clone())),
                _ => None,
            });
        // The first one, if several have prepared the same number.
        let (slot, model) = free.rev().max_by_key(|(_, model)| model.count_prepared(items))?;
        state.slots[slot].set_phase(Phase::Busy(model.clone(), clock::now()));
        state.batch_size = (items.len() as f64).max(state.batch_size * 0.9);
        Some(model)
    }

    /// Returns a process that has completed its batch.
    pub(super) fn release(&self, model: &Arc<RemoteModel>) {
        let mut state = self.lock();
        if let Some(slot) = state.slot_of(model) {
            slot.set_phase(Phase::Free(model.clone()));
            slot.backoff.batch_completed();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Chooses the process that should prepare an item. Waits for a process unless the model is in a crash loop.
    pub(super) fn choose_for_preparation(&self, timeout: Duration) -> Result<Arc<RemoteModel>, Health> {
        let none_serving = |state: &mut State| {
            state.slots.iter().all(|slot| slot.model().is_none())
                && !state.stopping
                && !matches!(state.health(), Health::CrashLoop { .. })
        };
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock_to_read(), timeout, none_serving)
            .unwrap_or_else(PoisonError::into_inner);
        let mut serving: Vec<&Slot> = state.slots.iter().filter(|slot| slot.model().is_some()).collect();
        serving.sort_by_key(|slot| match &slot.phase {
            Phase::Busy(_, since) => Some(*since),
            _ => None,
        });
        let models: Vec<&Arc<RemoteModel>> = serving.iter().filter_map(|slot| slot.model()).collect();
        let ahead: usize = models.iter().map(|model| model.prepared_count()).sum();
        let batches_ahead = (ahead as f64 / state.batch_size) as usize;
        match models.len() {
            0 => Err(state.health()),
            count => Ok(models[batches_ahead % count].clone()),
        }
    }

    /// Whether the model can run a batch now.
    pub(super) fn health(&self) -> Health {
        self.health.load().as_ref().clone()
    }
}

impl State {
    /// The slot of a process, unless the process has been removed.
    fn slot_of(&mut self, model: &Arc<RemoteModel>) -> Option<&mut Slot> {
        self.slots
            .iter_mut()
            .find(|slot| slot.model().is_some_and(|own| Arc::ptr_eq(own, model)))
    }

    fn health(&self) -> Health {
        if self.slots.iter().any(|slot| slot.model().is_some()) {
            return Health::Ready;
        }
        let in_crash_loop = self.slots.iter().find(|slot| slot.backoff.is_crash_loop());
        let last = in_crash_loop.or(self.slots.iter().find(|slot| slot.last_exit.is_some()));
        let last = last.and_then(|slot| slot.last_exit.as_deref());
        let reason = format!("its worker process {}", last.unwrap_or("is shutting down"));
        match in_crash_loop {
            Some(_) => Health::CrashLoop { reason },
            None => Health::Recovering { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Buckets, Metrics, RestartReason};

    fn exit() -> ProcessExit {
        ProcessExit {
            description: "crashed".to_owned(),
            public_description: None,
            reason: RestartReason::Crash,
        }
    }

    #[test]
    fn the_health_is_that_of_the_last_change_even_while_a_thread_holds_the_lock() {
        let metrics = Metrics::new(Buckets::NONE).expect("the metrics are consistent");
        let delays = RestartDelays {
            initial: Duration::from_millis(1),
            max: Duration::from_secs(1),
        };
        let pool = Pool::new(1, delays, metrics.workers("m"));
        let reason = "its worker process crashed".to_owned();
        pool.mark_down(0, &exit());
        let locked = pool.lock_to_read();
        let health = std::thread::scope(|scope| scope.spawn(|| pool.health()).join());
        assert_eq!(
            health.expect("it does not panic"),
            Health::Recovering {
                reason: reason.clone()
            }
        );
        drop(locked);
        for _ in 0..4 {
            pool.mark_down(0, &exit());
        }
        let _locked = pool.lock_to_read();
        let health = std::thread::scope(|scope| scope.spawn(|| pool.health()).join());
        assert_eq!(health.expect("it does not panic"), Health::CrashLoop { reason });
    }
}
