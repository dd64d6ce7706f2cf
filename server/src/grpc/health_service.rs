//! `grpc.health.v1`: the status of the server under the empty service name and the name of the inference service, and
//! the status of each model under its name.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::ShutdownSignal;
use super::proto::grpc_inference_service_server::SERVICE_NAME;
use crate::registry::Registry;

/// How often the status of a watched service is checked.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Creates the health service.
pub(super) fn service(registry: Arc<Registry>, shutdown: ShutdownSignal) -> HealthServer<impl Health> {
    HealthServer::new(HealthService { registry, shutdown })
}

#[derive(Clone)]
struct HealthService {
    registry: Arc<Registry>,
    shutdown: ShutdownSignal,
}

impl HealthService {
    /// Returns the status of a service; `None` if it does not exist.
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
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.into_inner().service) {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found("unknown service or model")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Sends the current status, then every change, until the server shuts down.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let shutdown = self.shutdown.clone();
        let interval = tokio::time::interval(WATCH_INTERVAL);
        let watch = (self.clone(), service, interval, None);
        let changes = stream::unfold(watch, |(state, service, mut interval, last)| async move {
            loop {
                interval.tick().await;
                let status = state.status(&service).unwrap_or(ServingStatus::ServiceUnknown);
                if Some(status) != last {
                    return Some((Ok(response(status)), (state, service, interval, Some(status))));
                }
            }
        });
        Ok(Response::new(Box::pin(changes.take_until(shutdown.wait()))))
    }
}
