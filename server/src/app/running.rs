//! The server while it runs: it waits for signals, and ends in order.

use std::sync::Arc;
use std::time::Instant;

use super::AppError;
use super::models::{Abandoned, ModelThread};
use crate::clock;
use crate::config::Settings;
use crate::grpc;
use crate::http;
use crate::registry::Registry;
use crate::signals::{Signal, Signals};

/// The server while it runs.
pub(super) struct Running {
    pub(super) settings: Settings,
    pub(super) registry: Arc<Registry>,
    pub(super) servers: Servers,
    pub(super) models: ModelThread,
    pub(super) signals: Signals,
}

/// What listens.
pub(super) struct Servers {
    pub(super) http: http::Server,
    pub(super) grpc: Option<grpc::Server>,
}

impl Servers {
    /// Stops accepting, and waits until every accepted request is answered or `deadline` has passed. Returns whether all
    /// were answered.
    async fn drain(self, deadline: Instant) -> bool {
        let grpc = async {
            match self.grpc {
                Some(grpc) => grpc.drain(deadline).await,
                None => true,
            }
        };
        let (http, grpc) = tokio::join!(self.http.drain(deadline), grpc);
        http && grpc
    }
}

impl Running {
    pub(super) async fn run(mut self) -> Result<(), AppError> {
        while let Signal::Reload = self.signals.next().await {
            self.models.reload();
        }
        let Self {
            settings,
            registry,
            servers,
            models,
            mut signals,
        } = self;
        let shut_down = shut_down(&settings, &registry, servers, models);
        tokio::pin!(shut_down);
        loop {
            tokio::select! {
                result = &mut shut_down => return result,
                signal = signals.next() => {
                    if signal == Signal::Terminate {
                        log::warn!("told to end a second time: ending now");
                        return Err(AppError::Abandoned("told to end a second time".to_owned()));
                    }
                }
            }
        }
    }
}

/// Not ready at once; serves on for a while, so that balancers notice; then finishes what was accepted and ends.
async fn shut_down(
    settings: &Settings,
    registry: &Registry,
    servers: Servers,
    models: ModelThread,
) -> Result<(), AppError> {
    let delay = settings.server.shutdown_delay;
    log::info!(
        "shutting down: not ready from now on; serving on for {} s",
        delay.as_secs_f64()
    );
    registry.start_draining();
    tokio::time::sleep(delay).await;
    let deadline = clock::now() + settings.server.drain_timeout;
    if !servers.drain(deadline).await {
        log::error!(
            "requests were still being answered after {} s",
            settings.server.drain_timeout.as_secs_f64()
        );
    }
    match models.shut_down(deadline).await {
        Ok(()) => {
            log::info!("shut down");
            Ok(())
        }
        // Nothing was promised to anybody.
        Err(Abandoned::Load) => {
            log::warn!("shut down while {}", Abandoned::Load);
            Ok(())
        }
        Err(abandoned) => Err(AppError::Abandoned(abandoned.to_string())),
    }
}
