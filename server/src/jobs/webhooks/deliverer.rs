//! Delivers the messages of a server, from the time that the store of jobs is open until the jobs stop.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::task::JoinHandle;

use super::super::{JobRecord, Jobs};

/// Describes a job for its receiver.
pub type Describe = Arc<dyn Fn(&JobRecord) -> Value + Send + Sync>;

/// The task that delivers the messages of a server.
pub struct Deliverer(JoinHandle<()>);

impl Deliverer {
    /// Starts the task on the current runtime.
    pub fn start(jobs: Arc<Jobs>, describe: Describe) -> Self {
        Self(tokio::spawn(deliver(jobs, describe)))
    }

    /// Waits until the attempts that run have ended or `deadline` has passed, after [`Jobs::stop`]. The messages of the others
    /// are sent again.
    pub async fn stop(mut self, deadline: Instant) {
        match tokio::time::timeout_at(deadline.into(), &mut self.0).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::error!("the task that delivers webhooks failed: {error}"),
            Err(_) => {
                self.0.abort();
                // It is cancelled.
                let _ = self.0.await;
            }
        }
    }
}

/// Delivers messages until the jobs stop.
#[cfg(feature = "jobs")]
async fn deliver(jobs: Arc<Jobs>, describe: Describe) {
    use super::super::StoreClock;
    use super::{DeliveryTask, Sender, SystemResolver};

    let store = tokio::select! {
        store = opened_store(&jobs) => store,
        () = jobs.stopping() => return,
    };
    let settings = jobs.webhooks.clone();
    let tls = settings.secret.as_ref().and_then(|_| client_tls());
    let sender = Sender::new(settings, Box::new(SystemResolver), tls);
    let metrics = jobs.metrics.clone();
    let count = Arc::new(move |outcome| metrics.count_webhook(outcome));
    let task = DeliveryTask::new(store, sender, describe, count, StoreClock::default());
    task.run(jobs.stopping()).await;
}

/// This build has no stores.
#[cfg(not(feature = "jobs"))]
async fn deliver(_: Arc<Jobs>, _: Describe) {}

/// Waits until the store is open. Errors are logged elsewhere.
#[cfg(feature = "jobs")]
async fn opened_store(jobs: &Jobs) -> Arc<dyn super::super::JobStore> {
    loop {
        if let Ok(Some(store)) = jobs.store().await {
            return store;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

/// The certificates that the system trusts. `None` if it has none.
#[cfg(feature = "jobs")]
fn client_tls() -> Option<crate::tls::ClientTls> {
    let tls = crate::tls::ClientTls::new(&crate::tls::Trust::System);
    tls.inspect_err(|error| {
        log::warn!(
            "webhooks over https cannot be delivered: {error}; install the certificates of the system, or set SSL_CERT_FILE"
        );
    })
    .ok()
}
