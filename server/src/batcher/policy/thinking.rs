//! Clients of several workers that think: those that were answered and have not returned.
//!
//! Owned by the estimates about the closed-loop clients of one task. With several workers, a batch often ends before the
//! clients of the batch before it have returned, so an arrival cannot be attributed to the latest completion. Each of the
//! latest batches therefore keeps its own [`Window`]. An arrival is attributed to the oldest batch whose clients can still
//! be expected to return. It is unknown which client returned, but clients are alike: the number of those that still think,
//! and the sum of their think times, are exact.
//!
//! Clients that leave never return. They are not expected any more after twice the time in which practically all others
//! return.

use std::collections::VecDeque;
use std::time::Instant;

use super::closed_loop::WATCHED;
use super::profile::{Profile, Window};

/// Number of batches of each worker whose clients are observed.
const ROUNDS: usize = 2;

/// Maximum number of observed batches.
const MAX_GROUPS: usize = 64;

/// Clients are not expected any more after this multiple of the time in which the fraction `MOST` returns.
const PATIENCE: f64 = 2.0;
const MOST: f64 = 0.99;

/// The fraction of clients that may never return.
const NEVER: f64 = 0.01;

/// The clients that think.
#[derive(Clone, Debug)]
pub(super) struct Thinking {
    /// The latest batches, oldest first.
    groups: VecDeque<Window>,
    returns: Profile,
    /// Seconds after which a client is not expected any more.
    horizon: f64,
}

impl Thinking {
    pub(super) fn new() -> Self {
        Thinking {
            groups: VecDeque::new(),
            returns: Profile::new(),
            horizon: WATCHED,
        }
    }

    /// Records an arrival. Returns whether it was attributed to a batch.
    pub(super) fn arrived(&mut self, at: Instant) -> bool {
        let horizon = self.horizon;
        let could_return = |group: &Window| group.opened <= at && missing(group) > 0;
        let expected = self
            .groups
            .iter()
            .position(|group| could_return(group) && group.age(at) <= horizon);
        // Later than expected: the think time may have become longer.
        let returned = expected.or_else(|| self.groups.iter().rposition(could_return));
        let Some(group) = returned.and_then(|nth| self.groups.get_mut(nth)) else {
            return false;
        };
        group.count(at);
        true
    }

    /// Records that a batch of `size` items ended, which one of `workers` workers ran.
    pub(super) fn answered(&mut self, finished: Instant, size: usize, workers: usize) {
        let observed = (ROUNDS * workers).min(MAX_GROUPS);
        while self.groups.len() >= observed {
            let Some(oldest) = self.groups.pop_front() else {
                break;
            };
            self.returns.learn(&oldest, oldest.age(finished).min(WATCHED));
            self.horizon = self.expected_until();
        }
        self.groups.push_back(Window::open(finished, size));
    }

    /// Forgets who thinks, but not for how long.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
    }

    /// The number of clients that think and are expected to return.
    pub(super) fn number(&self, now: Instant) -> usize {
        self.expected(now).map(missing).sum()
    }

    /// When those clients were answered of whom `count` are expected to have returned last. `None` if nobody thinks.
    pub(super) fn answered_at(&self, count: usize, now: Instant) -> Option<Instant> {
        let mut left = count;
        let mut latest = None;
        for group in self.expected(now).filter(|group| missing(group) > 0) {
            latest = Some(group.opened);
            left = left.saturating_sub(missing(group));
            if left == 0 {
                break;
            }
        }
        latest
    }

    /// Expected number of clients that return within `seconds` from now.
    pub(super) fn expected_within(&self, seconds: f64, now: Instant) -> f64 {
        let all = self.returns.expected_by(WATCHED);
        let returning = |group: &Window| {
            let age = group.age(now);
            let returned = self.returns.expected_by(age);
            let left = (all - returned).max(all * NEVER);
            missing(group) as f64 * (self.returns.expected_by(age + seconds) - returned) / left
        };
        self.expected(now)
            .filter(|group| missing(group) > 0)
            .map(returning)
            .sum()
    }

    pub(super) fn returns(&self) -> &Profile {
        &self.returns
    }

    fn expected(&self, now: Instant) -> impl Iterator<Item = &Window> {
        self.groups
            .iter()
            .filter(move |group| group.age(now) <= self.horizon)
    }

    fn expected_until(&self) -> f64 {
        let all = self.returns.expected_by(WATCHED);
        let most = self
            .returns
            .steps_after(0.0)
            .find(|step| step.expected >= MOST * all);
        most.map_or(WATCHED, |step| step.age * PATIENCE)
    }
}

fn missing(group: &Window) -> usize {
    (group.causes as usize).saturating_sub(group.came as usize)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// Two workers whose batches of four end 100 µs apart, every 6 ms, and clients that return after 300 µs.
    fn two_workers(rounds: u32) -> (Thinking, Instant) {
        let mut thinking = Thinking::new();
        let mut now = crate::clock::now();
        for _ in 0..rounds {
            thinking.answered(now, 4, 2);
            thinking.answered(now + us(100), 4, 2);
            for begins in [us(300), us(400)] {
                for _ in 0..4 {
                    thinking.arrived(now + begins);
                }
            }
            now += us(6000);
        }
        (thinking, now)
    }

    #[test]
    fn the_think_time_is_learned_although_another_batch_ends_in_between() {
        let (thinking, _) = two_workers(40);
        assert!(thinking.returns().expected_by(us(200).as_secs_f64()) < 0.05);
        assert!((thinking.returns().expected_by(us(400).as_secs_f64()) - 1.0).abs() < 0.05);
    }

    #[test]
    fn clients_think_from_their_reply_to_their_return() {
        let (mut thinking, now) = two_workers(40);
        assert_eq!(thinking.number(now), 0);
        thinking.answered(now, 4, 2);
        thinking.answered(now + us(100), 2, 2);
        assert_eq!(thinking.number(now + us(100)), 6);
        assert!(thinking.arrived(now + us(300)));
        assert_eq!(thinking.number(now + us(300)), 5);
    }

    #[test]
    fn the_clients_of_the_oldest_batch_return_first() {
        let (mut thinking, now) = two_workers(40);
        let later = now + us(100);
        thinking.answered(now, 4, 2);
        thinking.answered(later, 2, 2);
        assert_eq!(thinking.answered_at(4, later), Some(now));
        assert_eq!(thinking.answered_at(5, later), Some(later));
        thinking.arrived(now + us(300));
        assert_eq!(thinking.answered_at(4, later), Some(later));
    }

    #[test]
    fn clients_that_leave_are_soon_not_expected_any_more() {
        let (mut thinking, now) = two_workers(40);
        thinking.answered(now, 4, 2);
        for _ in 0..3 {
            assert!(thinking.arrived(now + us(300)));
        }
        assert_eq!(thinking.number(now + us(400)), 1);
        assert_eq!(thinking.number(now + us(2000)), 0);
    }

    #[test]
    fn an_arrival_without_a_reply_before_it_is_a_new_client() {
        let mut thinking = Thinking::new();
        let now = crate::clock::now();
        thinking.answered(now, 1, 2);
        assert!(!thinking.arrived(now - us(10)), "before the reply");
        assert!(thinking.arrived(now + us(10)));
        assert!(!thinking.arrived(now + us(20)), "only one was answered");
    }
}
