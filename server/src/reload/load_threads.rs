//! The threads on which models are loaded. They never exit; an idle thread takes the next load.
//!
//! Some libraries bind state to the thread that opens them. The allocator mimalloc regards that thread as the main one, and
//! recognizes it by the address of its thread-local storage. When that thread exits, mimalloc frees the state of the main
//! thread, and the system gives the address to a thread that starts later, such as a worker of the model. mimalloc takes
//! that thread for the main one, reads the freed state, and crashes. A thread that never exits keeps its address.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::niceness;

/// A job. It calls its argument when its thread can take the next job.
type Job = Box<dyn FnOnce(&dyn Fn()) + Send>;

/// The idle threads by niceness, because a thread cannot lower its own niceness.
static IDLE: Mutex<BTreeMap<i32, Vec<Sender<Job>>>> = Mutex::new(BTreeMap::new());

/// Runs `work` on a thread with at least the niceness `nice` that never exits. Then passes the result, or the panic of
/// `work`, to `deliver`, which must not block or panic.
pub(super) fn run<T>(
    nice: i32,
    work: impl FnOnce() -> T + Send + 'static,
    deliver: impl FnOnce(thread::Result<T>) + Send + 'static,
) -> io::Result<()> {
    let job: Job = Box::new(move |become_idle: &dyn Fn()| {
        let result = catch_unwind(AssertUnwindSafe(work));
        // Before the result is delivered, so that the receiver's next load can use this thread.
        become_idle();
        deliver(result);
    });
    let idle = with_idle(nice, Vec::pop);
    let thread = idle.map_or_else(|| start(nice), Ok)?;
    thread
        .send(job)
        .map_err(|_| io::Error::other("a load thread has exited"))
}

fn with_idle<T>(nice: i32, change: impl FnOnce(&mut Vec<Sender<Job>>) -> T) -> T {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    change(idle.entry(nice).or_default())
}

fn start(nice: i32) -> io::Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let own = sender.clone();
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        niceness::raise_to(nice);
        // Never ends, because the thread itself holds a sender.
        for job in jobs {
            job(&|| with_idle(nice, |idle| idle.push(own.clone())));
        }
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Runs `work`, and returns its result and the directory of its thread in `/proc`.
    fn run_and_wait<T: Send + 'static>(
        nice: i32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (thread::Result<T>, PathBuf) {
        let (sender, receiver) = channel();
        let deliver = move |result| {
            let thread = rustix::thread::gettid().as_raw_nonzero();
            let directory = PathBuf::from(format!("/proc/self/task/{thread}"));
            sender.send((result, directory)).expect("the test waits");
        };
        run(nice, work, deliver).expect("a thread can be started");
        receiver.recv().expect("the result is delivered")
    }

    #[test]
    fn a_load_thread_keeps_running_and_takes_the_next_load_of_its_niceness() {
        let (_, first) = run_and_wait(14, || ());
        let (_, next) = run_and_wait(14, || ());
        let (_, nicer) = run_and_wait(15, || ());
        assert_eq!(first, next);
        assert_ne!(first, nicer);
        assert!(first.exists() && nicer.exists());
    }

    #[test]
    fn a_panic_is_delivered_and_the_thread_keeps_running() {
        let (result, first) = run_and_wait(16, || -> u8 { panic!("no luck") });
        let panic = result.expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"no luck"));
        assert_eq!(run_and_wait(16, || ()).1, first);
    }

    #[test]
    fn concurrent_loads_have_separate_threads() {
        let (open, gate) = channel::<()>();
        let (sender, finished) = channel();
        run(
            17,
            move || gate.recv(),
            move |result| sender.send(result.is_ok()).expect("the test waits"),
        )
        .expect("a thread can be started");
        assert!(run_and_wait(17, || ()).0.is_ok());
        open.send(()).expect("the first load waits");
        assert_eq!(finished.recv(), Ok(true));
    }
}
