//! What the thread of the runner does: claims jobs, renews its claims, sweeps the store, and drains.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::Execute;
use super::run::{Backoff, Ended, Run, log_store_error};
use crate::clock;
use crate::jobs::attempt::Attempt;
use crate::jobs::room::rooms;
use crate::jobs::{Claim, ClaimedJob, Fence, JobChange, JobError, JobId, JobState, JobStore, Jobs, Progress};
use crate::metrics::{ClaimOutcome, JobDepth, JobMetrics};
use crate::registry::Registry;

/// Interval between claims while nothing happens: jobs of other servers, and jobs that wait for their time, become due.
const CLAIM_INTERVAL: Duration = Duration::from_millis(500);

/// Interval between sweeps of the store, and between updates of the metrics of its content.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Interval between records of the progress of jobs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of bytes of the requests of claimed jobs.
const MAX_HELD_BYTES: u64 = 128 << 20;

/// A job that this server holds.
struct Held {
    attempt: Arc<Attempt>,
    items: u32,
    bytes: u64,
    /// The number of items with an outcome that the store knows.
    items_stored: u32,
    task: AbortHandle,
}

impl Held {
    /// The progress that the store does not know. The end of a job is stored with its outcome.
    fn progress(&self) -> Option<Progress> {
        let items_done = self.attempt.items_done();
        (items_done > self.items_stored && items_done < self.items).then_some(Progress {
            id: self.attempt.id,
            fence: self.attempt.fence,
            items_done,
        })
    }
}

/// The state of the thread.
pub(super) struct RunnerLoop<'a> {
    jobs: &'a Jobs,
    registry: &'a Registry,
    execute: Rc<dyn Execute>,
    store: Arc<dyn JobStore>,
    held: HashMap<JobId, Held>,
    tasks: JoinSet<Ended>,
    ids: HashMap<Id, JobId>,
    /// Models that cannot run jobs before a time.
    paused: HashMap<String, Instant>,
    /// Whether the last claim failed, which is logged once.
    is_failing: bool,
    stop: watch::Receiver<Option<Instant>>,
}

impl<'a> RunnerLoop<'a> {
    pub(super) async fn run(
        jobs: &'a Jobs,
        registry: &'a Registry,
        execute: Rc<dyn Execute>,
        mut stop: watch::Receiver<Option<Instant>>,
    ) {
        let store = tokio::select! {
            store = wait_for_store(jobs) => store,
            () = jobs.stopping() => {
                // The jobs that the store may have are not claimed any more.
                let _ = stop.wait_for(Option::is_some).await;
                close(jobs).await;
                return;
            }
        };
        let mut this = Self {
            jobs,
            registry,
            execute,
            store,
            held: HashMap::new(),
            tasks: JoinSet::new(),
            ids: HashMap::new(),
            paused: HashMap::new(),
            is_failing: false,
            stop,
        };
        this.serve().await;
        this.drain().await;
        // Until the servers have stopped, clients submit jobs and ask for results.
        let _ = this.stop.wait_for(Option::is_some).await;
        close(jobs).await;
    }

    async fn serve(&mut self) {
        let mut changes = self.store.changes();
        let mut claim = interval(CLAIM_INTERVAL);
        let mut renew = interval(self.jobs.settings.lease / 3);
        let mut progress = interval(PROGRESS_INTERVAL);
        let mut sweep = interval(SWEEP_INTERVAL);
        let stopping = self.jobs.stopping();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => return,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.ended(ended).await;
                    // Items of a batch end together, so one claim is enough for all of them.
                    tokio::task::yield_now().await;
                    while let Some(ended) = self.tasks.try_join_next_with_id() {
                        self.ended(ended).await;
                    }
                    self.claim().await;
                }
                change = changes.recv() => self.changed(change).await,
                () = self.jobs.wake.notified() => self.claim().await,
                _ = claim.tick() => self.claim().await,
                _ = renew.tick() => self.renew().await,
                _ = progress.tick() => self.record_progress().await,
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// Claims jobs for the models that have room, and runs them.
    async fn claim(&mut self) {
        let held_bytes: u64 = self.held.values().map(|held| held.bytes).sum();
        let max_bytes = MAX_HELD_BYTES.saturating_sub(held_bytes);
        let now = clock::now();
        self.paused.retain(|_, until| *until > now);
        let held = |model: &str| {
            let of_model = self.held.values().filter(|held| held.attempt.model == model);
            of_model.map(|held| u64::from(held.items.max(1))).sum::<u64>()
        };
        let mut room = rooms(self.registry, held);
        room.retain(|room| !self.paused.contains_key(&room.model));
        if room.is_empty() || max_bytes == 0 {
            return;
        }
        let claim = Claim {
            worker: self.jobs.worker.clone(),
            lease: self.jobs.settings.lease,
            room,
            max_bytes,
        };
        match self.store.claim(claim).await {
            Ok(claimed) => {
                if std::mem::take(&mut self.is_failing) {
                    log::info!("jobs are claimed again");
                }
                claimed.into_iter().for_each(|claimed| self.start(claimed));
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    log::warn!("cannot claim jobs: {error}");
                }
            }
        }
    }

    fn start(&mut self, claimed: ClaimedJob) {
        let (items, bytes) = (claimed.record.items, claimed.request.body.len() as u64);
        let attempt = Arc::new(Attempt::new(
            self.store.clone(),
            self.jobs.metrics.clone(),
            claimed,
        ));
        let run = Run {
            store: self.store.clone(),
            execute: self.execute.clone(),
            attempt: attempt.clone(),
        };
        let task = self.tasks.spawn_local(run.run());
        self.ids.insert(task.id(), attempt.id);
        let held = Held {
            attempt,
            items,
            bytes,
            items_stored: 0,
            task,
        };
        self.held.insert(held.attempt.id, held);
    }

    /// Forgets a job whose run has ended.
    async fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let held = self.ids.remove(&id).and_then(|job| self.held.remove(&job));
        let metrics = &self.jobs.metrics;
        match ended {
            Ok((_, Ended::Settled(outcome))) => metrics.count_claim(outcome),
            Ok((_, Ended::Postponed(pause))) => {
                metrics.count_claim(ClaimOutcome::Released);
                if let Some(held) = held {
                    self.paused
                        .insert(held.attempt.model.clone(), clock::now() + pause);
                }
            }
            // A job that is not held any more was released, which was counted.
            Err(error) if error.is_cancelled() && held.is_none() => {}
            Err(error) if error.is_cancelled() => metrics.count_claim(ClaimOutcome::Lost),
            Err(error) => {
                log::error!("running a job panicked: {error}");
                metrics.count_claim(ClaimOutcome::Interrupted);
                if let Some(held) = held {
                    let error = JobError {
                        code: "internal".to_owned(),
                        message: "the server failed while it ran the job".to_owned(),
                    };
                    let interrupt = self.store.interrupt(held.attempt.id, held.attempt.fence, error);
                    let _ = interrupt.await.inspect_err(log_store_error);
                }
            }
        }
    }

    async fn changed(&mut self, change: Result<JobChange, broadcast::error::RecvError>) {
        match change {
            Ok(JobChange::Ended(id, JobState::Cancelled | JobState::Expired)) => self.abort(id),
            Ok(JobChange::Started(_) | JobChange::Ended(..)) => {}
            Ok(JobChange::Queued { .. } | JobChange::Unknown)
            | Err(broadcast::error::RecvError::Lagged(_)) => {
                self.claim().await;
            }
            // The store is closed.
            Err(broadcast::error::RecvError::Closed) => tokio::time::sleep(CLAIM_INTERVAL).await,
        }
    }

    /// Stops the run of a job that the server no longer holds.
    fn abort(&mut self, id: JobId) {
        if let Some(held) = self.held.get(&id) {
            held.task.abort();
        }
    }

    async fn renew(&mut self) {
        let claims = self.claims();
        if claims.is_empty() {
            return;
        }
        match self.store.renew(claims, self.jobs.settings.lease).await {
            Ok(lost) => {
                let lost: Vec<JobId> = lost.into_iter().filter(|id| self.is_running(id)).collect();
                self.jobs.metrics.count_lost_leases(lost.len());
                for id in lost {
                    log::warn!("job {id} is no longer held by this server; its run is cancelled");
                    self.abort(id);
                }
            }
            Err(error) => log::warn!("cannot renew the claims on jobs: {error}"),
        }
    }

    /// Stores how many items of the running jobs have an outcome, in one call for all of them.
    async fn record_progress(&mut self) {
        let held = self.held.values();
        let progress: Vec<Progress> = held.filter_map(Held::progress).collect();
        if progress.is_empty() {
            return;
        }
        // A failure is logged elsewhere. The number is stored with the next one.
        if self.store.progress(progress.clone()).await.is_ok() {
            for progress in progress {
                if let Some(held) = self.held.get_mut(&progress.id) {
                    held.items_stored = progress.items_done;
                }
            }
        }
    }

    fn claims(&self) -> Vec<(JobId, Fence)> {
        let held = self.held.values();
        held.map(|held| (held.attempt.id, held.attempt.fence)).collect()
    }

    fn is_running(&self, id: &JobId) -> bool {
        self.held.get(id).is_some_and(|held| !held.task.is_finished())
    }

    async fn sweep(&mut self) {
        match self.store.sweep().await {
            Ok(swept) if swept.requeued + swept.dead_letters > 0 => log::warn!(
                "{} jobs of servers that no longer renew their claims were queued again, and {} have no attempts left",
                swept.requeued,
                swept.dead_letters
            ),
            Ok(_) => {}
            Err(_) if self.is_failing => {}
            Err(error) => log_store_error(&error),
        }
        update_metrics(&*self.store, &self.jobs.metrics).await;
    }

    /// Releases the jobs that have not begun, and waits for the others.
    async fn drain(&mut self) {
        // All at once: while the first is released, others could begin.
        let held = self.held.iter();
        let withdrawn: Vec<JobId> = held
            .filter(|(_, held)| held.attempt.withdraw())
            .map(|(id, _)| *id)
            .collect();
        for id in withdrawn {
            self.release(id).await;
        }
        let mut renew = interval(self.jobs.settings.lease / 3);
        let mut progress = interval(PROGRESS_INTERVAL);
        let mut stop = self.stop.clone();
        let deadline = async move {
            let deadline = stop
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|deadline| *deadline);
            tokio::time::sleep_until(deadline.unwrap_or_else(clock::now).into()).await;
        };
        tokio::pin!(deadline);
        while !self.tasks.is_empty() {
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                _ = renew.tick() => self.renew().await,
                _ = progress.tick() => self.record_progress().await,
                () = &mut deadline => break,
            }
        }
        let running: Vec<JobId> = self.held.keys().copied().collect();
        if !running.is_empty() {
            log::warn!("{} jobs were still running and will run again", running.len());
        }
        for id in running {
            self.release(id).await;
        }
    }

    async fn release(&mut self, id: JobId) {
        if let Some(held) = self.held.remove(&id) {
            held.task.abort();
            self.jobs.metrics.count_claim(ClaimOutcome::Released);
            let release = self.store.release(held.attempt.id, held.attempt.fence);
            let _ = release.await.inspect_err(log_store_error);
        }
    }
}
/// Waits until the store is opened.
async fn wait_for_store(jobs: &Jobs) -> Arc<dyn JobStore> {
    let mut backoff = Backoff::default();
    loop {
        // An error was logged.
        if let Ok(Some(store)) = jobs.store().await {
            return store;
        }
        tokio::select! {
            () = jobs.wake.notified() => {}
            () = backoff.wait() => {}
        }
    }
}

async fn close(jobs: &Jobs) {
    if let Some(store) = jobs.opened_store()
        && let Err(error) = store.close().await
    {
        log_store_error(&error);
    }
}

async fn update_metrics(store: &dyn JobStore, metrics: &JobMetrics) {
    let Ok(statistics) = store.statistics().await else {
        return;
    };
    let now = clock::unix_millis();
    let depths = statistics.depths.into_iter().map(|depth| JobDepth {
        model: depth.model,
        state: depth.state.name(),
        jobs: depth.jobs,
        oldest_age: (!depth.state.is_final())
            .then(|| Duration::from_millis(now.saturating_sub(depth.oldest.millis()))),
    });
    metrics.set_contents(depths.collect(), statistics.stored_bytes);
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
