//! What runs a model: its queue, its workers and the path of a request through them.
//!
//! One [`Engine`] per generation of a model. Requests come in through [`Engine::submit`], which never blocks; items of tasks
//! that prepare go through the prepare pool first; the workers share one [`Batcher`] and call the
//! model. The engine does not know where the model comes from, nor who waits for a reply.
//!
//! # Threads
//! Submitters only send to a channel, so that a worker of low scheduling priority can never hold up the event loop. The
//! workers take turns to be the one that owns the batcher (the *scheduler*): it reads the channel, forms a batch, passes the
//! turn on and runs it. With one worker, that is one thread which batches and computes.
//!
//! # Workers that can be lost
//! A model may lose what runs a batch ([`BatchError::WorkerLost`](crate::model::BatchError::WorkerLost)). The batch is then
//! run once more as it was, since most causes do not strike twice, and if it is lost again, item by item: an item that is
//! lost on its own is to blame, and fails; see `prediction`. What is queued stays queued meanwhile, as no batch is formed
//! until the model has something to run it.
//!
//! # End of life
//! Dropping the [`Engine`] closes the channel once the last [`Pending`] of it is gone. The workers then finish what is queued
//! and end; the last one drops the model. Whoever started the engine joins them.

mod memory_limit;
mod prediction;
mod prepare;
mod queue;
mod request;
mod running;
mod sink;
mod statistics;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batcher::Batcher;
use crate::batcher::policy::Estimates;
use crate::batching::{DispatchReason, TaskBatching};
use crate::error::Rejection;
use crate::metrics::{Metrics, TaskMetrics};
use crate::model::{Health, Model};
use prepare::prepare;
use queue::Queue;
use running::RunningBatches;
use worker::{Scheduler, Worker};

pub use prepare::prepare_pool;
pub use request::{Outcome, Pending, Reply, Request, Timing};
pub use running::RunningBatch;
pub use statistics::{Total, Totals};

/// How the queue and the batches of one task are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// The rules for its batches.
    pub batching: TaskBatching,
    /// Most items that wait.
    pub max_queue_size: usize,
    /// Weight above which no more items are admitted. Weights are known only once items are prepared, so those in
    /// preparation may take the queue past it.
    pub max_queue_weight: Option<u64>,
}

/// What an engine is started with.
pub struct EngineConfig<'a> {
    /// Configured name of the model, for threads and metrics.
    pub name: &'a str,
    /// Limits of each task, in the order of the manifest.
    pub tasks: &'a [TaskLimits],
    /// How many batches may run at once, at least 1.
    pub workers: usize,
    /// Scheduling niceness of the workers, 0 to 19.
    pub nice: i32,
    /// Where items are prepared; shared by all models.
    pub prepare_pool: Arc<rayon::ThreadPool>,
}

/// A running model, as requests reach it.
pub struct Engine {
    model: Arc<dyn Model>,
    prepare_pool: Arc<rayon::ThreadPool>,
    queue: Arc<Queue>,
    running: Arc<RunningBatches>,
}

/// The threads of an engine. They end after the engine has been dropped and its queue has been worked off.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// The model that they run, until the last of them drops it.
    model: Weak<dyn Model>,
}

impl Workers {
    /// Whether all have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Ends the batches that run now, as far as the model can: nobody needs their outcomes.
    pub fn stop_running(&self) {
        if let Some(model) = self.model.upgrade() {
            model.stop_running();
        }
    }

    /// Blocks until all have ended. Workers do not panic, so there is nothing to report.
    pub fn join(self) {
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
        let (queue, receiver) = Queue::new(config.name, tasks, config.tasks, config.workers);
        let batching: Vec<TaskBatching> = config.tasks.iter().map(|limits| limits.batching).collect();
        let batcher = Batcher::new(batching.clone()).with_workers(config.workers);
        let scheduler = Scheduler::new(receiver, batcher, batching, queue.tasks());
        let running = Arc::new(RunningBatches::new(config.workers));
        let workers = Workers {
            threads: Worker::start_all(&model, scheduler, config, &running)?,
            model: Arc::downgrade(&model),
        };
        Ok((
            Self {
                model,
                prepare_pool: config.prepare_pool.clone(),
                queue: Arc::new(queue),
                running,
            },
            workers,
        ))
    }

    /// Admits a request and sends its items on their way. Never blocks. Dropping what it returns takes back whatever has
    /// not begun to run.
    pub fn submit(&self, request: Request) -> Result<Pending, Rejection> {
        let (pending, items) = self.queue.admit(request)?;
        if items.is_empty() {
            return Ok(pending);
        }
        if self.queue.task(pending.task()).prepares {
            prepare(&self.prepare_pool, &self.model, &self.queue, items);
        } else {
            self.queue.send(items);
        }
        Ok(pending)
    }

    /// Goes on under other limits; what is queued stays queued.
    pub fn reconfigure(&self, tasks: &[TaskLimits]) {
        self.queue.reconfigure(tasks);
    }

    /// Answers everything that is queued with "shutting down" and lets the workers end after their present batch.
    pub fn abort(&self) {
        self.queue.abort();
    }

    /// Whether the model can run a batch now.
    pub fn health(&self) -> Health {
        self.model.health()
    }

    /// The batches that run now, by worker.
    pub fn running(&self) -> Vec<(usize, Arc<RunningBatch>)> {
        self.running.all()
    }

    /// Recent estimates of the batching policy of `task`, if the policy uses any.
    pub fn estimates(&self, task: usize) -> Option<Arc<Estimates>> {
        self.queue.task(task).estimates()
    }

    /// What `task` has done in this life of the model, request by request.
    pub fn totals(&self, task: usize) -> Totals {
        self.queue.task(task).statistics.totals()
    }

    /// Takes note of how long it took to write a reply of `task`, and whether all items had succeeded.
    pub fn encoded(&self, task: usize, succeeded: bool, took: Duration) {
        let task = self.queue.task(task);
        task.metrics.encode_seconds.observe(took.as_secs_f64());
        if succeeded {
            task.statistics.encoded(took);
        }
    }

    #[cfg(test)]
    fn metrics(&self, task: usize) -> &TaskMetrics {
        &self.queue.task(task).metrics
    }
}
