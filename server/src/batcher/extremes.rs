//! The extreme values of a changing set: a tournament tree.
//!
//! A lane with many items has one, so that a batch which stays open need not read its items at every poll. Adding and removing
//! an item is O(1); reading the extremes is O(log n) for each change since the last read, and never more than O(n) for n
//! changes. Which item has an extreme value is not recorded.

use std::time::Instant;

/// The extreme values of one or more items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extremes {
    /// The greatest weight; zero if there are no items.
    pub(super) heaviest: u64,
    /// The earliest instant at which an item was ready; `None` if there are no items.
    pub(super) oldest_ready: Option<Instant>,
    /// The earliest deadline.
    pub(super) earliest_deadline: Option<Instant>,
}

impl Extremes {
    /// The extremes of both.
    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            heaviest: self.heaviest.max(other.heaviest),
            oldest_ready: earlier(self.oldest_ready, other.oldest_ready),
            earliest_deadline: earlier(self.earliest_deadline, other.earliest_deadline),
        }
    }
}

/// The earlier of two instants, of which either can be missing.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The place of an item in a [`Tournament`].
pub(super) type Slot = u32;

/// The number of slots of the first item, and the factor by which they grow.
const MIN_SLOTS: usize = 64;
const GROWTH: usize = 2;

/// A complete binary tree in an array: the node `n` holds the extremes of the nodes `2n` and `2n + 1`. The slots are the
/// leaves, in the second half of the array; the root is node 1. Empty slots have the default value.
#[derive(Clone, Debug, Default)]
pub(super) struct Tournament {
    /// Twice as many as there are slots.
    nodes: Vec<Extremes>,
    free: Vec<Slot>,
    /// Slots that changed since the inner nodes above them were computed. If these are as many as there are slots, all
    /// inner nodes are computed.
    changed: Vec<Slot>,
}

impl Tournament {
    /// Number of slots.
    pub(super) fn capacity(&self) -> usize {
        self.nodes.len() / 2
    }

    /// Adds an item, and returns the slot by which it is removed.
    pub(super) fn add(&mut self, item: Extremes) -> Slot {
        if self.free.is_empty() {
            self.grow();
        }
        let slot = self.free.pop().unwrap_or_default();
        self.set(slot, item);
        slot
    }

    /// Removes the item in a slot.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.set(slot, Extremes::default());
        self.free.push(slot);
    }

    /// The extremes of all items.
    pub(super) fn all(&mut self) -> Extremes {
        let slots = self.capacity();
        if self.changed.len() >= slots {
            for node in (1..slots).rev() {
                self.compute(node);
            }
            self.changed.clear();
        }
        while let Some(slot) = self.changed.pop() {
            let mut node = (slots + slot as usize) / 2;
            while node > 0 && self.compute(node) {
                node /= 2;
            }
        }
        self.nodes.get(1).copied().unwrap_or_default()
    }

    fn set(&mut self, slot: Slot, item: Extremes) {
        let slots = self.capacity();
        self.nodes[slots + slot as usize] = item;
        if self.changed.len() < slots {
            self.changed.push(slot);
        }
    }

    /// Computes an inner node, and returns whether it changed.
    fn compute(&mut self, node: usize) -> bool {
        let computed = self.nodes[2 * node].merge(self.nodes[2 * node + 1]);
        let changed = self.nodes[node] != computed;
        self.nodes[node] = computed;
        changed
    }

    /// Adds empty slots.
    fn grow(&mut self) {
        let before = self.capacity();
        let slots = (before * GROWTH).max(MIN_SLOTS);
        let mut nodes = vec![Extremes::default(); 2 * slots];
        nodes[slots..slots + before].copy_from_slice(&self.nodes[before..]);
        self.nodes = nodes;
        // The queue runs out of memory long before slots exceed their type.
        let new = (before..slots).rev().filter_map(|slot| Slot::try_from(slot).ok());
        self.free.extend(new);
        self.changed.clear();
        self.changed.resize(slots, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_extremes_are_those_of_the_items_that_were_added_and_not_removed(
            ops in prop::collection::vec((any::<bool>(), any::<bool>(), any::<prop::sample::Index>(), 0..50_u64), 1..400),
        ) {
            let start = crate::clock::now();
            let mut tournament = Tournament::default();
            let mut items: Vec<(Slot, Extremes)> = Vec::new();
            for (remove, read, nth, value) in ops {
                if remove && !items.is_empty() {
                    let (slot, _) = items.swap_remove(nth.index(items.len()));
                    tournament.remove(slot);
                } else {
                    let item = Extremes {
                        heaviest: value * 7 % 50,
                        oldest_ready: Some(start + Duration::from_millis(value)),
                        earliest_deadline: (value % 3 > 0).then(|| start + Duration::from_millis(value * 11 % 50)),
                    };
                    items.push((tournament.add(item), item));
                }
                if read {
                    let expected = Extremes {
                        heaviest: items.iter().map(|(_, item)| item.heaviest).max().unwrap_or(0),
                        oldest_ready: items.iter().filter_map(|(_, item)| item.oldest_ready).min(),
                        earliest_deadline: items.iter().filter_map(|(_, item)| item.earliest_deadline).min(),
                    };
                    prop_assert_eq!(tournament.all(), expected);
                }
            }
        }
    }
}
