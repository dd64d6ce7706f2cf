//! Runs a model: its queue, its workers, and the path of a request through them.
//!
//! There is one [`Engine`] per generation of a model. [`Engine::submit`] admits a request and never blocks. Items of tasks
//! that prepare pass the model's prepare threads first. The workers drive one
//! [`Scheduler`] and call the model. The engine does not know where the model comes
//! from or who waits for a reply.
//!
//! # Threads
//! Arrivals, completions, cancellations and other rules are messages to the scheduler. Submitters send them without a
//! lock, so that a worker, which has a lower scheduling priority, can never delay the event loop. A worker holds the lock
//! of the scheduler only to pass on messages and to read its next command: it waits, runs, answers and drops outside.
//!
//! # Lost processes
//! A model may lose the process that runs a batch ([`BatchError::WorkerLost`](crate::model::BatchError::WorkerLost)). The
//! batch then runs once more as it was, since most causes do not recur, and if it is lost again, item by item: an item that
//! is lost alone is at fault and fails; see `batch_run`. Queued items stay queued meanwhile: no batch is formed until the
//! model can run it.
//!
//! # End of life
//! Dropping the [`Engine`] closes the queue once its last [`PendingReply`] is dropped. The workers then finish what is
//! queued and exit. The caller that started the engine joins its [`Workers`].

mod admission;
mod batch_record;
mod batch_run;
mod crew;
mod item_states;
mod load;
mod prepare_threads;
mod recent;
mod request;
mod running_batches;
mod server_memory;
mod sink;
mod statistics;
mod sync;
mod task_memory;
mod task_queue;
#[cfg(test)]
mod tests;
mod wakeups;
mod worker;

use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batcher::cost_model::TaskCosts;
use crate::batcher::memory_budget::SharedBudget;
use crate::batcher::policy::Estimates;
use crate::batcher::scheduler::Scheduler;
use crate::batching::{DispatchReason, MAX_WEIGHT, TaskBatching};
use crate::clock;
use crate::error::{ItemError, Rejection};
use crate::explanation::{Limits, Sample};
use crate::metrics::{Metrics, TaskMetrics};
use crate::model::{Health, Model, WorkerProcess};
use admission::Queue;
use crew::{Crew, Panics};
use load::{LoadMeter, Measured};
use prepare_threads::{Preparation, PrepareConfig, PrepareThreads};
use recent::Recorder;
use running_batches::RunningBatches;
use wakeups::Wakeups;
use worker::Worker;

pub use batch_record::{BatchRecord, RequestBatch, RequestBatches};
pub use load::Load;
pub use recent::{Recent, SIZE_CLASSES, TaskCounters};
pub use request::{Outcome, PendingReply, Progress, Reply, Request, Timing, Tracking};
pub use running_batches::RunningBatch;
pub use server_memory::ServerMemory;
pub use statistics::{Total, Totals};
pub use task_memory::{Frontier, MemoryReport};

/// Rejects a weight that the batcher does not support. Plugins state weights in `prepare` and with outputs.
fn check_weight(weight: u64) -> Result<(), ItemError> {
    if weight > MAX_WEIGHT {
        return Err(ItemError::Fault(format!(
            "weight {weight} exceeds the maximum of {MAX_WEIGHT}"
        )));
    }
    Ok(())
}

/// How the queue and the batches of one task are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// The rules for its batches.
    pub batching: TaskBatching,
    /// Maximum number of waiting items.
    pub max_queue_size: usize,
    /// Weight above which no more items are admitted. Weights are known only once items are prepared, so those in
    /// preparation may take the queue past it.
    pub max_queue_weight: Option<u64>,
}

/// What the batches of a model cost, and the memory that they may use.
#[derive(Clone, Default)]
pub struct Costs {
    /// As calibrated, by task in the order of the manifest. Tasks without an element are not calibrated.
    pub tasks: Vec<TaskCosts>,
    /// Maximum memory of the batches of this model that run at the same time, in bytes above the idle workers.
    pub memory_budget: Option<u64>,
    /// Whether the memory of batches is that of the processes that run them, so that it can be measured there. It may also be
    /// memory of a device.
    pub is_process_memory: bool,
    /// The memory that all models share.
    pub server_memory: Option<Arc<ServerMemory>>,
}

/// What an engine is started with.
pub struct EngineConfig<'a> {
    /// Configured name of the model, for threads and metrics.
    pub name: &'a str,
    /// Limits of each task, in the order of the manifest.
    pub tasks: &'a [TaskLimits],
    /// Maximum number of batches that run at the same time, at least 1.
    pub workers: usize,
    /// Scheduling niceness of the workers, 0 to 19.
    pub nice: i32,
    /// Maximum number of threads that prepare items, at least 1.
    pub prepare_threads: usize,
    /// What the batches cost.
    pub costs: Costs,
}

/// A running model, as requests reach it.
pub struct Engine {
    model: Arc<dyn Model>,
    queue: Arc<Queue>,
    /// None if no task prepares.
    preparation: Option<Preparation>,
    running: Arc<RunningBatches>,
    /// Maximum memory of the batches of all models.
    shared_memory: Option<u64>,
    panics: Arc<Panics>,
    meter: LoadMeter,
    recorder: Recorder,
}

/// The threads of an engine. They exit after the engine was dropped and its queue is empty.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    prepare_threads: Option<Arc<PrepareThreads>>,
    /// The model, until the last thread that calls it exits: a preparation can outlive the workers.
    model: Weak<dyn Model>,
    #[cfg(test)]
    crew: Weak<Crew>,
}

impl Workers {
    /// Whether all have exited.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
            && self
                .prepare_threads
                .as_ref()
                .is_none_or(|threads| threads.is_finished())
    }

    /// Ends the batches that run now, as far as the model can: their outcomes are not needed.
    pub fn stop_running(&self) {
        if let Some(model) = self.model.upgrade() {
            model.stop_running();
        }
    }

    /// Blocks until all have exited. Workers recover from panics, so there is nothing to report.
    pub fn join(self) {
        if let Some(threads) = self.prepare_threads {
            threads.join();
        }
        for worker in self.threads {
            let _ = worker.join();
        }
    }
}

impl Engine {
    /// Starts the workers of a model.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        model: Arc<dyn Model>,
        config: &EngineConfig<'_>,
        metrics: &Metrics,
    ) -> io::Result<(Self, Workers)> {
        let reasons = DispatchReason::ALL.map(DispatchReason::as_str);
        let tasks: Vec<(String, bool, Arc<TaskMetrics>)> = model
            .manifest()
            .tasks
            .iter()
            .map(|task| {
                (
                    task.name.clone(),
                    task.prepares,
                    metrics.task(config.name, &task.name, &reasons),
                )
            })
            .collect();
        let prepares = tasks.iter().any(|(_, prepares, _)| *prepares);
        let wakeups = Arc::new(Wakeups::new(config.workers));
        let running = Arc::new(RunningBatches::new(config.workers));
        let (queue, messages) = Queue::new(
            config.name,
            tasks,
            config.tasks,
            running.clone(),
            config.prepare_threads,
            wakeups.clone(),
        );
        let panics = Arc::new(Panics::default());
        let rules: Vec<TaskBatching> = config.tasks.iter().map(|limits| limits.batching).collect();
        let Costs {
            tasks: costs,
            memory_budget,
            is_process_memory,
            server_memory,
        } = config.costs.clone();
        let shared_memory = server_memory.as_ref().map(|memory| memory.capacity());
        let shared = server_memory
            .map(|memory| -> Box<dyn SharedBudget> { Box::new(memory.join(queue.on_memory_available())) });
        let scheduler = Scheduler::new(rules, config.workers).with_costs(costs, memory_budget, shared);
        for (index, task) in queue.tasks().iter().enumerate() {
            let memory = scheduler.batcher().memory(index);
            task.memory.publish(memory);
            if let Some(memory) = memory {
                task.metrics.memory_margin.set(memory.margin());
                if is_process_memory {
                    model.measure_batch_memory();
                }
            }
        }
        let crew = Arc::new(Crew::new(
            model.clone(),
            queue.tasks(),
            scheduler,
            messages,
            wakeups,
            running.clone(),
            panics.clone(),
        ));
        let prepare = || {
            let config = PrepareConfig {
                model_name: config.name.to_owned(),
                max_threads: config.prepare_threads,
                nice: config.nice,
            };
            PrepareThreads::start(config, &model)
        };
        let (preparation, prepare_threads) = prepares.then(prepare).transpose()?.unzip();
        let workers = Workers {
            threads: Worker::start_all(&crew, config)?,
            prepare_threads,
            model: Arc::downgrade(&model),
            #[cfg(test)]
            crew: Arc::downgrade(&crew),
        };
        let engine = Self {
            model,
            queue: Arc::new(queue),
            preparation,
            running,
            shared_memory,
            panics,
            meter: LoadMeter::default(),
            recorder: Recorder::default(),
        };
        // The first windows start now.
        engine.measure_load();
        Ok((engine, workers))
    }

    /// Admits a request and sends its items on their way. Never blocks. Dropping the returned reply cancels the items that
    /// have not started.
    pub fn submit(&self, request: Request) -> Result<PendingReply, Rejection> {
        let (pending, items) = self.queue.admit(request)?;
        match &self.preparation {
            _ if items.is_empty() => {}
            Some(preparation) if self.queue.task(pending.task()).prepares => {
                preparation.send(&self.queue, items);
            }
            _ => self.queue.send(items),
        }
        Ok(pending)
    }

    /// Applies other limits. What is queued stays queued.
    pub fn reconfigure(&self, tasks: &[TaskLimits]) {
        self.queue.reconfigure(tasks);
    }

    /// Changes the memory that the batches may use, in bytes. Running batches keep what they hold.
    pub fn set_memory_budget(&self, budget: Option<u64>) {
        self.queue.set_memory_budget(budget, self.shared_memory);
    }

    /// What is known about the memory of the batches of `task`; `None` if it was not calibrated.
    pub fn memory(&self, task: usize) -> Option<MemoryReport> {
        let task = self.queue.task(task);
        task.memory.report(&task.metrics)
    }

    /// Which batches of `task` with up to `max_items` items fit into the memory budget; `None` if they are not limited.
    pub fn frontier(&self, task: usize, max_items: u64) -> Option<Frontier> {
        self.queue.task(task).memory.frontier(max_items)
    }

    /// Answers everything that is queued with "shutting down" and lets the workers exit after their present batch.
    pub fn abort(&self) {
        self.queue.abort();
    }

    /// Whether the model can run a batch now.
    pub fn health(&self) -> Health {
        match self.panics.failure() {
            Some(reason) => Health::Failed { reason },
            None => self.model.health(),
        }
    }

    /// The batches that run now, by worker.
    pub fn running(&self) -> Vec<(usize, Arc<RunningBatch>)> {
        self.running.all()
    }

    /// Measures the load since the previous measurement, and adds a sample to the recent history. Is called about once per second,
    /// by a thread with the priority of the event loop.
    pub fn measure_load(&self) {
        let (at, busy) = (clock::now(), self.running.busy());
        let tasks = self.queue.tasks();
        let tasks: Box<[_]> = tasks.iter().map(|task| recent::totals(task)).collect();
        let now = Measured {
            at,
            busy,
            requests: tasks.iter().map(|task| task.requests.count).sum(),
        };
        self.meter.measure(now, self.running.workers());
        self.recorder.record(Sample {
            at,
            busy,
            queued: self.queue.queued_items() as u64,
            tasks,
        });
    }

    /// What the model did recently, up to the latest measurement.
    pub fn recent(&self) -> Arc<Recent> {
        self.recorder.recent()
    }

    /// The counters of `task` now, for its history.
    pub fn counters(&self, task: usize) -> TaskCounters {
        recent::counters(self.queue.task(task))
    }

    /// Total time that each worker has spent in batches, up to now.
    pub fn busy_by_worker(&self) -> Vec<Duration> {
        self.running.busy_by_worker().collect()
    }

    /// The worker processes of the model, by their number. Empty if it runs in threads of this process.
    pub fn worker_processes(&self) -> Vec<WorkerProcess> {
        self.model.worker_processes()
    }

    /// The limits of the model, for explanations. `rules` are those of its tasks.
    pub fn limits(&self, rules: impl IntoIterator<Item = TaskBatching>) -> Limits {
        Limits {
            workers: self.running.workers(),
            prepare_threads: self.queue.prepare_threads(),
            memory_budget: self.memory_budget(),
            tasks: rules.into_iter().collect(),
        }
    }

    /// Number of items of `task` that wait now, without background items.
    pub fn queued_items(&self, task: usize) -> usize {
        self.queue.task(task).len()
    }

    /// The present load.
    pub fn load(&self) -> Load {
        let rates = self.meter.rates();
        Load {
            queued_items: self.queue.queued_items(),
            expected_wait: self.queue.expected_wait(),
            utilization: rates.utilization,
            requests_per_second: rates.requests_per_second,
        }
    }

    /// Recent estimates of the batching policy of `task`, if the policy uses any.
    pub fn estimates(&self, task: usize) -> Option<Arc<Estimates>> {
        self.queue.task(task).estimates()
    }

    /// Weight of the batches of `task` over the weight of their items, since the model was first loaded. `None` before a batch
    /// has run.
    pub fn padding_share(&self, task: usize) -> Option<f64> {
        let metrics = &self.queue.task(task).metrics;
        let weight = metrics.item_weight.get();
        (weight > 0).then(|| metrics.batch_weight.get_sample_sum() / weight as f64)
    }

    /// Maximum memory of the batches that run at the same time, in bytes; `None` if there is no limit, or if the memory of no
    /// task is predicted.
    pub fn memory_budget(&self) -> Option<u64> {
        let tasks = self.queue.tasks();
        tasks.iter().find_map(|task| task.memory.budget())
    }

    /// Bytes that the running batches hold of the memory budget, as predicted.
    pub fn reserved_memory(&self) -> u64 {
        self.running.memory()
    }

    /// What `task` has done since the model was loaded, request by request.
    pub fn totals(&self, task: usize) -> Totals {
        self.queue.task(task).statistics.totals()
    }

    /// Records how long it took to write a reply of `task`, and whether all items had succeeded.
    pub fn encoded(&self, task: usize, succeeded: bool, took: Duration) {
        let task = self.queue.task(task);
        task.metrics.encode_seconds.observe(took.as_secs_f64());
        task.metrics.stage_latencies.encode.observe(took);
        if succeeded {
            task.statistics.encoded(took);
        }
    }

    #[cfg(test)]
    fn metrics(&self, task: usize) -> &TaskMetrics {
        &self.queue.task(task).metrics
    }
}
