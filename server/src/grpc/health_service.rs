//! `grpc.health.v1`: the server as a whole under the name ``, the inference service under its own, and each model under its.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::Stopping;
use super::proto::grpc_inference_service_server::SERVICE_NAME;
use crate::registry::Registry;

/// How often a watcher's state is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// The health service.
pub(super) fn service(registry: Arc<Registry>, stopping: Stopping) -> HealthServer<impl Health> {
    HealthServer::new(Probe { registry, stopping })
}

#[derive(Clone)]
struct Probe {
    registry: Arc<Registry>,
    stopping: Stopping,
}

impl Probe {
    /// The state of a service; `None` if there is none of that name.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let serving = |serves| {
            if serves {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        if service.is_empty() || service == SERVICE_NAME {
            return Some(serving(self.registry.is_ready()));
        }
        let snapshot = self.registry.snapshot();
        let (entry, _) = snapshot.named(service)?;
        Some(serving(!self.registry.is_draining() && entry.is_ready()))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.into_inner().service) {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found("no such service or model")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The state now, and again whenever it has changed, until the server stops.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let stopping = self.stopping.clone();
        let interval = tokio::time::interval(WATCH_INTERVAL);
        let watch = (self.clone(), service, interval, None);
        let changes = stream::unfold(watch, |(probe, service, mut interval, last)| async move {
            loop {
                interval.tick().await;
                let status = probe.status(&service).unwrap_or(ServingStatus::ServiceUnknown);
                if Some(status) != last {
                    return Some((Ok(response(status)), (probe, service, interval, Some(status))));
                }
            }
        });
        Ok(Response::new(Box::pin(changes.take_until(stopping.told()))))
    }
}
