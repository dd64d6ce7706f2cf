//! Wakes the event loop when a request of an open loop is due.
//!
//! The event loop's own timers count in milliseconds, which would be part of every latency. A thread that waits on a
//! channel with a deadline is woken within some 50 microseconds, and, unlike one that spins, leaves the processor to the server.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender};
use tokio::sync::mpsc;

use super::arrivals::Schedule;

/// Arrivals that are due and that the event loop has not taken yet; beyond them the pacer is late, and catches up.
const DUE_AHEAD: usize = 1024;

/// The thread. Dropping it stops and joins it.
pub(super) struct Pacer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Sends the instant of each arrival between `start` and `end` when it has come.
    pub(super) fn start(
        schedule: Schedule,
        start: Instant,
        end: Instant,
    ) -> io::Result<(Self, mpsc::Receiver<Instant>)> {
        let (due, arrivals) = mpsc::channel(DUE_AHEAD);
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let thread = thread::Builder::new()
            .name("bench pacer".to_owned())
            .spawn(move || {
                let instants = schedule.map(|offset| start + offset);
                for instant in instants.take_while(|instant| *instant < end) {
                    let waited = stopped.recv_deadline(instant);
                    if waited != Err(RecvTimeoutError::Timeout) || due.blocking_send(instant).is_err() {
                        return;
                    }
                }
            })?;
        let pacer = Self {
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((pacer, arrivals))
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::arrivals::Arrivals;
    use crate::clock;

    #[test]
    fn arrivals_come_when_they_are_due_and_end_in_time() {
        let start = clock::now();
        let end = start + Duration::from_millis(10);
        let schedule = Arrivals::Constant.at_rate(1000.0, 1);
        let (_pacer, mut arrivals) = Pacer::start(schedule, start, end).expect("there is a thread");
        let mut due = Vec::new();
        while let Some(instant) = arrivals.blocking_recv() {
            assert!(clock::now() >= instant);
            due.push((instant - start).as_micros());
        }
        assert_eq!(due, (1..10).map(|millis| millis * 1000).collect::<Vec<u128>>());
    }

    #[test]
    fn a_pacer_that_is_dropped_does_not_wait_for_its_schedule() {
        let start = clock::now();
        let end = start + Duration::from_secs(3600);
        let schedule = Arrivals::Constant.at_rate(0.001, 1);
        drop(Pacer::start(schedule, start, end).expect("there is a thread"));
        assert!(clock::now() - start < Duration::from_secs(1800));
    }
}
