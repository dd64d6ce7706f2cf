//! The running server: handles signals, and shuts down gracefully.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::AppError;
use super::models::{Abandoned, ModelThread};
use super::service_manager;
use crate::api::traces::TraceExporter;
use crate::clock;
use crate::config::Settings;
#[cfg(feature = "grpc")]
use crate::grpc;
use crate::http;
use crate::jobs::webhooks::Deliverer;
use crate::jobs::{Jobs, Runner};
use crate::registry::Registry;
use crate::signals::{Signal, Signals};

/// Termination signals within this time after the first one count as one: `timeout` and some service managers signal both a
/// process and its group.
const REPEATED_SIGNAL_INTERVAL: Duration = Duration::from_secs(1);

/// Time for exporting the last traces, even if the shutdown has taken as long as it may.
const MIN_FLUSH_TIME: Duration = Duration::from_secs(1);

/// Maximum time for exporting the last traces, for a collector that does not answer.
const MAX_FLUSH_TIME: Duration = Duration::from_secs(5);

/// The jobs, and what works on them unless they are disabled: the thread that runs them, and the task that delivers their
/// webhooks.
pub(super) type RunningJobs = (Arc<Jobs>, Option<(Runner, Deliverer)>);

/// The running server.
pub(super) struct Running {
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    pub(super) servers: Servers,
    pub(super) models: ModelThread,
    pub(super) jobs: RunningJobs,
    pub(super) traces: Option<TraceExporter>,
    pub(super) signals: Signals,
}

/// The servers that accept connections.
pub(super) struct Servers {
    pub(super) http: http::Server,
    #[cfg(feature = "grpc")]
    pub(super) grpc: Option<grpc::Server>,
}

impl Servers {
    /// Waits until one of them has stopped unexpectedly, and returns its name. Cancel-safe.
    async fn failed(&mut self) -> &'static str {
        let grpc = async {
            #[cfg(feature = "grpc")]
            if let Some(grpc) = &mut self.grpc {
                return grpc.failed().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = self.http.failed() => "HTTP",
            () = grpc => "gRPC",
        }
    }

    /// Stops accepting connections, and waits until every accepted request is answered or `deadline` has passed. Returns
    /// whether all were answered.
    async fn drain(self, deadline: Instant) -> bool {
        let grpc = async {
            #[cfg(feature = "grpc")]
            if let Some(grpc) = self.grpc {
                return grpc.drain(deadline).await;
            }
            true
        };
        let (http, grpc) = tokio::join!(self.http.drain(deadline), grpc);
        http && grpc
    }
}

impl Running {
    pub(super) async fn run(mut self) -> Result<(), AppError> {
        loop {
            tokio::select! {
                signal = self.signals.next() => match signal {
                    Signal::Reload => self.models.reload(),
                    Signal::Terminate => break,
                    Signal::Ignored(name) => log_ignored(name),
                },
                () = self.models.ended() => return Err(AppError::ModelThread),
                // Otherwise the process would keep running without serving.
                server = self.servers.failed() => return Err(AppError::Server(server)),
            }
        }
        let first = clock::now();
        let Self {
            settings,
            registry,
            servers,
            models,
            jobs,
            traces,
            mut signals,
        } = self;
        let shut_down = shut_down(&settings, &registry, servers, (models, jobs), traces);
        tokio::pin!(shut_down);
        loop {
            tokio::select! {
                result = &mut shut_down => return result,
                signal = signals.next() => match signal {
                    Signal::Terminate if is_second_request(first, clock::now()) => {
                        log::warn!("received a second termination signal; exiting now");
                        return Err(AppError::IncompleteShutdown("received a second termination signal".to_owned()));
                    }
                    Signal::Terminate => log::debug!("ignoring a repeated termination signal"),
                    Signal::Reload => log::info!("ignoring SIGHUP during shutdown"),
                    Signal::Ignored(name) => log_ignored(name),
                },
            }
        }
    }
}

/// Until when traces are exported `now` that everything else has stopped, in a shutdown until `deadline`.
fn flush_deadline(now: Instant, deadline: Instant) -> Instant {
    deadline.clamp(now + MIN_FLUSH_TIME, now + MAX_FLUSH_TIME)
}

fn log_ignored(name: &str) {
    log::info!("ignoring {name}");
}

/// Whether a termination signal `now` counts as a second one after the `first`.
fn is_second_request(first: Instant, now: Instant) -> bool {
    now.saturating_duration_since(first) > REPEATED_SIGNAL_INTERVAL
}

/// Reports "not ready", keeps serving for `shutdown_delay` so that load balancers can react, then drains servers, jobs and
/// models.
async fn shut_down(
    settings: &Settings,
    registry: &Registry,
    servers: Servers,
    (models, (jobs, running_jobs)): (ModelThread, RunningJobs),
    traces: Option<TraceExporter>,
) -> Result<(), AppError> {
    let delay = settings.server.shutdown_delay;
    service_manager::report_stopping();
    log::info!(
        "shutting down: no longer ready, serving for another {} s",
        delay.as_secs_f64()
    );
    registry.start_draining();
    jobs.stop();
    servers.http.start_draining();
    tokio::time::sleep(delay).await;
    let deadline = clock::now() + settings.server.drain_timeout;
    let answered = servers.drain(deadline).await;
    if !answered {
        log::error!(
            "requests were still in flight after {} s (drain_timeout)",
            settings.server.drain_timeout.as_secs_f64()
        );
    }
    if let Some((runner, deliverer)) = running_jobs {
        // Before the runner closes the store.
        deliverer.stop(deadline).await;
        runner.stop(deadline).await;
    }
    let stopped = models.shut_down(deadline, answered).await;
    if let Some(traces) = traces
        && !traces.stop(flush_deadline(clock::now(), deadline)).await
    {
        log::warn!("traces were still being exported at the end of the shutdown");
    }
    match stopped {
        Ok(()) => {
            log::info!("shut down");
            Ok(())
        }
        Err(Abandoned::Load) if answered => {
            log::warn!("shut down while {}", Abandoned::Load);
            Ok(())
        }
        Err(abandoned) => Err(AppError::IncompleteShutdown(abandoned.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn termination_signals_within_a_second_count_as_one() {
        let first = clock::now();
        for (after, second) in [
            (0, false),
            (300, false),
            (1000, false),
            (1001, true),
            (60_000, true),
        ] {
            let now = first + Duration::from_millis(after);
            assert_eq!(is_second_request(first, now), second, "after {after} ms");
        }
    }
}
