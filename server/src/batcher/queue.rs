//! The queued items, and the orders in which they are found.
//!
//! Owned by the [`Batcher`](super::Batcher). The items of a task are kept in [`Lane`]s, one per `group`, because only items
//! of one lane can share a batch. Limits and policies are unknown here. Every operation on one item is O(log n). A lane
//! that becomes empty is dropped, so that groups which are gone cost nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::time::Instant;

use super::fill::Members;
use super::lane::{CLASSES, Lane, Position};
use super::{Item, ItemId};
use crate::batching::Priority;

/// Up to this capacity, the table of items keeps its memory while items leave.
const MIN_KEPT_CAPACITY: usize = 1024;

/// The oldest item of one class in one lane. Heads of one class are ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub(super) place: Position,
    pub(super) group: u64,
}

/// The items of one task, by lane.
#[derive(Debug, Default)]
struct TaskQueue {
    lanes: BTreeMap<u64, Lane>,
    /// By class, the oldest item of every lane that has items of the class.
    heads: [BTreeSet<Head>; CLASSES.len()],
    /// The earliest deadline of every lane that has any, and its group.
    deadlines: BTreeSet<(Instant, u64)>,
    /// Number of items held, including those that were set aside.
    held: usize,
}

impl TaskQueue {
    fn insert<T>(&mut self, item: &Item<T>) {
        let (group, class) = (item.group, item.priority);
        let lane = self.lanes.entry(group).or_default();
        let (before, place) = (lane.first(class), item.place());
        let deadline_before = lane.earliest_deadline();
        lane.insert(item);
        let deadline = lane.earliest_deadline();
        self.move_deadline(group, deadline_before, deadline);
        if before.is_none_or(|before| place < before) {
            self.move_head(group, class, before, Some(place));
        }
    }

    fn remove(&mut self, group: u64, class: Priority, places: impl Iterator<Item = Position>) {
        let Some(lane) = self.lanes.get_mut(&group) else {
            return;
        };
        let before = lane.first(class);
        let deadline_before = lane.earliest_deadline();
        let mut head_left = false;
        for place in places {
            lane.remove(class, place);
            head_left |= before == Some(place);
        }
        let deadline = lane.earliest_deadline();
        if head_left {
            let after = lane.first(class);
            if lane.len() == 0 {
                self.lanes.remove(&group);
            }
            self.move_head(group, class, before, after);
        }
        self.move_deadline(group, deadline_before, deadline);
    }

    fn remove_lane(&mut self, group: u64) -> Option<Lane> {
        let lane = self.lanes.remove(&group)?;
        for class in CLASSES {
            self.move_head(group, class, lane.first(class), None);
        }
        self.move_deadline(group, lane.earliest_deadline(), None);
        Some(lane)
    }

    fn move_deadline(&mut self, group: u64, before: Option<Instant>, after: Option<Instant>) {
        if before == after {
            return;
        }
        if let Some(deadline) = before {
            self.deadlines.remove(&(deadline, group));
        }
        if let Some(deadline) = after {
            self.deadlines.insert((deadline, group));
        }
    }

    fn move_head(&mut self, group: u64, class: Priority, before: Option<Position>, after: Option<Position>) {
        if before == after {
            return;
        }
        let heads = &mut self.heads[class as usize];
        if let Some(place) = before {
            heads.remove(&Head { place, group });
        }
        if let Some(place) = after {
            heads.insert(Head { place, group });
        }
    }
}

/// Hashes the ids of items. They are numbered by the server in order, so that multiplying them by an odd number spreads
/// them evenly, and clients cannot choose them.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All items that were pushed and have not been returned.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: HashMap<ItemId, Item<T>, BuildHasherDefault<IdHasher>>,
    tasks: Vec<TaskQueue>,
    /// Items that left their lane because their deadline has passed or cannot be met, until they are taken.
    expired: BTreeSet<(Instant, ItemId)>,
}

impl<T> Queue<T> {
    pub(super) fn new(tasks: usize) -> Self {
        Queue {
            items: HashMap::default(),
            tasks: (0..tasks).map(|_| TaskQueue::default()).collect(),
            expired: BTreeSet::new(),
        }
    }

    pub(super) fn push(&mut self, item: Item<T>) {
        let replaced = self.cancel(item.id);
        debug_assert!(
            replaced.is_none(),
            "item {:?} was pushed while it was already queued",
            item.id
        );
        let task = &mut self.tasks[item.task];
        task.insert(&item);
        task.held += 1;
        self.items.insert(item.id, item);
    }

    pub(super) fn cancel(&mut self, id: ItemId) -> Option<Item<T>> {
        let item = self.release(id)?;
        let set_aside = item
            .deadline
            .is_some_and(|deadline| self.expired.remove(&(deadline, id)));
        if !set_aside {
            self.unlink(&item);
        }
        Some(item)
    }

    /// Removes and returns all items.
    pub(super) fn take_all(&mut self) -> Vec<Item<T>> {
        let ids: Vec<ItemId> = self.items.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.cancel(id)).collect()
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.items.into_values()
    }

    /// Removes the items whose deadline is not after `now` from their lanes. They are held until
    /// [`take_expired`](Self::take_expired) or [`cancel`](Self::cancel) returns them.
    pub(super) fn set_expired_aside(&mut self, now: Instant) {
        for task in 0..self.tasks.len() {
            while let Some(&(deadline, group)) = self.tasks[task].deadlines.first()
                && deadline <= now
            {
                let expired = |(deadline, _): &(Instant, ItemId)| *deadline <= now;
                let items: Vec<_> = self.lane(task, group).by_deadline().take_while(expired).collect();
                for (deadline, id) in items {
                    self.set_aside(deadline, id);
                }
            }
        }
    }

    /// Does the same with up to `max` items of one lane whose deadline is before `ends`, earliest deadline first.
    pub(super) fn set_infeasible_aside(&mut self, task: usize, group: u64, ends: Instant, max: usize) {
        let infeasible: Vec<_> = self
            .lane(task, group)
            .by_deadline()
            .take_while(|(deadline, _)| *deadline < ends)
            .take(max)
            .collect();
        for (deadline, id) in infeasible {
            self.set_aside(deadline, id);
        }
    }

    fn set_aside(&mut self, deadline: Instant, id: ItemId) {
        self.expired.insert((deadline, id));
        if let Some(item) = self.items.get(&id) {
            let place = std::iter::once(item.place());
            self.tasks[item.task].remove(item.group, item.priority, place);
        }
    }

    /// Returns the items that were set aside, earliest deadline first.
    pub(super) fn take_expired(&mut self) -> Vec<Item<T>> {
        let expired = std::mem::take(&mut self.expired);
        expired
            .into_iter()
            .filter_map(|(_, id)| self.release(id))
            .collect()
    }

    /// Removes and returns members of one lane, oldest first.
    pub(super) fn take(&mut self, task: usize, group: u64, members: &Members) -> Vec<Item<T>> {
        let mut items = match members {
            Members::All => self.take_lane(task, group),
            Members::Chosen(places) => self.take_places(task, group, places),
        };
        items.sort_unstable_by_key(Item::place);
        items
    }

    fn take_lane(&mut self, task: usize, group: u64) -> Vec<Item<T>> {
        let Some(lane) = self.tasks[task].remove_lane(group) else {
            return Vec::new();
        };
        let mut items = Vec::with_capacity(lane.len());
        for class in CLASSES {
            let places = lane.line(class).keys();
            items.extend(places.filter_map(|place| self.release(place.id)));
        }
        items
    }

    fn take_places(&mut self, task: usize, group: u64, places: &[(Priority, Position)]) -> Vec<Item<T>> {
        for class in CLASSES {
            let of_class = places
                .iter()
                .filter(|(of, _)| *of == class)
                .map(|(_, place)| *place);
            self.tasks[task].remove(group, class, of_class);
        }
        places
            .iter()
            .filter_map(|(_, place)| self.release(place.id))
            .collect()
    }

    /// The items of one group of a task, which must have a head.
    pub(super) fn lane(&self, task: usize, group: u64) -> &Lane {
        &self.tasks[task].lanes[&group]
    }

    /// The items of one group of a task, if there are any.
    pub(super) fn find_lane(&self, task: usize, group: u64) -> Option<&Lane> {
        self.tasks[task].lanes.get(&group)
    }

    /// Like [`lane`](Self::lane), for reading totals.
    pub(super) fn lane_mut(&mut self, task: usize, group: u64) -> &mut Lane {
        let lane = self.tasks[task].lanes.get_mut(&group);
        lane.expect("a group with a head has a lane")
    }

    /// The oldest head of `class` in a task, or the oldest one younger than `after`.
    pub(super) fn next_head(&self, task: usize, class: Priority, after: Option<Head>) -> Option<Head> {
        let heads = &self.tasks[task].heads[class as usize];
        let next = match after {
            None => heads.first(),
            Some(after) => heads.range((Bound::Excluded(after), Bound::Unbounded)).next(),
        };
        next.copied()
    }

    /// Whether any item of `class` can still run.
    pub(super) fn has(&self, class: Priority) -> bool {
        self.tasks
            .iter()
            .any(|task| !task.heads[class as usize].is_empty())
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn len_of(&self, task: usize) -> usize {
        self.tasks[task].held
    }

    /// The earliest deadline of the items that can still run.
    pub(super) fn next_live_deadline(&self) -> Option<Instant> {
        let earliest = |task: &TaskQueue| task.deadlines.first().map(|(deadline, _)| *deadline);
        self.tasks.iter().filter_map(earliest).min()
    }

    /// The earliest deadline of the items that are held, including those that were set aside.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.expired
            .first()
            .map(|(deadline, _)| *deadline)
            .or_else(|| self.next_live_deadline())
    }

    /// Removes an item from the table, and frees memory if the table has become much too large.
    fn release(&mut self, id: ItemId) -> Option<Item<T>> {
        let item = self.items.remove(&id)?;
        self.tasks[item.task].held -= 1;
        if self.items.capacity() > MIN_KEPT_CAPACITY && self.items.len() < self.items.capacity() / 8 {
            self.items.shrink_to(self.items.len() * 2);
        }
        Some(item)
    }

    fn unlink(&mut self, item: &Item<T>) {
        self.tasks[item.task].remove(item.group, item.priority, std::iter::once(item.place()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue with `groups` groups, each with an item of each class, and the names of all items.
    fn many_groups(groups: u64) -> (Queue<()>, Vec<ItemId>) {
        let arrived = crate::clock::now();
        let mut queue = Queue::new(1);
        for id in 0..groups * 3 {
            queue.push(Item {
                id: ItemId(id),
                task: 0,
                priority: CLASSES[(id % 3) as usize],
                weight: 1,
                group: id / 3,
                arrived,
                ready: arrived,
                deadline: Some(arrived),
                payload: (),
            });
        }
        (queue, (0..groups * 3).map(ItemId).collect())
    }

    fn assert_nothing_is_kept(queue: &Queue<()>) {
        assert!(queue.tasks[0].lanes.is_empty());
        assert!(queue.tasks[0].heads.iter().all(BTreeSet::is_empty));
        assert!(queue.tasks[0].deadlines.is_empty() && queue.expired.is_empty());
        assert!(
            queue.items.capacity() <= 2 * MIN_KEPT_CAPACITY,
            "{} kept",
            queue.items.capacity()
        );
    }

    #[test]
    fn nothing_is_kept_of_groups_that_were_cancelled() {
        let (mut queue, ids) = many_groups(5000);
        for id in ids {
            queue.cancel(id).expect("it was pushed");
        }
        assert_nothing_is_kept(&queue);
    }

    #[test]
    fn nothing_is_kept_of_groups_that_ran() {
        let (mut queue, _) = many_groups(5000);
        for group in 0..5000 {
            let lane = queue.lane(0, group);
            let places: Vec<_> = CLASSES
                .into_iter()
                .flat_map(|class| lane.line(class).keys().map(move |place| (class, *place)))
                .collect();
            let members = if group % 2 == 0 {
                Members::All
            } else {
                Members::Chosen(places)
            };
            assert_eq!(queue.take(0, group, &members).len(), 3);
        }
        assert_nothing_is_kept(&queue);
    }

    #[test]
    fn nothing_is_kept_of_groups_that_expired() {
        let (mut queue, ids) = many_groups(5000);
        queue.set_expired_aside(crate::clock::now());
        assert_eq!(queue.take_expired().len(), ids.len());
        assert_nothing_is_kept(&queue);
    }
}
