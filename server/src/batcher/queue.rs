//! What waits: every queued item, once, and the orders in which it can be found.
//!
//! Owned by the [`Batcher`](super::Batcher). A task's items are kept in lanes, one per `group`, because only items of
//! one lane may share a batch; a lane keeps its classes apart, each in order of arrival. Nothing here knows of limits
//! or policies. Every operation on one item is O(log n), and a lane that runs empty is dropped, so that groups which
//! are gone cost nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::{Item, ItemId};
use crate::batching::Priority;

/// The classes in the order in which they are served.
pub(super) const CLASSES: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

/// Below this the table of items keeps its memory when items leave.
const MIN_KEPT_CAPACITY: usize = 1024;

/// How many items, by deadline, are looked at for those that cannot be answered in time.
const SEARCHED: usize = 256;

/// Where an item stands among those of its class: by arrival, then by submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) arrived: Instant,
    pub(super) id: ItemId,
}

/// What filling and policies need to know of an item without looking it up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) weight: u64,
    pub(super) deadline: Option<Instant>,
}

/// The items of one class in one lane, oldest first.
pub(super) type Line = BTreeMap<Place, Entry>;

/// The oldest item of one class in one lane. Heads of one class sort by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Head {
    pub(super) place: Place,
    pub(super) group: u64,
}

/// The items of one task that may share a batch.
#[derive(Debug, Default)]
pub(super) struct Lane {
    lines: [Line; CLASSES.len()],
}

impl Lane {
    pub(super) fn line(&self, class: Priority) -> &Line {
        &self.lines[class as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }

    fn line_mut(&mut self, class: Priority) -> &mut Line {
        &mut self.lines[class as usize]
    }

    fn is_empty(&self) -> bool {
        self.lines.iter().all(Line::is_empty)
    }
}

/// The items of one task, by lane.
#[derive(Debug, Default)]
struct TaskQueue {
    lanes: BTreeMap<u64, Lane>,
    /// By class, the first item of every line that has one.
    heads: [BTreeSet<Head>; CLASSES.len()],
    /// Items held, those set aside as expired included.
    held: usize,
}

impl TaskQueue {
    fn insert(&mut self, group: u64, class: Priority, place: Place, entry: Entry) {
        let line = self.lanes.entry(group).or_default().line_mut(class);
        let before = first(line);
        line.insert(place, entry);
        let after = first(line);
        self.move_head(group, class, before, after);
    }

    fn remove(&mut self, group: u64, class: Priority, places: impl Iterator<Item = Place>) {
        let Some(lane) = self.lanes.get_mut(&group) else {
            return;
        };
        let line = lane.line_mut(class);
        let before = first(line);
        for place in places {
            line.remove(&place);
        }
        let after = first(line);
        if lane.is_empty() {
            self.lanes.remove(&group);
        }
        self.move_head(group, class, before, after);
    }

    fn move_head(&mut self, group: u64, class: Priority, before: Option<Place>, after: Option<Place>) {
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

/// Every item that was pushed and has not been handed back.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: HashMap<ItemId, Item<T>>,
    tasks: Vec<TaskQueue>,
    /// Deadlines of the items in the lanes.
    deadlines: BTreeSet<(Instant, ItemId)>,
    /// Items that left their lane because their deadline passed or cannot be met, and wait to be taken.
    expired: BTreeSet<(Instant, ItemId)>,
}

impl<T> Queue<T> {
    pub(super) fn new(tasks: usize) -> Self {
        Queue {
            items: HashMap::new(),
            tasks: (0..tasks).map(|_| TaskQueue::default()).collect(),
            deadlines: BTreeSet::new(),
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
        let entry = Entry {
            weight: item.weight,
            deadline: item.deadline,
        };
        task.insert(item.group, item.priority, item.place(), entry);
        task.held += 1;
        if let Some(deadline) = item.deadline {
            self.deadlines.insert((deadline, item.id));
        }
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

    /// Hands back everything.
    pub(super) fn take_all(&mut self) -> Vec<Item<T>> {
        let ids: Vec<ItemId> = self.items.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.cancel(id)).collect()
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.items.into_values()
    }

    /// Takes the items whose deadline is not after `now` out of their lanes. They are still held, until
    /// [`take_expired`](Self::take_expired) or [`cancel`](Self::cancel) hands them back.
    pub(super) fn set_expired_aside(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.set_aside(deadline, id);
        }
    }

    /// Does the same with at most so many items of one lane whose deadline is before `ends`, earliest deadline first.
    pub(super) fn set_hopeless_aside(&mut self, task: usize, group: u64, ends: Instant, most: usize) {
        let in_lane = |id| {
            let item = self.items.get(id);
            item.is_some_and(|item| item.task == task && item.group == group)
        };
        let hopeless: Vec<_> = self
            .deadlines
            .iter()
            .take(SEARCHED)
            .take_while(|(deadline, _)| *deadline < ends)
            .filter(|(_, id)| in_lane(id))
            .take(most)
            .copied()
            .collect();
        for (deadline, id) in hopeless {
            self.set_aside(deadline, id);
        }
    }

    fn set_aside(&mut self, deadline: Instant, id: ItemId) {
        self.deadlines.remove(&(deadline, id));
        self.expired.insert((deadline, id));
        if let Some(item) = self.items.get(&id) {
            let place = std::iter::once(item.place());
            self.tasks[item.task].remove(item.group, item.priority, place);
        }
    }

    /// Hands back what was set aside, earliest deadline first.
    pub(super) fn take_expired(&mut self) -> Vec<Item<T>> {
        let expired = std::mem::take(&mut self.expired);
        expired
            .into_iter()
            .filter_map(|(_, id)| self.release(id))
            .collect()
    }

    /// Hands back the items at `places` of one lane, oldest first.
    pub(super) fn take(&mut self, task: usize, group: u64, places: &[(Priority, Place)]) -> Vec<Item<T>> {
        for class in CLASSES {
            let of_class = places
                .iter()
                .filter(|(of, _)| *of == class)
                .map(|(_, place)| *place);
            self.tasks[task].remove(group, class, of_class);
        }
        let mut items: Vec<Item<T>> = places
            .iter()
            .filter_map(|(_, place)| self.release(place.id))
            .collect();
        for item in &items {
            if let Some(deadline) = item.deadline {
                self.deadlines.remove(&(deadline, item.id));
            }
        }
        items.sort_unstable_by_key(Item::place);
        items
    }

    /// The items of one group of a task, which has a head.
    pub(super) fn lane(&self, task: usize, group: u64) -> &Lane {
        &self.tasks[task].lanes[&group]
    }

    /// The oldest item of every lane of a task that has one of `class`, oldest first.
    pub(super) fn heads(&self, task: usize, class: Priority) -> impl Iterator<Item = &Head> {
        self.tasks[task].heads[class as usize].iter()
    }

    /// Whether any item of `class` may still run.
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

    /// The next deadline of an item that may still run.
    pub(super) fn next_live_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next deadline of an item that is held, which has passed where the item was set aside.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.expired
            .first()
            .map(|(deadline, _)| *deadline)
            .or_else(|| self.next_live_deadline())
    }

    /// Takes an item out of the table, and gives memory back when the table has become much too large.
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
        if let Some(deadline) = item.deadline {
            self.deadlines.remove(&(deadline, item.id));
        }
    }
}

impl<T> Item<T> {
    fn place(&self) -> Place {
        Place {
            arrived: self.arrived,
            id: self.id,
        }
    }
}

fn first(line: &Line) -> Option<Place> {
    line.first_key_value().map(|(place, _)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of `groups` groups with an item of each class in each, and the names of all items.
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

    fn assert_keeps_nothing(queue: &Queue<()>) {
        assert!(queue.tasks[0].lanes.is_empty());
        assert!(queue.tasks[0].heads.iter().all(BTreeSet::is_empty));
        assert!(queue.deadlines.is_empty() && queue.expired.is_empty());
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
        assert_keeps_nothing(&queue);
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
            assert_eq!(queue.take(0, group, &places).len(), 3);
        }
        assert_keeps_nothing(&queue);
    }

    #[test]
    fn nothing_is_kept_of_groups_that_expired() {
        let (mut queue, ids) = many_groups(5000);
        queue.set_expired_aside(crate::clock::now());
        assert_eq!(queue.take_expired().len(), ids.len());
        assert_keeps_nothing(&queue);
    }
}
