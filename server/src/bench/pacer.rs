//! Wakes the event loop when a request of an open loop is due.
//!
//! The timers of the event loop have a resolution of a millisecond, which would be part of every latency. A thread that waits
//! on a channel with a deadline is woken within about 50 microseconds and, unlike a spinning thread, leaves the CPU to the
//! server.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender};
use tokio::sync::mpsc;

use super::arrivals::Schedule;

/// Capacity of the channel of due arrivals. If it is full, the pacer falls behind and catches up later.
const DUE_CAPACITY: usize = 1024;

/// The pacer thread. It is stopped and joined on drop.
pub(super) struct Pacer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Sends the instant of each arrival between `start` and `end` when it is due.
    pub(super) fn start(
        schedule: Schedule,
        start: Instant,
        end: Instant,
    ) -> io::Result<(Self, mpsc::Receiver<Instant>)> {
        let (due, arrivals) = mpsc::channel(DUE_CAPACITY);
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
            // The thread cannot panic.
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
    fn arrivals_are_sent_when_they_are_due_until_the_end() {
        let start = clock::now();
        let end = start + Duration::from_millis(10);
        let schedule = Arrivals::Constant.at_rate(1000.0, 1);
        let (_pacer, mut arrivals) = Pacer::start(schedule, start, end).expect("the thread can be started");
        let mut due = Vec::new();
        while let Some(instant) = arrivals.blocking_recv() {
            assert!(clock::now() >= instant);
            due.push((instant - start).as_micros());
        }
        assert_eq!(due, (1..10).map(|millis| millis * 1000).collect::<Vec<u128>>());
    }

    #[test]
    fn dropping_a_pacer_does_not_wait_for_its_schedule() {
        let start = clock::now();
        let end = start + Duration::from_secs(3600);
        let schedule = Arrivals::Constant.at_rate(0.001, 1);
        drop(Pacer::start(schedule, start, end).expect("the thread can be started"));
        assert!(clock::now() - start < Duration::from_secs(1800));
    }
}
