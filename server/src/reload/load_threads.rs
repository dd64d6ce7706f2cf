//! The threads on which models are loaded. They never exit: an idle one takes the next load.
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

/// Work that calls its argument once its thread can take the next job.
type Job = Box<dyn FnOnce(&dyn Fn()) + Send>;

/// The idle threads, by niceness: a thread cannot lower its own.
static IDLE: Mutex<BTreeMap<i32, Vec<Sender<Job>>>> = Mutex::new(BTreeMap::new());

/// Runs `work` on a thread that gives way to those of a niceness lower than `nice` and never exits. Then passes its result
/// to `deliver`, which must not block or panic: the value, or the panic that ended `work`.
pub(super) fn run<T>(
    nice: i32,
    work: impl FnOnce() -> T + Send + 'static,
    deliver: impl FnOnce(thread::Result<T>) + Send + 'static,
) -> io::Result<()> {
    let job: Job = Box::new(move |become_idle: &dyn Fn()| {
        let result = catch_unwind(AssertUnwindSafe(work));
        // Before whoever waits for the result starts the next load.
        become_idle();
        deliver(result);
    });
    let idle = with_idle(nice, Vec::pop);
    let thread = idle.map_or_else(|| start(nice), Ok)?;
    thread
        .send(job)
        .map_err(|_| io::Error::other("a thread for loads has ended"))
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
        // Endless, because the thread has a sender itself.
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

    /// Runs `work`, and returns its result and the folder in which the system shows its thread.
    fn run_and_wait<T: Send + 'static>(
        nice: i32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (thread::Result<T>, PathBuf) {
        let (sender, receiver) = channel();
        let deliver = move |result| {
            let thread = rustix::thread::gettid().as_raw_nonzero();
            let folder = PathBuf::from(format!("/proc/self/task/{thread}"));
            sender.send((result, folder)).expect("the test waits");
        };
        run(nice, work, deliver).expect("a thread can be started");
        receiver.recv().expect("the result is delivered")
    }

    #[test]
    fn a_thread_that_loaded_a_model_lives_on_and_loads_the_next_one_of_its_niceness() {
        let (_, first) = run_and_wait(14, || ());
        let (_, next) = run_and_wait(14, || ());
        let (_, nicer) = run_and_wait(15, || ());
        assert_eq!(first, next);
        assert_ne!(first, nicer);
        assert!(first.exists() && nicer.exists());
    }

    #[test]
    fn a_panic_is_delivered_and_the_thread_lives_on() {
        let (result, first) = run_and_wait(16, || -> u8 { panic!("no luck") });
        let panic = result.expect_err("it panics");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"no luck"));
        assert_eq!(run_and_wait(16, || ()).1, first);
    }

    #[test]
    fn loads_at_the_same_time_have_a_thread_each() {
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
