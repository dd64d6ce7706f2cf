//! Webhooks: messages to the clients of jobs that have ended, as defined by the Standard Webhooks specification.
//!
//! - [`check_target`] decides which URLs are allowed, and [`AddressClass`] which addresses; both are pure, as are the
//!   signatures and the schedule of retries.
//! - `Sender` makes one attempt to deliver a message.
//! - `DeliveryTask` delivers the messages that the store of jobs holds, and [`Deliverer`] runs it for a server.

mod address;
mod deliverer;
mod schedule;
#[cfg(feature = "jobs")]
mod sender;
mod signature;
mod target;
#[cfg(feature = "jobs")]
mod task;
#[cfg(all(test, feature = "jobs"))]
mod tests;

use std::time::Duration;

use crate::config::JobSettings;

pub use address::AddressClass;
pub use deliverer::{Deliverer, Describe};
pub use schedule::FailedAttempt;
#[cfg(feature = "jobs")]
pub use sender::{Attempt, Message, Resolve, Sender, SystemResolver};
pub use signature::WebhookSecret;
pub use target::{Host, HostPattern, Target, TargetError, check_target};
#[cfg(feature = "jobs")]
pub use task::{Count, DeliveryTask};

/// Settings of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The hosts that can be targets, also with addresses that are not public. If there are none, every host with a public
    /// address can be a target.
    pub allowed_hosts: Vec<HostPattern>,
    /// The key of the signatures. Without it, webhooks are disabled.
    pub secret: Option<WebhookSecret>,
    /// Maximum time of an attempt.
    pub timeout: Duration,
    /// Maximum number of attempts at the same time.
    pub max_concurrency: usize,
}

impl WebhookSettings {
    /// The settings of webhooks among those of jobs.
    pub fn new(settings: &JobSettings) -> Self {
        let hosts = settings.webhook_allowed_hosts.iter();
        let secret = settings.webhook_secret.as_ref();
        Self {
            allowed_hosts: hosts.map(|host| HostPattern::parse(host)).collect(),
            secret: secret.and_then(|secret| WebhookSecret::parse(secret.expose())),
            timeout: settings.webhook_timeout,
            max_concurrency: settings.webhook_concurrency,
        }
    }

    /// Settings without webhooks.
    pub fn disabled() -> Self {
        Self {
            allowed_hosts: Vec::new(),
            secret: None,
            timeout: Duration::from_secs(15),
            max_concurrency: 16,
        }
    }
}
