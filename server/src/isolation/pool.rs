//! The children of one model: which of them serve, which is free, and which one an item or a batch goes to.
//!
//! # Where items are prepared
//! What was prepared in a child can be run only there, so items are prepared where they will probably be run: in the child
//! that will take the batch that they will be in. Children take batches in the order in which they become free, which is
//! about the order in which they started their present ones; and the batch that an item will be in is known by how many
//! prepared items are ahead of it. Where the guess fails, the item is prepared a second time.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use plugin_abi::manifest::{ModelManifest, TaskManifest};

use super::backoff::{Backoff, Restarts};
use super::process::{Death, Process};
use super::remote::RemoteModel;
use crate::clock;
use crate::metrics::WorkerMetrics;
use crate::model::{BatchItem, Health};

/// See the module.
pub(super) struct Pool {
    metrics: Arc<WorkerMetrics>,
    manifest: OnceLock<ModelManifest>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    slots: Vec<Slot>,
    /// Whether each worker has been promised a child for its next batch.
    promised: Vec<bool>,
    ending: bool,
    /// Size of a full batch, by those of late.
    batch_size: f64,
    /// Crash loops that the metrics show.
    shown: usize,
}

struct Slot {
    phase: Phase,
    restarts: Restarts,
    /// How its last child ended.
    last_end: Option<String>,
}

enum Phase {
    /// It is being launched, loaded or warmed up.
    Starting(Option<Arc<Process>>),
    /// It waits for a batch.
    Free(Arc<RemoteModel>),
    /// It runs a batch, since then.
    Busy(Arc<RemoteModel>, Instant),
    /// It has ended, and the next one is waited for.
    Down,
}

impl Slot {
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
    pub(super) fn new(children: usize, backoff: Backoff, metrics: Arc<WorkerMetrics>) -> Self {
        let slot = || Slot {
            phase: Phase::Starting(None),
            restarts: Restarts::new(backoff),
            last_end: None,
        };
        Self {
            metrics,
            manifest: OnceLock::new(),
            state: Mutex::new(State {
                slots: std::iter::repeat_with(slot).take(children).collect(),
                promised: vec![false; children],
                ending: false,
                batch_size: 1.0,
                shown: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the model is, once the first child has said it.
    pub(super) fn manifest(&self) -> Option<&ModelManifest> {
        self.manifest.get()
    }

    /// What a child reports that the model is. Whether the first child has reported the same, apart from what it tried: a
    /// trial may fail in one process and succeed in the next.
    pub(super) fn agree(&self, manifest: &ModelManifest) -> bool {
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

    /// A child has been launched.
    pub(super) fn starting(&self, slot: usize, process: Arc<Process>) {
        let mut state = self.lock();
        if state.ending {
            process.kill();
        }
        state.slots[slot].phase = Phase::Starting(Some(process));
    }

    /// A child serves, unless the model is not needed any more.
    pub(super) fn up(&self, slot: usize, model: Arc<RemoteModel>) {
        let mut state = self.lock();
        if state.ending {
            return;
        }
        let slot = &mut state.slots[slot];
        slot.restarts.started(clock::now());
        slot.phase = Phase::Free(model);
        self.metrics.processes.inc();
        self.show(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// A child is lost to whoever spoke with it: nothing goes to it any more.
    pub(super) fn lose(&self, model: &Arc<RemoteModel>) {
        if let Some(slot) = self.lock().slot_of(model) {
            self.leave(slot);
        }
    }

    /// A child has ended, or could not be started. How long to wait before the next start.
    pub(super) fn down(&self, slot: usize, death: &Death) -> Duration {
        let mut state = self.lock();
        let slot = &mut state.slots[slot];
        self.leave(slot);
        slot.last_end = Some(death.public.as_ref().unwrap_or(&death.text).clone());
        let pause = slot.restarts.died(clock::now(), fastrand::f64());
        if !state.ending {
            self.metrics.count_restart(death.reason);
        }
        self.show(&mut state);
        drop(state);
        // Those who wait for a child may have to wait longer than is worth it.
        self.changed.notify_all();
        pause
    }

    fn leave(&self, slot: &mut Slot) {
        if slot.model().is_some() {
            self.metrics.processes.dec();
        }
        slot.phase = Phase::Down;
    }

    /// Shows how many children are in a crash loop. The series is shared with other generations of the model.
    fn show(&self, state: &mut State) {
        let in_crash_loop = |slot: &&Slot| slot.model().is_none() && slot.restarts.is_crash_loop();
        let now = match state.ending {
            true => 0,
            false => state.slots.iter().filter(in_crash_loop).count(),
        };
        self.metrics.crash_loops.add(now as i64 - state.shown as i64);
        state.shown = now;
    }

    /// Ends the children that compute now, in the middle of it. None is started any more.
    pub(super) fn kill_computing(&self) {
        let mut state = self.lock();
        state.ending = true;
        let models = state.slots.iter().filter_map(Slot::model);
        models
            .filter(|model| model.is_computing())
            .for_each(|model| model.kill());
    }

    /// Whether children are being ended, and none is started any more.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().ending
    }

    /// The model is not needed any more: children that are still starting are ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        for slot in &mut state.slots {
            if let Phase::Starting(Some(process)) = &slot.phase {
                process.kill();
            }
            self.leave(slot);
        }
        self.show(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there is a free child for the next batch of `worker`, and promises it one.
    pub(super) fn promise(&self, worker: usize, patience: Duration) -> bool {
        let lacking = |state: &mut State| {
            let free = state.slots.iter().filter(|slot| slot.is_free()).count();
            let others = state.promised.iter().enumerate();
            let promised = others
                .filter(|(other, promised)| **promised && *other != worker)
                .count();
            free <= promised
        };
        let (mut state, waited) = self
            .changed
            .wait_timeout_while(self.lock(), patience, lacking)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(promised) = state.promised.get_mut(worker) {
            *promised = !waited.timed_out();
        }
        !waited.timed_out()
    }

    /// Takes the free child that holds most of the items of a batch.
    pub(super) fn take(&self, worker: usize, items: &[BatchItem<'_>]) -> Option<Arc<RemoteModel>> {
        let mut state = self.lock();
        if let Some(promised) = state.promised.get_mut(worker) {
            *promised = false;
        }
        let free = state
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, state)| match &state.phase {
                Phase::Free(model) => Some((slot, model.clone())),
                _ => None,
            });
        // Of those that hold as many, the first.
        let (slot, model) = free.rev().max_by_key(|(_, model)| model.holds(items))?;
        state.slots[slot].phase = Phase::Busy(model.clone(), clock::now());
        state.batch_size = (items.len() as f64).max(state.batch_size * 0.9);
        Some(model)
    }

    /// A child has completed its batch.
    pub(super) fn give_back(&self, model: &Arc<RemoteModel>) {
        let mut state = self.lock();
        if let Some(slot) = state.slot_of(model) {
            slot.phase = Phase::Free(model.clone());
            slot.restarts.proved();
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The child in which an item is best prepared. Waits for one if there is none, unless there will be none for long.
    pub(super) fn for_preparation(&self, patience: Duration) -> Result<Arc<RemoteModel>, Health> {
        let none = |state: &mut State| {
            state.slots.iter().all(|slot| slot.model().is_none())
                && !state.ending
                && !matches!(state.health(), Health::CrashLoop { .. })
        };
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, none)
            .unwrap_or_else(PoisonError::into_inner);
        let mut living: Vec<&Slot> = state.slots.iter().filter(|slot| slot.model().is_some()).collect();
        living.sort_by_key(|slot| match &slot.phase {
            Phase::Busy(_, since) => Some(*since),
            _ => None,
        });
        let models: Vec<&Arc<RemoteModel>> = living.iter().filter_map(|slot| slot.model()).collect();
        let ahead: usize = models.iter().map(|model| model.held()).sum();
        let turn = (ahead as f64 / state.batch_size) as usize;
        match models.len() {
            0 => Err(state.health()),
            count => Ok(models[turn % count].clone()),
        }
    }

    /// Whether the model can run a batch now, or why not.
    pub(super) fn health(&self) -> Health {
        self.lock().health()
    }
}

impl State {
    /// Where a child is, unless it is lost.
    fn slot_of(&mut self, model: &Arc<RemoteModel>) -> Option<&mut Slot> {
        self.slots
            .iter_mut()
            .find(|slot| slot.model().is_some_and(|own| Arc::ptr_eq(own, model)))
    }

    fn health(&self) -> Health {
        if self.slots.iter().any(|slot| slot.model().is_some()) {
            return Health::Ready;
        }
        let looping = self.slots.iter().find(|slot| slot.restarts.is_crash_loop());
        let last = looping.or(self.slots.iter().find(|slot| slot.last_end.is_some()));
        let last = last.and_then(|slot| slot.last_end.as_deref());
        let reason = format!("its process {}", last.unwrap_or("is being ended"));
        match looping {
            Some(_) => Health::CrashLoop { reason },
            None => Health::Recovering { reason },
        }
    }
}
