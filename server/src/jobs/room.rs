//! How many items of jobs each model has room for.

use super::ModelRoom;
use crate::registry::{ModelEntry, Registry};

/// Batches of jobs per worker of a model: one that runs, and one that is ready when it ends.
const BATCHES_PER_WORKER: u64 = 2;

/// The models that can run more items of jobs now. `held` is the number of items of a model that this server has claimed.
pub(super) fn rooms(registry: &Registry, held: impl Fn(&str) -> u64) -> Vec<ModelRoom> {
    let snapshot = registry.snapshot();
    let ready = snapshot.models().filter(|entry| entry.is_ready());
    let rooms = ready.map(|entry| {
        let free = capacity(entry).saturating_sub(held(entry.name()).max(waiting(entry)));
        ModelRoom {
            model: entry.name().to_owned(),
            items: u32::try_from(free).unwrap_or(u32::MAX),
        }
    });
    rooms.filter(|room| room.items > 0).collect()
}

/// The number of items that keeps all workers of a model busy.
fn capacity(entry: &ModelEntry) -> u64 {
    let largest = entry.tasks.iter().map(|task| task.batching.max_batch_size.get());
    let workers = entry.settings.workers.get() as u64;
    largest.max().unwrap_or(1) as u64 * workers * BATCHES_PER_WORKER
}

/// The items that wait in the queues of a model, of jobs and of others.
fn waiting(entry: &ModelEntry) -> u64 {
    entry.generation().map_or(0, |generation| {
        let tasks = 0..generation.manifest.tasks.len();
        tasks
            .map(|task| generation.engine.queued_items(task) as u64)
            .sum()
    })
}
