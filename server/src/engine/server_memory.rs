//! The memory that the batches of all models share: `memory_budget` in `[server]`.
//!
//! Adapts the [`MemoryLedger`] to threads. The lock is held only to change the ledger, never to wait or to wake, and the event
//! loop never takes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::batcher::memory_budget::SharedBudget;
use crate::batcher::memory_ledger::{MemoryLedger, Owner};

/// Lets the scheduler of a model be polled.
pub(super) type Wake = Arc<dyn Fn() + Send + Sync>;

/// The memory of all models.
pub struct ServerMemory {
    capacity: u64,
    state: Mutex<State>,
    /// As of the latest change, for readers that take no lock.
    reserved: AtomicU64,
}

struct State {
    ledger: MemoryLedger,
    models: BTreeMap<Owner, Wake>,
    next: Owner,
}

impl ServerMemory {
    /// Memory without reservations, in bytes.
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            state: Mutex::new(State {
                ledger: MemoryLedger::new(capacity),
                models: BTreeMap::new(),
                next: 0,
            }),
            reserved: AtomicU64::new(0),
        })
    }

    /// Maximum for the batches of all models that run at the same time.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that the running batches of all models hold.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Adds a model, which leaves when the returned value is dropped. `wake` must not block.
    pub(super) fn join(self: &Arc<Self>, wake: Wake) -> MemoryMember {
        let mut state = self.lock();
        let owner = state.next;
        state.next += 1;
        state.models.insert(owner, wake);
        MemoryMember {
            memory: self.clone(),
            owner,
            held: 0,
            is_waiting: false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the ledger, and wakes the models that `change` returns.
    fn change<R>(&self, change: impl FnOnce(&mut MemoryLedger) -> (R, Vec<Owner>)) -> R {
        let (result, wakes) = {
            let mut state = self.lock();
            let (result, owners) = change(&mut state.ledger);
            self.reserved.store(state.ledger.reserved(), Ordering::Relaxed);
            let wakes = owners.iter().filter_map(|owner| state.models.get(owner).cloned());
            (result, wakes.collect::<Vec<Wake>>())
        };
        for wake in wakes {
            wake();
        }
        result
    }
}

/// The part of one model. What it holds is released when it is dropped.
pub(super) struct MemoryMember {
    memory: Arc<ServerMemory>,
    owner: Owner,
    held: u64,
    is_waiting: bool,
}

impl std::fmt::Debug for MemoryMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes held by model {}", self.held, self.owner)
    }
}

impl SharedBudget for MemoryMember {
    fn capacity(&self) -> u64 {
        self.memory.capacity
    }

    fn reserve(&mut self, bytes: u64, now: Instant) -> bool {
        let (owner, was_waiting) = (self.owner, self.is_waiting);
        let granted = self.memory.change(|ledger| {
            let granted = ledger.request(owner, bytes, now);
            // Models behind this one may have waited only for their turn.
            let others = ledger
                .waiting()
                .take(if granted && was_waiting { usize::MAX } else { 0 });
            (granted, others.collect())
        });
        self.is_waiting = !granted;
        if granted {
            self.held += bytes;
        }
        granted
    }

    fn release(&mut self, bytes: u64) {
        self.held -= bytes;
        self.memory.change(|ledger| ((), ledger.release(bytes).collect()));
    }

    fn withdraw(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            let owner = self.owner;
            self.memory
                .change(|ledger| ((), ledger.withdraw(owner).collect()));
        }
    }
}

impl Drop for MemoryMember {
    fn drop(&mut self) {
        self.withdraw();
        if self.held > 0 {
            self.release(self.held);
        }
        self.memory.lock().models.remove(&self.owner);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::clock;

    fn counting() -> (Wake, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let wake = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        (Arc::new(wake), count)
    }

    #[test]
    fn a_model_that_waits_is_woken_when_another_releases_memory_or_leaves() {
        let (memory, now) = (ServerMemory::new(100), clock::now());
        let (wake, woken) = counting();
        let (mut one, mut other) = (memory.join(Arc::new(|| ())), memory.join(wake));
        assert!(one.reserve(60, now));
        assert!(!other.reserve(50, now));
        one.release(20);
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert!(other.reserve(50, now));
        assert_eq!(memory.reserved(), 90);
        assert!(!other.reserve(50, now));
        drop(one);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        assert!(other.reserve(50, now));
        drop(other);
        assert_eq!(memory.reserved(), 0);
    }
}
