//! Generates the load: clients in a closed loop, scheduled arrivals in an open loop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::args::Timing;
use super::arrivals::Arrivals;
use super::error::BenchError;
use super::pacer::Pacer;
use super::record::Recorder;
use super::report::{Load, ServerSide, Step};
use super::server_side::Counters;
use super::target::Target;
use crate::client::{Connection, Failure, FailureKind, with_deadline};
use crate::clock;
use crate::console;

/// Delay before a client that could not connect tries again.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);

/// Interval between updates of the progress bar.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// The parameters that all steps of a run share.
pub(super) struct Drive<'a> {
    pub(super) target: &'a Rc<Target>,
    pub(super) timing: Timing,
    pub(super) max_connections: usize,
    pub(super) seed: u64,
    pub(super) progress: Progress,
}

/// How progress is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    None,
    Lines,
    Bar,
}

/// A running step: what its clients share.
#[derive(Clone)]
struct Run {
    target: Rc<Target>,
    recorder: Rc<RefCell<Recorder>>,
    timeout: Duration,
    start: Instant,
    measured_from: Instant,
    end: Instant,
    interruption: Rc<Interruption>,
}

/// A request to end the step early.
#[derive(Default)]
struct Interruption {
    at: Cell<Option<Instant>>,
    triggered: Notify,
}

impl Interruption {
    fn trigger(&self) {
        self.at.set(Some(clock::now()));
        self.triggered.notify_waiters();
    }

    /// Waits for the interruption.
    async fn wait(&self) {
        let triggered = self.triggered.notified();
        if self.at.get().is_none() {
            triggered.await;
        }
    }
}

/// How a step ended.
pub(super) enum Outcome {
    /// The step ran to its end.
    Complete(Step),
    /// Ctrl-C was pressed. The step up to then, unless it was still warming up.
    Interrupted(Option<Step>),
}

impl Drive<'_> {
    /// Runs one step. Must be called within a `LocalSet`.
    pub(super) async fn step(&self, load: Load, place: &str) -> Result<Outcome, BenchError> {
        let start = clock::now();
        let measured_from = start + self.timing.warm_up;
        let end = measured_from + self.timing.duration;
        let run = Run {
            target: self.target.clone(),
            recorder: Rc::new(RefCell::new(Recorder::new(measured_from..end))),
            timeout: self.timing.timeout,
            start,
            measured_from,
            end,
            interruption: Rc::default(),
        };
        let requests = async {
            tokio::select! {
                result = run.load(load, self.seed, self.max_connections) => result,
                () = run.interruption.wait() => Ok(()),
            }
        };
        let title = format!("{place}: {load}");
        let (sent, seen) = tokio::select! {
            both = async { tokio::join!(requests, run.observe()) } => both,
            () = run.report_progress(self.progress, &title) => unreachable!("progress is reported until the step ends"),
            // A second Ctrl-C does not wait for the server's metrics.
            () = run.until_interrupted_twice() => (Ok(()), Observed::NOTHING),
        };
        sent?;
        Ok(run.outcome(load, seen))
    }
}

impl Run {
    async fn load(&self, load: Load, seed: u64, max_connections: usize) -> Result<(), BenchError> {
        match load {
            Load::Closed { clients } => {
                self.closed(clients).await;
                Ok(())
            }
            Load::Open { rate, arrivals } => self.open(rate, arrivals, seed, max_connections).await,
        }
    }

    async fn until_interrupted_twice(&self) {
        for _ in 0..2 {
            if tokio::signal::ctrl_c().await.is_err() {
                // Without a handler, the signal terminates the process.
                return std::future::pending().await;
            }
            self.interruption.trigger();
        }
    }

    /// Runs a closed loop until the end of the step.
    async fn closed(&self, clients: u32) {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn_local(self.clone().client());
        }
        tasks.join_all().await;
    }

    /// One client: sends a request whenever the previous one is answered.
    async fn client(self) {
        let mut connection = None;
        loop {
            let due = clock::now();
            if due >= self.end {
                return;
            }
            let could_connect = self.request(&mut connection, due).await;
            if !could_connect {
                tokio::time::sleep(RECONNECT_DELAY).await;
            }
        }
    }

    /// Runs an open loop: sends requests when they are due, or as soon as a connection is available.
    async fn open(
        &self,
        rate: f64,
        arrivals: Arrivals,
        seed: u64,
        max_connections: usize,
    ) -> Result<(), BenchError> {
        let schedule = arrivals.at_rate(rate, seed);
        let (_pacer, mut due) = Pacer::start(schedule, self.start, self.end).map_err(BenchError::Thread)?;
        let idle: Rc<RefCell<Vec<Connection>>> = Rc::default();
        let permits = Arc::new(Semaphore::new(max_connections));
        let mut tasks = JoinSet::new();
        while let Some(due) = due.recv().await {
            let Ok(permit) = permits.clone().acquire_owned().await else {
                unreachable!("the semaphore is never closed")
            };
            let (run, idle) = (self.clone(), idle.clone());
            tasks.spawn_local(async move {
                // The most recently used connection, which keeps the pool small.
                let mut connection = idle.borrow_mut().pop();
                run.request(&mut connection, due).await;
                idle.borrow_mut().extend(connection);
                drop(permit);
            });
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
        Ok(())
    }

    /// Sends one request and records the result. Returns false if it could not connect. A failed connection is dropped.
    async fn request(&self, connection: &mut Option<Connection>, due: Instant) -> bool {
        self.recorder.borrow_mut().begin(due);
        let deadline = due + self.timeout;
        let result = if clock::now() < deadline {
            with_deadline(deadline, self.timeout, self.exchange(connection)).await
        } else {
            Err(Failure::timeout(self.timeout))
        };
        let kind = result.as_ref().err().map(|failure| failure.kind);
        if !matches!(kind, None | Some(FailureKind::Status(_))) {
            // A late reply must not be mistaken for the reply to the next request.
            *connection = None;
        }
        self.recorder.borrow_mut().record(due, clock::now(), result);
        kind != Some(FailureKind::Connect)
    }

    async fn exchange(&self, connection: &mut Option<Connection>) -> Result<(), Failure> {
        let open = match connection.take() {
            Some(open) if open.is_usable() => open,
            _ => Connection::open(&self.target.endpoint).await?,
        };
        connection.insert(open).send(self.target.request()).await
    }

    /// Reads CPU time and the metrics of the server at the start and end of the measurement.
    async fn observe(&self) -> Observed {
        let reached = |moment: Instant| async move {
            tokio::select! {
                () = tokio::time::sleep_until(moment.into()) => true,
                () = self.interruption.wait() => false,
            }
        };
        if !reached(self.measured_from).await {
            return Observed::NOTHING;
        }
        let (started, cpu_time_before) = (clock::now(), cpu_time());
        let before = tokio::select! {
            counters = self.counters() => counters,
            () = self.interruption.wait() => None,
        };
        reached(self.end).await;
        let client_busy =
            (cpu_time() - cpu_time_before).as_secs_f64() / (clock::now() - started).as_secs_f64();
        let server = match before {
            Some(before) => self.counters().await.map(|after| after.since(&before)),
            None => None,
        };
        Observed { client_busy, server }
    }

    async fn counters(&self) -> Option<Counters> {
        let deadline = clock::now() + self.timeout;
        let exposition = with_deadline(deadline, self.timeout, async {
            let mut connection = Connection::open(&self.target.endpoint).await?;
            connection.fetch(self.target.metrics_request()).await
        });
        let exposition = exposition.await.ok()?;
        Counters::read(
            &String::from_utf8_lossy(&exposition),
            &self.target.model,
            &self.target.task,
        )
    }

    fn outcome(&self, load: Load, seen: Observed) -> Outcome {
        match self.interruption.at.get() {
            None => Outcome::Complete(self.result(load, seen, self.end)),
            Some(at) if at >= self.end => Outcome::Interrupted(Some(self.result(load, seen, self.end))),
            Some(at) if at > self.measured_from => {
                self.recorder.borrow_mut().cut(at);
                Outcome::Interrupted(Some(self.result(load, seen, at)))
            }
            Some(_) => Outcome::Interrupted(None),
        }
    }

    fn result(&self, load: Load, seen: Observed, end: Instant) -> Step {
        let recorder = self.recorder.borrow();
        let seconds = (end - self.measured_from).as_secs_f64();
        let requests_per_second = recorder.completed() as f64 / seconds;
        Step {
            load,
            seconds,
            requests: recorder.succeeded(),
            requests_per_second,
            items_per_second: requests_per_second * self.target.items as f64,
            latency_seconds: recorder.latency(),
            errors: recorder.errors(),
            client_busy: seen.client_busy,
            server: seen.server,
        }
    }

    /// Reports progress on standard error. Never returns.
    async fn report_progress(&self, progress: Progress, title: &str) {
        let bar = match progress {
            Progress::Bar => ProgressBar::new((self.end - self.start).as_millis() as u64),
            Progress::Lines => {
                console::report(format_args!("{title}, {:?}", self.end - self.start));
                ProgressBar::hidden()
            }
            Progress::None => ProgressBar::hidden(),
        };
        let _clear = ClearOnDrop(&bar);
        let style = ProgressStyle::with_template("{prefix} {bar:30} {msg}").expect("the template is valid");
        bar.set_style(style);
        bar.set_prefix(title.to_owned());
        loop {
            let now = clock::now();
            bar.set_position((now - self.start).as_millis() as u64);
            bar.set_message(self.message(now));
            tokio::time::sleep(REDRAW_INTERVAL).await;
        }
    }

    fn message(&self, now: Instant) -> String {
        if now < self.measured_from {
            return "warm-up".to_owned();
        }
        let recorder = self.recorder.borrow();
        let seconds = (now.min(self.end) - self.measured_from).as_secs_f64();
        let rate = recorder.completed() as f64 / seconds.max(0.001);
        let drain = if now > self.end {
            ", waiting for the last replies"
        } else {
            ""
        };
        format!("{rate:.0} requests/s, {} failed{drain}", recorder.failed())
    }
}

/// Observations of a step other than its requests.
struct Observed {
    /// Fraction of the time in which this thread used a CPU.
    client_busy: f64,
    /// `None` if the server does not have these metrics.
    server: Option<ServerSide>,
}

impl Observed {
    const NOTHING: Self = Self {
        client_busy: 0.0,
        server: None,
    };
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The kernel returns no negative times.
    Duration::try_from(time).unwrap_or_default()
}

/// Clears a progress bar when it is dropped.
struct ClearOnDrop<'a>(&'a ProgressBar);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
