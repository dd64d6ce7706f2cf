//! The prepare step: items are decoded and preprocessed in parallel, off the event loop and off the model's workers.

use std::sync::{Arc, Mutex, PoisonError};

use super::queue::{Queue, Queued};
use crate::batch_context::{log_batch, logged_error_count};
use crate::batcher::Item;
use crate::batching::MAX_WEIGHT;
use crate::clock;
use crate::error::ItemError;
use crate::model::{Model, PreparedItem};
use crate::niceness;

/// Threads on which items are prepared, at the niceness `nice`.
///
/// # Errors
/// If the system refuses a thread.
pub fn prepare_pool(
    name: &str,
    threads: usize,
    nice: i32,
) -> Result<Arc<rayon::ThreadPool>, rayon::ThreadPoolBuildError> {
    let name = name.to_owned();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |index| format!("{name} {index}"))
        .start_handler(move |_| niceness::raise_to(nice))
        // Without one a panic would abort the process. The request's other items go on; this one is answered as lost.
        .panic_handler(|_| log::error!("the server panicked while it prepared an item"))
        .build()?;
    Ok(Arc::new(pool))
}

/// Items of one request that are ready while others are still being prepared.
struct Ready {
    items: Vec<Item<Queued>>,
    in_preparation: usize,
}

/// Most items of a request that wait for the others of it. Sending them together lets a free worker take them as one
/// batch; waiting for all of a large request would leave it idle.
const CHUNK: usize = 64;

/// Prepares the items of one request, each as a job of the pool, and sends them on to the scheduler.
pub(super) fn prepare(
    pool: &Arc<rayon::ThreadPool>,
    model: &Arc<dyn Model>,
    queue: &Arc<Queue>,
    items: Vec<Item<Queued>>,
) {
    let ready = Arc::new(Mutex::new(Ready {
        items: Vec::new(),
        in_preparation: items.len(),
    }));
    for item in items {
        let (model, queue, ready) = (model.clone(), queue.clone(), ready.clone());
        pool.spawn_fifo(move || {
            let prepared = prepare_item(model.as_ref(), item);
            // Dropped before the item is sent: the last to hold the model should be a worker.
            drop(model);
            let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.items.extend(prepared);
            ready.in_preparation -= 1;
            if !ready.items.is_empty() && (ready.in_preparation == 0 || ready.items.len() >= CHUNK) {
                let mut items = std::mem::take(&mut ready.items);
                items.sort_unstable_by_key(|item| item.id);
                queue.send(items);
            }
        });
    }
}

/// Rejects weights that the batcher does not support.
fn check_weight(prepared: PreparedItem) -> Result<PreparedItem, ItemError> {
    let weight = prepared.weight;
    if weight > MAX_WEIGHT {
        return Err(ItemError::Fault(format!(
            "weight {weight} exceeds the maximum of {MAX_WEIGHT}"
        )));
    }
    Ok(prepared)
}

/// The item, ready to run; none if it failed or was given up.
fn prepare_item(model: &dyn Model, mut item: Item<Queued>) -> Option<Item<Queued>> {
    if !item.payload.ticket.is_waiting() {
        return None;
    }
    let context = Arc::new(item.payload.ticket.context());
    let (started, errors_before) = (clock::now(), logged_error_count());
    let entered = context.clone().enter();
    let prepared = model
        .prepare(item.task, &item.payload.input)
        .and_then(check_weight);
    drop(entered);
    let finished = clock::now();
    item.payload.ticket.prepared_in(finished - started);
    match prepared {
        Ok(prepared) => {
            item.weight = prepared.weight.max(1);
            item.group = prepared.group;
            item.ready = finished;
            item.payload.ticket.weigh(item.weight);
            item.payload.prepared = Some(prepared);
            Some(item)
        }
        Err(error) => {
            // Why a model is unavailable is in the log already, and not for each item.
            let is_known = matches!(error, ItemError::Unavailable(_)) || logged_error_count() > errors_before;
            if error.is_of_input() || is_known {
                log_batch!(debug, context, "the preparation of an item failed: {error}");
            } else {
                log_batch!(error, context, "the preparation of an item failed: {error}");
            }
            item.payload.ticket.settle(Err(error));
            None
        }
    }
}
