//! The items of one task and one group, which can share a batch.
//!
//! Owned by [`Queue`](super::queue::Queue). A lane keeps the classes apart, each in queue order, and knows totals over all of
//! its items: a batch that stays open is decided by them at every poll. It knows neither payloads nor limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::extremes::{Extremes, Slot, Tournament};
use super::fill::square;
use super::{Item, ItemId};
use crate::batching::{MAX_WEIGHT, Priority};

/// The classes in the order in which they are served.
pub(super) const CLASSES: [Priority; Priority::COUNT] = [
    Priority::High,
    Priority::Normal,
    Priority::Low,
    Priority::Background,
];

/// Up to this many items are read whenever totals are needed. Only larger lanes maintain a tournament.
const MAX_READ: usize = 32;

/// A tournament is dropped if fewer than one in this many of its slots are in use.
const SLOTS_PER_ITEM: usize = 16;

/// Position of an item among those of its class: by arrival, then by submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) arrived: Instant,
    pub(super) id: ItemId,
}

/// The properties of an item that filling a batch requires, besides its place. Small, because its size determines the
/// speed of long queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) weight: u64,
    pub(super) deadline: Option<Instant>,
    /// Time from the arrival of the item until it was ready, in microseconds.
    preparation: u32,
    /// The slot in the tournament, if there is one.
    slot: Slot,
}

impl Entry {
    fn of<T>(item: &Item<T>) -> Self {
        let preparation = if item.ready > item.arrived {
            item.ready - item.arrived
        } else {
            Duration::ZERO
        };
        Self {
            weight: item.weight.min(MAX_WEIGHT),
            deadline: item.deadline,
            preparation: u32::try_from(preparation.as_micros()).unwrap_or(u32::MAX),
            slot: 0,
        }
    }

    /// When the item was ready, to the microsecond.
    pub(super) fn ready(&self, place: Position) -> Instant {
        place.arrived + Duration::from_micros(self.preparation.into())
    }

    fn extremes(&self, place: Position) -> Extremes {
        Extremes {
            heaviest: self.weight,
            oldest_ready: Some(self.ready(place)),
            earliest_deadline: self.deadline,
        }
    }
}

/// The items of one class in one lane, oldest first.
pub(super) type Line = BTreeMap<Position, Entry>;

/// Properties of all items of a lane together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) size: usize,
    pub(super) sum: u64,
    pub(super) sum_of_squares: u128,
    pub(super) extremes: Extremes,
    pub(super) oldest_arrival: Option<Instant>,
}

/// The items of one task and one group.
#[derive(Debug, Default)]
pub(super) struct Lane {
    lines: [Line; CLASSES.len()],
    /// The deadlines of all items.
    deadlines: BTreeSet<(Instant, ItemId)>,
    len: usize,
    /// These do not overflow: weights are bounded by [`MAX_WEIGHT`].
    sum: u128,
    sum_of_squares: u128,
    /// Present since the totals of a large lane were needed, until they are not.
    tournament: Option<Tournament>,
}

impl Lane {
    pub(super) fn line(&self, class: Priority) -> &Line {
        &self.lines[class as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The oldest item of a class.
    pub(super) fn first(&self, class: Priority) -> Option<Position> {
        self.line(class).first_key_value().map(|(place, _)| *place)
    }

    /// The items that have deadlines, earliest first.
    pub(super) fn by_deadline(&self) -> impl Iterator<Item = (Instant, ItemId)> {
        self.deadlines.iter().copied()
    }

    /// The earliest deadline of an item.
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The total weight of all items.
    pub(super) fn sum(&self) -> u64 {
        u64::try_from(self.sum).unwrap_or(u64::MAX)
    }

    /// The totals of all items; O(log n) for each change since the last call.
    pub(super) fn totals(&mut self) -> Totals {
        let first = CLASSES.into_iter().filter_map(|class| self.first(class));
        Totals {
            size: self.len,
            sum: self.sum(),
            sum_of_squares: self.sum_of_squares,
            oldest_arrival: first.map(|place| place.arrived).min(),
            extremes: self.extremes(),
        }
    }

    fn extremes(&mut self) -> Extremes {
        let entries = self.lines.iter_mut().flatten();
        if self.len <= MAX_READ {
            self.tournament = None;
            return entries
                .map(|(place, entry)| entry.extremes(*place))
                .fold(Extremes::default(), Extremes::merge);
        }
        self.tournament
            .get_or_insert_with(|| {
                let mut tournament = Tournament::default();
                for (place, entry) in entries {
                    entry.slot = tournament.add(entry.extremes(*place));
                }
                tournament
            })
            .all()
    }

    /// Stops maintaining what [`totals`](Self::totals) needs, because the items do not fit into one batch anyway.
    pub(super) fn forget_totals(&mut self) {
        self.tournament = None;
    }

    pub(super) fn insert<T>(&mut self, item: &Item<T>) {
        let (place, mut entry) = (item.place(), Entry::of(item));
        if let Some(tournament) = &mut self.tournament {
            entry.slot = tournament.add(entry.extremes(place));
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, place.id));
        }
        self.len += 1;
        self.sum += u128::from(entry.weight);
        self.sum_of_squares += square(entry.weight);
        self.lines[item.priority as usize].insert(place, entry);
    }

    pub(super) fn remove(&mut self, class: Priority, place: Position) {
        let Some(entry) = self.lines[class as usize].remove(&place) else {
            return;
        };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, place.id));
        }
        self.len -= 1;
        self.sum -= u128::from(entry.weight);
        self.sum_of_squares -= square(entry.weight);
        if let Some(tournament) = &mut self.tournament {
            tournament.remove(entry.slot);
            if self.len < tournament.capacity() / SLOTS_PER_ITEM {
                self.tournament = None;
            }
        }
    }
}

impl<T> Item<T> {
    pub(super) fn place(&self) -> Position {
        Position {
            arrived: self.arrived,
            id: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(id: u64, now: Instant) -> Item<()> {
        Item {
            id: ItemId(id),
            task: 0,
            priority: CLASSES[(id % 3) as usize],
            weight: 1 + id % 100,
            group: 0,
            arrived: now + Duration::from_micros(id * 31 % 1000),
            ready: now + Duration::from_micros(1000 + id * 17 % 1000),
            deadline: (!id.is_multiple_of(4)).then(|| now + Duration::from_secs(60 + id * 7 % 100)),
            payload: (),
        }
    }

    /// Reads all items.
    fn totals(items: &[Item<()>]) -> Totals {
        Totals {
            size: items.len(),
            sum: items.iter().map(|item| item.weight).sum(),
            sum_of_squares: items.iter().map(|item| square(item.weight)).sum(),
            extremes: Extremes {
                heaviest: items.iter().map(|item| item.weight).max().unwrap_or(0),
                oldest_ready: items.iter().map(|item| item.ready).min(),
                earliest_deadline: items.iter().filter_map(|item| item.deadline).min(),
            },
            oldest_arrival: items.iter().map(|item| item.arrived).min(),
        }
    }

    proptest! {
        #[test]
        fn totals_are_those_of_the_items_in_the_lane(
            ops in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..10_u8), 1..600),
            forget in any::<bool>(),
        ) {
            let now = crate::clock::now();
            let (mut lane, mut items) = (Lane::default(), Vec::new());
            for (id, (remove, nth, read)) in (0..).zip(ops) {
                if remove == 0 && !items.is_empty() {
                    let item: Item<()> = items.swap_remove(nth.index(items.len()));
                    lane.remove(item.priority, item.place());
                } else {
                    lane.insert(&item(id, now));
                    items.push(item(id, now));
                }
                match read {
                    0 if forget => lane.forget_totals(),
                    0..5 => prop_assert_eq!(lane.totals(), totals(&items)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn a_lane_whose_items_left_keeps_no_tournament_for_them() {
        let now = crate::clock::now();
        let mut lane = Lane::default();
        for id in 0..100_000 {
            lane.insert(&item(id, now));
        }
        lane.totals();
        assert!(lane.tournament.is_some());
        for id in 0..99_000 {
            let item = item(id, now);
            lane.remove(item.priority, item.place());
        }
        assert!(lane.tournament.is_none());
        let left: Vec<Item<()>> = (99_000..100_000).map(|id| item(id, now)).collect();
        assert_eq!(lane.totals(), totals(&left));
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
