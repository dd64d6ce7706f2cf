//! What limits the throughput of a model.

use super::history::{Stage, TaskTotals};
use super::wording::{number, percent, span, time};
use super::{Explanation, Limits, Window};
use crate::batching::{DispatchReason, Policy};

/// Share of their time in which workers or prepare threads are in use, from which on they count as busy.
const BUSY: f64 = 0.85;

/// A stage limits throughput if idle workers are not the cause and it takes this share of the time of an item, and if it is in
/// progress for this share of the time.
const DOMINANT: f64 = 0.5;

/// Items wait for busy workers if their wait, relative to the time of a batch, is at least this long.
const WAITING: f64 = 0.5;

/// Below this share of `max_batch_size`, more concurrent requests would fill the batches of busy workers.
const ROOM: f64 = 0.5;

/// Share of the batches that are closed by the memory budget, from which on it limits throughput.
const MANY: f64 = 0.25;

/// Explains what limits the throughput of a model in this window. Only the seconds in which requests were in progress count.
/// `None` if nothing is known yet, or if no batch could run.
pub fn throughput(window: &Window, limits: &Limits) -> Option<Explanation> {
    if window.seconds == 0.0 {
        return None;
    }
    let load = Load::new(window, limits);
    if load.all.requests.count == 0 && window.busy_seconds == 0.0 {
        return (window.queued == 0).then(|| idle(window, &load.all));
    }
    let explanation = if load.busy_share() >= BUSY {
        if load.items_wait() {
            load.queue()
        } else if load.has_room() {
            load.clients_leave_room()
        } else {
            load.model()
        }
    } else if load.prepare_share() >= BUSY || load.dominates(load.all.prepare) {
        load.prepare()
    } else if load.dominates(load.all.encode) {
        load.encode()
    } else if load.dominates(load.all.queue) && load.is_memory_limited() {
        load.memory()
    } else if load.dominates(load.all.queue) && load.waits_for_batches() {
        load.policy()
    } else {
        load.clients_leave_workers_idle()
    };
    Some(explanation)
}

fn idle(window: &Window, all: &TaskTotals) -> Explanation {
    let message = match all.rejected() {
        0 => format!("no requests arrived in the last {}", span(window)),
        rejected => format!(
            "no request was admitted in the last {}: {rejected} were rejected",
            span(window)
        ),
    };
    Explanation::new("idle", message)
}

/// A window in which requests were in progress.
struct Load<'a> {
    window: &'a Window,
    limits: &'a Limits,
    all: TaskTotals,
}

impl<'a> Load<'a> {
    fn new(window: &'a Window, limits: &'a Limits) -> Self {
        Self {
            all: window.all_tasks(),
            window,
            limits,
        }
    }

    /// Seconds of the window in which requests were in progress.
    fn active(&self) -> f64 {
        self.window.active_seconds.max(f64::MIN_POSITIVE)
    }

    /// Part of the workers' time in which they ran batches.
    fn busy_share(&self) -> f64 {
        (self.window.busy_seconds / (self.active() * self.limits.workers as f64)).min(1.0)
    }

    /// Part of the time of the prepare threads in which they prepared items.
    fn prepare_share(&self) -> f64 {
        (self.all.prepare.seconds / (self.active() * self.limits.prepare_threads as f64)).min(1.0)
    }

    /// Mean number of requests in the server, by Little's law.
    fn requests_in_flight(&self) -> f64 {
        self.all.requests.seconds / self.active()
    }

    /// Mean time of an item in all stages.
    fn item_seconds(&self) -> f64 {
        let all = &self.all;
        let stages = [all.prepare, all.queue, all.inference, all.encode];
        stages.into_iter().filter_map(Stage::mean).sum()
    }

    /// Share of a stage in the time of an item.
    fn share(&self, stage: Stage) -> f64 {
        let all = self.item_seconds();
        stage.mean().filter(|_| all > 0.0).map_or(0.0, |mean| mean / all)
    }

    fn dominates(&self, stage: Stage) -> bool {
        self.share(stage) >= DOMINANT && stage.seconds / self.active() >= DOMINANT
    }

    /// Whether items wait for workers.
    fn items_wait(&self) -> bool {
        match (self.all.queue.mean(), self.all.inference.mean()) {
            (Some(wait), Some(batch)) => wait >= WAITING * batch,
            // Since the start of the first batch.
            _ => self.window.queued > 0,
        }
    }

    /// Items in batches relative to the maximum that their tasks permit. `None` if no batch has run.
    fn fill(&self) -> Option<f64> {
        let tasks = self.window.tasks.iter().enumerate();
        let room: f64 = tasks
            .map(|(task, totals)| totals.batches() as f64 * self.limits.max_size(task) as f64)
            .sum();
        (room > 0.0).then(|| self.all.batched_items as f64 / room)
    }

    fn has_room(&self) -> bool {
        self.fill().is_some_and(|fill| fill < ROOM)
    }

    fn is_memory_limited(&self) -> bool {
        let limited = self.all.batches_for(DispatchReason::Memory);
        self.limits.memory_budget.is_some() && limited as f64 >= MANY * self.all.batches() as f64
    }

    /// Whether items wait because free workers wait for fuller batches.
    fn waits_for_batches(&self) -> bool {
        match (self.all.batch_wait.mean(), self.all.queue.mean()) {
            (Some(worker), Some(item)) => worker >= WAITING * item,
            _ => false,
        }
    }

    fn busy_workers(&self) -> String {
        let busy = percent(self.busy_share());
        match self.limits.workers {
            1 => format!("its worker is busy {busy} of the time"),
            workers => format!("its {workers} workers are busy {busy} of the time"),
        }
    }

    fn idle_workers(&self) -> String {
        let idle = percent(1.0 - self.busy_share());
        match self.limits.workers {
            1 => format!("the worker is idle {idle} of the time"),
            workers => format!("the {workers} workers are idle {idle} of the time"),
        }
    }

    fn mean(stage: Stage) -> String {
        time(stage.mean().unwrap_or_default())
    }

    fn queue(&self) -> Explanation {
        let waits = match self.all.queue.count {
            0 => format!("{} items wait", self.window.queued),
            _ => format!(
                "items wait {} for a batch that takes {}",
                Self::mean(self.all.queue),
                Self::mean(self.all.inference)
            ),
        };
        Explanation::new(
            "limit_queue",
            format!(
                "throughput is limited by the number of workers: {waits}, and {}. Increase `workers` if CPU cores are idle; \
                 otherwise use more servers or a faster model",
                self.busy_workers()
            ),
        )
    }

    fn model(&self) -> Explanation {
        Explanation::new(
            "limit_model",
            format!(
                "throughput is limited by the model: {} with batches that take {}, and items hardly wait",
                self.busy_workers(),
                Self::mean(self.all.inference)
            ),
        )
    }

    fn clients_leave_room(&self) -> Explanation {
        Explanation::new(
            "limit_client",
            format!(
                "throughput is limited by the clients: {} with batches that are {} full, because only {} requests are in \
                 flight on average. More concurrent requests would fill the batches",
                self.busy_workers(),
                percent(self.fill().unwrap_or_default()),
                number(self.requests_in_flight())
            ),
        )
    }

    fn clients_leave_workers_idle(&self) -> Explanation {
        Explanation::new(
            "limit_client",
            format!(
                "throughput is limited by the clients: {}, with {} requests in flight on average. More concurrent requests \
                 would be served faster",
                self.idle_workers(),
                number(self.requests_in_flight())
            ),
        )
    }

    fn prepare(&self) -> Explanation {
        Explanation::new(
            "limit_prepare",
            format!(
                "throughput is limited by the preparation of items: it takes {}, which is {} of the time of an item, and the \
                 threads that prepare are busy {} of the time, while {}. Send smaller inputs, or increase \
                 `prepare_threads` ({}) if CPU cores are idle",
                Self::mean(self.all.prepare),
                percent(self.share(self.all.prepare)),
                percent(self.prepare_share()),
                self.idle_workers(),
                self.limits.prepare_threads
            ),
        )
    }

    fn encode(&self) -> Explanation {
        Explanation::new(
            "limit_encode",
            format!(
                "throughput is limited by writing replies: it takes {}, which is {} of the time of an item, while {}. Request \
                 binary tensors instead of JSON, or fewer outputs",
                Self::mean(self.all.encode),
                percent(self.share(self.all.encode)),
                self.idle_workers()
            ),
        )
    }

    fn memory(&self) -> Explanation {
        Explanation::new(
            "limit_memory",
            format!(
                "throughput is limited by memory: items wait {} until their batch fits into the memory budget, while {}. Increase \
                 `memory_budget`, or use fewer workers",
                Self::mean(self.all.queue),
                self.idle_workers()
            ),
        )
    }

    fn policy(&self) -> Explanation {
        let delays = self.limits.tasks.iter().filter_map(|rules| match rules.policy {
            Policy::Adaptive { max_delay } | Policy::Fixed { max_delay } => Some(max_delay.as_secs_f64()),
            Policy::Greedy | Policy::Off => None,
        });
        let delay = delays.fold(0.0, f64::max);
        Explanation::new(
            "limit_policy",
            format!(
                "throughput is limited by the batching policy: items wait {} for a fuller batch, while {}. Decrease `max_delay` \
                 ({}), or send more requests concurrently",
                Self::mean(self.all.queue),
                self.idle_workers(),
                time(delay)
            ),
        )
    }
}
