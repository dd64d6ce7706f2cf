//! Where each item of a request is: waiting, running or answered.
//!
//! Several threads want to move an item at the same time: the client's (deadline, disconnect), one that prepares, the
//! scheduler, and the worker that runs it. The state of an item is one atomic word that holds its phase and the weight
//! that the queue counts for it, so every move is one compare-and-swap: exactly one thread wins it, and that thread alone
//! updates the counters and touches what the item owns in its new phase.
//!
//! ```text
//! Waiting ──▶ Preparing ──▶ Queued ──▶ Running ──▶ Settled
//!    │            │            │          │
//!    └────────────┴────────────┴──────────┴──────▶ Settled or Cancelled
//! ```
//!
//! - The input belongs to the slot while the item is `Waiting` or `Queued`, and to the thread that prepares or runs it
//!   otherwise.
//! - An outcome is stored only by the thread that moved the item to `Settled`, and read only after all items are.
//! - Neither lock in a slot is ever contended: the phase says who may take it.
//!
//! `server/tests/item_states.rs` checks this with every interleaving of the threads.

use super::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, PoisonError};

/// How far an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Admitted.
    Waiting,
    /// A thread prepares it.
    Preparing,
    /// Ready to run.
    Queued,
    /// In a batch.
    Running,
    /// Has an outcome, or is about to have it.
    Settled,
    /// Was cancelled, and has no outcome.
    Cancelled,
}

impl Phase {
    fn is_in_queue(self) -> bool {
        matches!(self, Self::Waiting | Self::Preparing | Self::Queued)
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Settled | Self::Cancelled)
    }
}

/// The state of an item, as one word: phase, whether its handle outlives its place in the queue, and counted weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    phase: Phase,
    is_detached: bool,
    weight: u64,
}

const PHASE_BITS: u64 = 0b111;
const DETACHED: u64 = 0b1000;
const WEIGHT_SHIFT: u32 = 4;

impl State {
    const fn new(phase: Phase) -> Self {
        Self {
            phase,
            is_detached: false,
            weight: 0,
        }
    }

    fn to_word(self) -> u64 {
        let detached = if self.is_detached { DETACHED } else { 0 };
        self.phase as u64 | detached | self.weight << WEIGHT_SHIFT
    }

    fn from_word(word: u64) -> Self {
        let phase = match word & PHASE_BITS {
            0 => Phase::Waiting,
            1 => Phase::Preparing,
            2 => Phase::Queued,
            3 => Phase::Running,
            4 => Phase::Settled,
            _ => Phase::Cancelled,
        };
        Self {
            phase,
            is_detached: word & DETACHED != 0,
            weight: word >> WEIGHT_SHIFT,
        }
    }
}

/// The counters of a queue, which follow the moves of its items.
pub(super) trait Counters {
    /// An item leaves the queue.
    fn remove_item(&self);
    /// Adds the weight of an item that is queued.
    fn add_weight(&self, weight: u64);
    /// Removes the weight of an item that is not queued any more, or not after all.
    fn remove_weight(&self, weight: u64);
    /// An item has left the queue, but the scheduler or the preparation still holds its handle.
    fn add_detached(&self);
    /// The handle of such an item was dropped, or the item had not left after all.
    fn remove_detached(&self);
}

/// Who moves an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The holder of its handle.
    Holder,
    /// The client's side: the handle stays where it is, until its holder notices.
    Client,
}

/// The result of an attempt to settle an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Another thread was first; the outcome was dropped.
    Not,
    /// Done. Other items of the request are open.
    Recorded,
    /// Done, and this was the last open item: the caller sends the reply.
    Last,
}

struct Slot<I, O> {
    state: AtomicU64,
    input: Mutex<Option<I>>,
    outcome: Mutex<Option<O>>,
}

/// The items of one request.
pub(super) struct ItemStates<I, O> {
    slots: Box<[Slot<I, O>]>,
    /// Items without an outcome. Cancelled ones never get one.
    open: AtomicUsize,
}

impl<I, O> ItemStates<I, O> {
    /// All items wait, with these inputs.
    pub(super) fn new(inputs: impl IntoIterator<Item = Option<I>>) -> Self {
        let slot = |input| Slot {
            state: AtomicU64::new(State::new(Phase::Waiting).to_word()),
            input: Mutex::new(input),
            outcome: Mutex::new(None),
        };
        let slots: Box<[_]> = inputs.into_iter().map(slot).collect();
        Self {
            open: AtomicUsize::new(slots.len()),
            slots,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn phase(&self, index: usize) -> Phase {
        self.load(index).phase
    }

    /// Moves an item that waits to its preparation, and returns its input; none if it does not wait any more.
    pub(super) fn prepare(&self, index: usize) -> Option<I> {
        let preparing = |state: State| {
            let preparing = State::new(Phase::Preparing);
            (state.phase == Phase::Waiting).then_some(preparing)
        };
        self.replace(index, preparing)?;
        take(&self.slots[index].input)
    }

    /// Moves an item that is prepared to the queue. Returns false if it does not wait any more.
    pub(super) fn queue_prepared(
        &self,
        index: usize,
        input: I,
        weight: u64,
        counters: &impl Counters,
    ) -> bool {
        // Before the move, after which the input belongs to the slot.
        *lock(&self.slots[index].input) = Some(input);
        let queued = self.queue_from(Phase::Preparing, index, weight, counters);
        if !queued {
            // This thread still owns it: a thread that moved the item did so from `Preparing` and did not touch the input.
            drop(take(&self.slots[index].input));
        }
        queued
    }

    /// Moves an item that needs no preparation to the queue. Returns false if it does not wait any more.
    pub(super) fn queue(&self, index: usize, weight: u64, counters: &impl Counters) -> bool {
        self.queue_from(Phase::Waiting, index, weight, counters)
    }

    fn queue_from(&self, from: Phase, index: usize, weight: u64, counters: &impl Counters) -> bool {
        debug_assert!(weight >> (u64::BITS - WEIGHT_SHIFT) == 0, "weights are limited");
        // Before the move, so that the thread that moves the item out of the queue never removes what was not added.
        counters.add_weight(weight);
        let queued = |state: State| {
            let queued = State {
                weight,
                ..State::new(Phase::Queued)
            };
            (state.phase == from).then_some(queued)
        };
        let is_queued = self.replace(index, queued).is_some();
        if !is_queued {
            counters.remove_weight(weight);
        }
        is_queued
    }

    /// Moves an item that is queued into a batch. Returns false if it is not queued any more.
    pub(super) fn start(&self, index: usize, counters: &impl Counters) -> bool {
        let running = |state: State| (state.phase == Phase::Queued).then_some(State::new(Phase::Running));
        let Some(before) = self.replace(index, running) else {
            return false;
        };
        leave_queue(before, counters);
        true
    }

    /// The input of an item, for the thread that moved it into a batch.
    pub(super) fn take_input(&self, index: usize) -> Option<I> {
        take(&self.slots[index].input)
    }

    /// Answers an item with the outcome that `outcome` makes for the phase it is in, unless it is over.
    pub(super) fn settle(
        &self,
        index: usize,
        by: By,
        outcome: impl FnOnce(Phase) -> O,
        counters: &impl Counters,
    ) -> Settled {
        let Some(before) = self.finish(index, Phase::Settled, by, counters) else {
            return Settled::Not;
        };
        *lock(&self.slots[index].outcome) = Some(outcome(before.phase));
        match self.open.fetch_sub(1, Ordering::AcqRel) {
            1 => Settled::Last,
            _ => Settled::Recorded,
        }
    }

    /// Cancels an item, unless it is over. Returns the phase that it was in.
    ///
    /// The client cancels only what waits: what runs is completed, and its outcome dropped.
    pub(super) fn cancel(&self, index: usize, by: By, counters: &impl Counters) -> Option<Phase> {
        self.finish(index, Phase::Cancelled, by, counters)
            .map(|before| before.phase)
    }

    /// Records that the handle of an item was dropped.
    pub(super) fn handle_dropped(&self, index: usize, counters: &impl Counters) {
        if self.load(index).is_detached {
            counters.remove_detached();
        }
    }

    /// Number of items that have an outcome, or are about to have it.
    pub(super) fn settled(&self) -> usize {
        self.slots.len() - self.open.load(Ordering::Acquire)
    }

    /// All outcomes, in order, for the caller that settled the last item.
    pub(super) fn take_outcomes(&self) -> impl Iterator<Item = Option<O>> {
        self.slots.iter().map(|slot| take(&slot.outcome))
    }

    /// Moves an item to a phase in which it is over.
    fn finish(&self, index: usize, phase: Phase, by: By, counters: &impl Counters) -> Option<State> {
        // Before the move, since the handle may be dropped right after it.
        if by == By::Client {
            counters.add_detached();
        }
        let over = |state: State| {
            let is_spared = by == By::Client && phase == Phase::Cancelled && state.phase == Phase::Running;
            (!state.phase.is_over() && !is_spared).then_some(State {
                phase,
                is_detached: by == By::Client && state.phase.is_in_queue(),
                weight: 0,
            })
        };
        let before = self.replace(index, over);
        if by == By::Client && !before.is_some_and(|before| before.phase.is_in_queue()) {
            counters.remove_detached();
        }
        let before = before?;
        if before.phase.is_in_queue() {
            leave_queue(before, counters);
        }
        if matches!(before.phase, Phase::Waiting | Phase::Queued) {
            drop(take(&self.slots[index].input));
        }
        Some(before)
    }

    fn load(&self, index: usize) -> State {
        State::from_word(self.slots[index].state.load(Ordering::Acquire))
    }

    /// Moves an item to the state that `next` returns for its present one. Returns the state before, or none if `next` did.
    fn replace(&self, index: usize, next: impl Fn(State) -> Option<State>) -> Option<State> {
        let word = &self.slots[index].state;
        let mut current = word.load(Ordering::Acquire);
        loop {
            let state = State::from_word(current);
            let next = next(state)?.to_word();
            match word.compare_exchange(current, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(state),
                Err(changed) => current = changed,
            }
        }
    }
}

fn leave_queue(before: State, counters: &impl Counters) {
    counters.remove_item();
    if before.phase == Phase::Queued {
        counters.remove_weight(before.weight);
    }
}

fn take<T>(mutex: &Mutex<Option<T>>) -> Option<T> {
    lock(mutex).take()
}

fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
