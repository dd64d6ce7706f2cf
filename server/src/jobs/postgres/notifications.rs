//! Tells other servers about changes of jobs, and learns about theirs, with `LISTEN` and `NOTIFY`.
//!
//! Notifications are hints. They are sent after the transaction, several at once: PostgreSQL lets transactions with notifications
//! commit only one at a time. A notification that is lost costs other servers time, until they look for themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};

use super::pool::{DatabaseConnection, Pool, next_delay};
use crate::jobs::{JobChange, JobState, StoreError};

/// Name of the channel.
const CHANNEL: &str = "inference_server_jobs";

/// Maximum length of a notification. PostgreSQL accepts 8000 bytes.
const MAX_LENGTH: usize = 7800;

/// Number of changes that wait to be sent. Others are dropped.
const QUEUE: usize = 4096;

/// Announces changes to this server and to others.
pub(super) struct Announcer {
    local: broadcast::Sender<JobChange>,
    remote: mpsc::Sender<JobChange>,
}

impl Announcer {
    /// Starts the task that sends and receives notifications. It ends when it is aborted.
    pub(super) fn start(pool: Arc<Pool>, local: broadcast::Sender<JobChange>) -> (Self, JoinHandle<()>) {
        let (remote, outgoing) = mpsc::channel(QUEUE);
        let listener = Listener {
            pool,
            local: local.clone(),
            outgoing,
            // Distinguishes this server's notifications from those of others.
            origin: format!("{:016x}", fastrand::u64(..)),
        };
        let task = tokio::spawn(listener.run());
        (Self { local, remote }, task)
    }

    pub(super) fn announce(&self, changes: Vec<JobChange>) {
        for change in changes {
            // Full while the database is unreachable.
            let _ = self.remote.try_send(change.clone());
            // It fails without receivers, when nobody wants to know.
            let _ = self.local.send(change);
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<JobChange> {
        self.local.subscribe()
    }
}

struct Listener {
    pool: Arc<Pool>,
    local: broadcast::Sender<JobChange>,
    outgoing: mpsc::Receiver<JobChange>,
    origin: String,
}

impl Listener {
    /// Connects again whenever the connection is lost.
    async fn run(mut self) {
        let mut delay = Duration::ZERO;
        loop {
            match self.pool.connect().await {
                Ok((client, connection)) => {
                    delay = Duration::ZERO;
                    let error = self.exchange(&client, connection).await;
                    log::warn!("the job store {}: {error}; reconnecting", self.pool.place());
                }
                Err(error) if delay.is_zero() => log::warn!("{error}; reconnecting"),
                Err(_) => {}
            }
            delay = next_delay(delay);
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends and receives until the connection is lost.
    async fn exchange(&mut self, client: &Client, connection: DatabaseConnection) -> StoreError {
        let (received, mut incoming) = mpsc::channel(64);
        let driver = tokio::spawn(drive(connection, received));
        let failed = |error: tokio_postgres::Error| StoreError::Unavailable {
            reason: crate::error::Chain(&error).to_string(),
        };
        let error = async {
            client
                .batch_execute(&format!("LISTEN {CHANNEL}"))
                .await
                .map_err(failed)?;
            let _ = self.local.send(JobChange::Unknown);
            loop {
                tokio::select! {
                    payload = incoming.recv() => match payload {
                        Some(payload) => self.receive(&payload),
                        None => return Err(StoreError::Unavailable { reason: "the connection was closed".to_owned() }),
                    },
                    Some(first) = self.outgoing.recv() => {
                        let payload = self.gather(&first);
                        client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload]).await.map_err(failed)?;
                    }
                }
            }
        };
        let outcome: Result<(), StoreError> = error.await;
        driver.abort();
        outcome.err().unwrap_or(StoreError::Closed)
    }

    /// One notification for all changes that wait.
    fn gather(&mut self, first: &JobChange) -> String {
        let mut payload = self.origin.clone();
        let mut lines = vec![encode(first)];
        while lines.len() < 200
            && let Ok(change) = self.outgoing.try_recv()
        {
            let line = encode(&change);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        for line in lines {
            if payload.len() + 1 + line.len() > MAX_LENGTH {
                // Others look for themselves.
                return format!("{}\nunknown", self.origin);
            }
            payload.push('\n');
            payload.push_str(&line);
        }
        payload
    }

    fn receive(&self, payload: &str) {
        let mut lines = payload.split('\n');
        if lines.next() == Some(&*self.origin) {
            return;
        }
        for line in lines {
            let _ = self.local.send(decode(line));
        }
    }
}

/// Drives a connection, and passes on the notifications.
async fn drive(mut connection: DatabaseConnection, received: mpsc::Sender<String>) {
    while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
        let sent = match message {
            Ok(AsyncMessage::Notification(notification)) => {
                received.send(notification.payload().to_owned()).await
            }
            Ok(_) => Ok(()),
            Err(_) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

fn encode(change: &JobChange) -> String {
    match change {
        JobChange::Queued { model } if !model.contains('\n') => format!("queued {model}"),
        JobChange::Started(id) => format!("started {id}"),
        JobChange::Ended(id, state) => format!("ended {id} {}", state.name()),
        JobChange::Queued { .. } | JobChange::Unknown => "unknown".to_owned(),
    }
}

/// A line that is not understood, such as one of a newer server, means that something has changed.
fn decode(line: &str) -> JobChange {
    let known = || {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "queued" => Some(JobChange::Queued {
                model: rest.to_owned(),
            }),
            "started" => rest.parse().ok().map(JobChange::Started),
            "ended" => {
                let (id, state) = rest.split_once(' ')?;
                Some(JobChange::Ended(id.parse().ok()?, JobState::from_name(state)?))
            }
            _ => None,
        }
    };
    known().unwrap_or(JobChange::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{JobId, Timestamp};

    #[test]
    fn notifications_are_read_as_they_were_written() {
        let id = JobId::new(Timestamp::from_millis(1)).expect("there are random numbers");
        for change in [
            JobChange::Queued {
                model: "a model with spaces".to_owned(),
            },
            JobChange::Started(id),
            JobChange::Ended(id, JobState::DeadLetter),
            JobChange::Unknown,
        ] {
            assert_eq!(decode(&encode(&change)), change);
        }
        for line in ["", "queued", "started x", "ended x queued", "paused x"] {
            assert_eq!(decode(line), JobChange::Unknown, "{line}");
        }
    }
}
