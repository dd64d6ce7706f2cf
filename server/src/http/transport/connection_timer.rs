//! The timer of a connection, and what else wakes up its task: the connection itself, or a new stage of the server.
//!
//! It does not know the protocol of the connection, nor what happens at a deadline.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::Sleep;

use super::Stage;

/// Why the task of a connection continues.
pub(super) enum Wakeup<E> {
    /// The connection has ended.
    End(E),
    /// The stage of the server has changed.
    Stage(Stage),
    /// The timer has fired, or is set to a later time than the deadline of the connection.
    Timer,
}

/// The timer of a connection. Its owner sets it, since only the state of the connection knows the next deadline.
pub(super) struct ConnectionTimer<'a> {
    sleep: Pin<&'a mut Sleep>,
    stages: &'a mut watch::Receiver<Stage>,
    stopped: bool,
}

impl<'a> ConnectionTimer<'a> {
    pub(super) fn new(sleep: Pin<&'a mut Sleep>, stages: &'a mut watch::Receiver<Stage>) -> Self {
        Self {
            sleep,
            stages,
            stopped: false,
        }
    }

    /// Waits for the next wakeup of the task. `poll` runs the connection, and `deadline` returns its present deadline, which
    /// `poll` can bring forward. Cancel safe.
    pub(super) async fn wait<E>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<E>,
        deadline: impl Fn() -> Option<Instant>,
    ) -> Wakeup<E> {
        let armed: Instant = self.sleep.deadline().into();
        let connection = poll_fn(|context| {
            if let Poll::Ready(end) = poll(context) {
                return Poll::Ready(Wakeup::End(end));
            }
            // This is rare: a request that arrives in one packet does not affect the timer.
            match deadline() {
                Some(deadline) if deadline < armed => Poll::Ready(Wakeup::Timer),
                _ => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            // Polled before requests are served, so that every reply takes the stage into account.
            changed = self.stages.changed(), if !self.stopped => {
                let stage = match changed {
                    Ok(()) => *self.stages.borrow_and_update(),
                    // The server was dropped.
                    Err(_) => Stage::Stopped,
                };
                self.stopped = stage == Stage::Stopped;
                Wakeup::Stage(stage)
            }
            wakeup = connection => wakeup,
            () = self.sleep.as_mut() => Wakeup::Timer,
        }
    }

    /// Sets the timer.
    pub(super) fn set(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at.into());
    }
}
