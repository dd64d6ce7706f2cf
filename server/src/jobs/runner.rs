//! Runs jobs: claims as many as keep each model busy, has them executed, and stores their outcomes.
//!
//! It owns one thread. It knows neither protocols nor the engine: an [`Execute`] runs the request of a job. A claim is renewed
//! until the job ends. At shutdown, jobs that have not begun are released, and those that run may finish until a deadline.
//!
//! `claiming` decides what the thread does, and `run` takes one job to its end.

mod claiming;
mod run;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::attempt::Attempt;
use super::{Completion, JobError, Jobs};
use crate::registry::Registry;
use claiming::RunnerLoop;

/// Runs the requests of jobs, on the thread of the runner.
pub trait Execute {
    /// Runs the request of a job. Before its items start, it calls [`Attempt::begin`], and stops if that fails. Dropping the
    /// future cancels the items that have not started.
    fn execute(&self, attempt: Arc<Attempt>) -> LocalBoxFuture<'static, Executed>;
}

/// The outcome of an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executed {
    /// The job ends.
    Done(Completion),
    /// The attempt ends without an outcome, such as after a crash of the model's process.
    Interrupted(JobError),
    /// The server cannot run the request now, such as while the model is being loaded.
    Postponed(Duration),
}

/// The thread that runs jobs.
pub struct Runner {
    deadline: watch::Sender<Option<Instant>>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Runner {
    /// Starts the thread. `executor` creates what runs requests, on that thread.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start<E: Execute + 'static>(
        jobs: Arc<Jobs>,
        registry: Arc<Registry>,
        executor: impl FnOnce() -> E + Send + 'static,
    ) -> io::Result<Self> {
        let (deadline, stop) = watch::channel(None);
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let run = move || {
            let _end = end;
            let execute: Rc<dyn Execute> = Rc::new(executor());
            LocalSet::new().block_on(&runtime, RunnerLoop::run(&jobs, &registry, execute, stop));
        };
        let thread = std::thread::Builder::new().name("jobs".to_owned()).spawn(run)?;
        Ok(Self {
            deadline,
            ended,
            thread,
        })
    }

    /// Waits until the jobs that run have ended or `deadline` has passed. The others are released. Then the store is closed.
    pub async fn stop(self, deadline: Instant) {
        self.deadline.send_replace(Some(deadline));
        // The sender is dropped when the thread ends.
        let _ = self.ended.await;
        if self.thread.join().is_err() {
            log::error!("the thread that runs jobs panicked");
        }
    }
}
