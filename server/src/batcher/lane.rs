//! The items of one task and one group, which can share a batch.
//!
//! Owned by [`Queue`](super::queue::Queue). A lane keeps the classes apart, each in queue order, and maintains totals over
//! all of its items. It knows neither payloads nor limits.

use std::collections::BTreeMap;
use std::time::Instant;

use super::extremes::{Extremes, Slot, Tournament};
use super::{Item, ItemId};
use crate::batching::{MAX_WEIGHT, Priority};

/// The classes in the order in which they are served.
pub(super) const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// Up to this many slots, a lane keeps its memory while items leave.
const MIN_KEPT_SLOTS: usize = 1024;

/// Position of an item among those of its class: by arrival, then by submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) arrived: Instant,
    pub(super) id: ItemId,
}

/// The properties of an item that filling a batch requires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) weight: u64,
    pub(super) ready: Instant,
    pub(super) deadline: Option<Instant>,
    slot: Slot,
}

/// The items of one class in one lane, oldest first.
pub(super) type Line = BTreeMap<Place, Entry>;

/// Properties of all items of a lane together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) size: usize,
    pub(super) sum: u64,
    pub(super) extremes: Extremes,
    pub(super) oldest_arrival: Option<Instant>,
}

/// The items of one task and one group.
#[derive(Debug, Default)]
pub(super) struct Lane {
    lines: [Line; CLASSES.len()],
    len: usize,
    /// Does not overflow: weights are bounded by [`MAX_WEIGHT`].
    sum: u128,
    extremes: Tournament,
}

impl Lane {
    pub(super) fn line(&self, class: Priority) -> &Line {
        &self.lines[class as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The oldest item of a class.
    pub(super) fn first(&self, class: Priority) -> Option<Place> {
        self.line(class).first_key_value().map(|(place, _)| *place)
    }

    /// The totals of all items; O(log n) for each change since the last call.
    pub(super) fn totals(&mut self) -> Totals {
        Totals {
            size: self.len,
            sum: u64::try_from(self.sum).unwrap_or(u64::MAX),
            extremes: self.extremes.all(),
            oldest_arrival: CLASSES
                .into_iter()
                .filter_map(|class| self.first(class))
                .map(|place| place.arrived)
                .min(),
        }
    }

    pub(super) fn insert<T>(&mut self, item: &Item<T>) {
        let weight = item.weight.min(MAX_WEIGHT);
        let (ready, deadline) = (item.ready, item.deadline);
        let slot = self.extremes.add(extremes(weight, ready, deadline));
        let entry = Entry {
            weight,
            ready,
            deadline,
            slot,
        };
        self.len += 1;
        self.sum += u128::from(weight);
        self.lines[item.priority as usize].insert(item.place(), entry);
    }

    pub(super) fn remove(&mut self, class: Priority, place: Place) {
        if let Some(entry) = self.lines[class as usize].remove(&place) {
            self.extremes.remove(entry.slot);
            self.len -= 1;
            self.sum -= u128::from(entry.weight);
            if self.extremes.capacity() > MIN_KEPT_SLOTS && self.len < self.extremes.capacity() / 16 {
                self.renew_slots();
            }
        }
    }

    /// Frees the memory of slots that are not used any more.
    fn renew_slots(&mut self) {
        self.extremes = Tournament::default();
        for entry in self.lines.iter_mut().flat_map(BTreeMap::values_mut) {
            entry.slot = self
                .extremes
                .add(extremes(entry.weight, entry.ready, entry.deadline));
        }
    }
}

fn extremes(weight: u64, ready: Instant, deadline: Option<Instant>) -> Extremes {
    Extremes {
        heaviest: weight,
        oldest_ready: Some(ready),
        earliest_deadline: deadline,
    }
}

impl<T> Item<T> {
    pub(super) fn place(&self) -> Place {
        Place {
            arrived: self.arrived,
            id: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn item(id: u64, now: Instant) -> Item<()> {
        Item {
            id: ItemId(id),
            task: 0,
            priority: CLASSES[(id % 3) as usize],
            weight: 1 + id % 100,
            group: 0,
            arrived: now,
            ready: now + Duration::from_micros(id),
            deadline: Some(now + Duration::from_secs(60 + id)),
            payload: (),
        }
    }

    #[test]
    fn a_lane_whose_items_left_keeps_little_memory_and_right_totals() {
        let now = crate::clock::now();
        let mut lane = Lane::default();
        for id in 0..100_000 {
            lane.insert(&item(id, now));
        }
        assert_eq!(lane.totals().extremes.heaviest, 100);
        for id in 0..99_950 {
            let item = item(id, now);
            lane.remove(item.priority, item.place());
        }
        assert!(
            lane.extremes.capacity() <= MIN_KEPT_SLOTS,
            "{}",
            lane.extremes.capacity()
        );
        let expected = Totals {
            size: 50,
            sum: (51..=100).sum(),
            extremes: Extremes {
                heaviest: 100,
                oldest_ready: Some(now + Duration::from_micros(99_950)),
                earliest_deadline: Some(now + Duration::from_secs(60 + 99_950)),
            },
            oldest_arrival: Some(now),
        };
        assert_eq!(lane.totals(), expected);
    }

    #[test]
    fn a_weight_above_the_maximum_counts_as_the_maximum() {
        let now = crate::clock::now();
        let mut lane = Lane::default();
        for id in 0..3 {
            let heavy = Item {
                weight: u64::MAX,
                ..item(id, now)
            };
            lane.insert(&heavy);
        }
        let totals = lane.totals();
        assert_eq!(
            (totals.sum, totals.extremes.heaviest),
            (3 * MAX_WEIGHT, MAX_WEIGHT)
        );
    }
}
