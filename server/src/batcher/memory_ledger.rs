//! The memory that the running batches of several models share.
//!
//! A state machine without threads, clocks or I/O: time is an argument. The driver, which owns the ledger, passes on the
//! requests of each model's scheduler, and polls the schedulers of the models that [`MemoryLedger::release`] and
//! [`MemoryLedger::withdraw`] return. It does not know batches.
//!
//! # Fairness
//! A model whose batch does not fit waits in a queue, in the order of its first request. Smaller batches of other models may
//! start before it, until it has waited for [`PATIENCE`]; from then on, nothing starts before it, so that the running
//! batches return enough memory. So a batch starts at the latest when [`PATIENCE`] and the time of the longest batch that
//! runs by then are over, plus the batches of the models that wait before it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Maximum time for which smaller batches of other models start before one that waits.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Identifies a model among those that share memory.
pub type Owner = u64;

/// A model that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    owner: Owner,
    since: Instant,
}

/// Reservations of memory, in bytes.
#[derive(Debug)]
pub struct MemoryLedger {
    capacity: u64,
    reserved: u64,
    /// In the order of their first request.
    waiting: VecDeque<Waiting>,
}

impl MemoryLedger {
    /// A ledger without reservations.
    pub fn new(capacity: u64) -> Self {
        Self {
            capacity,
            reserved: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Maximum of all reservations together.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// All reservations together.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Reserves `bytes`, or returns false if they do not fit, or if another model has waited too long. The model then waits
    /// until a later request is granted or it withdraws. A request that exceeds the capacity is granted if nothing is
    /// reserved.
    pub fn request(&mut self, owner: Owner, bytes: u64, now: Instant) -> bool {
        let mut before = self.waiting.iter().take_while(|waiting| waiting.owner != owner);
        let is_overtaking = before.any(|waiting| now.saturating_duration_since(waiting.since) >= PATIENCE);
        let sum = self.reserved.saturating_add(bytes);
        if is_overtaking || (self.reserved > 0 && sum > self.capacity) {
            if self.position(owner).is_none() {
                self.waiting.push_back(Waiting { owner, since: now });
            }
            return false;
        }
        self.remove(owner);
        self.reserved = sum;
        true
    }

    /// The models that wait, in their order. They have to be polled when one that waited before them has been granted its
    /// request, because they may have waited only for their turn.
    pub fn waiting(&self) -> impl Iterator<Item = Owner> {
        self.waiting.iter().map(|waiting| waiting.owner)
    }

    /// Releases reserved bytes. Returns the models that wait, which have to be polled, in their order.
    pub fn release(&mut self, bytes: u64) -> impl Iterator<Item = Owner> {
        self.reserved -= bytes;
        self.waiting()
    }

    /// Ends the wait of a model, if it waits. Returns the models that waited behind it, which have to be polled.
    pub fn withdraw(&mut self, owner: Owner) -> impl Iterator<Item = Owner> {
        let from = self.position(owner).unwrap_or(self.waiting.len());
        self.remove(owner);
        self.waiting().skip(from)
    }

    fn position(&self, owner: Owner) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.owner == owner)
    }

    fn remove(&mut self, owner: Owner) {
        if let Some(position) = self.position(owner) {
            self.waiting.remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn reservations_never_exceed_the_capacity_together() {
        let (mut ledger, now) = (MemoryLedger::new(100), clock::now());
        assert!(ledger.request(1, 60, now));
        assert!(!ledger.request(2, 41, now));
        assert!(ledger.request(3, 40, now));
        assert_eq!(ledger.release(60).collect::<Vec<_>>(), [2]);
        assert!(ledger.request(2, 41, now));
        assert_eq!(ledger.reserved(), 81);
    }

    #[test]
    fn smaller_requests_overtake_one_that_waits_until_its_patience_ends() {
        let (mut ledger, now) = (MemoryLedger::new(100), clock::now());
        assert!(ledger.request(1, 60, now));
        assert!(!ledger.request(2, 90, now));
        assert!(ledger.request(3, 10, now + PATIENCE / 2));
        assert!(!ledger.request(3, 10, now + PATIENCE));
        ledger.release(70).for_each(drop);
        assert!(
            !ledger.request(3, 10, now + PATIENCE),
            "it is still the turn of 2"
        );
        assert!(ledger.request(2, 90, now + PATIENCE));
        assert!(ledger.request(3, 10, now + PATIENCE));
    }

    #[test]
    fn models_that_waited_too_long_start_in_the_order_of_their_requests() {
        let (mut ledger, now) = (MemoryLedger::new(100), clock::now());
        assert!(ledger.request(1, 100, now));
        for owner in [2, 3, 4] {
            assert!(!ledger.request(owner, 100, now));
        }
        for owner in [2, 3, 4] {
            assert_eq!(ledger.release(100).next(), Some(owner));
            let granted: Vec<Owner> = (2..=4)
                .filter(|other| ledger.request(*other, 100, now + PATIENCE))
                .collect();
            assert_eq!(granted, [owner]);
        }
    }

    #[test]
    fn a_model_that_withdraws_lets_those_behind_it_start() {
        let (mut ledger, now) = (MemoryLedger::new(100), clock::now());
        assert!(ledger.request(1, 60, now));
        assert!(!ledger.request(2, 90, now));
        assert!(!ledger.request(3, 40, now + PATIENCE));
        assert_eq!(ledger.withdraw(2).collect::<Vec<_>>(), [3]);
        assert!(ledger.request(3, 40, now + PATIENCE));
        assert_eq!(ledger.withdraw(2).count(), 0);
    }

    #[test]
    fn a_request_that_exceeds_the_capacity_runs_alone() {
        let (mut ledger, now) = (MemoryLedger::new(100), clock::now());
        assert!(ledger.request(1, 1, now));
        assert!(!ledger.request(2, 200, now));
        ledger.release(1).for_each(drop);
        assert!(ledger.request(2, 200, now));
        assert!(!ledger.request(1, 1, now));
    }
}
