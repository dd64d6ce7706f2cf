//! CPU scheduling priority: threads that run models yield the cores to threads that serve clients.

use rustix::process::{getpriority_process, setpriority_process};

/// Raises the niceness of the calling thread to `nice`. Threads and processes that it starts later inherit it, and so do a
/// plugin's own threads. If the thread's niceness is already higher, for example because the server was started with
/// `nice`, it does not change.
pub fn raise_to(nice: i32) {
    // On Linux, these system calls affect only the calling thread.
    if getpriority_process(None).is_ok_and(|own| own >= nice) {
        return;
    }
    if let Err(error) = setpriority_process(None, nice) {
        log::warn!("cannot raise the niceness of a thread that runs models to {nice}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_raised_niceness_is_inherited_and_never_lowered() {
        let niceness_of_this_thread = || getpriority_process(None).expect("a thread has a niceness");
        let before = niceness_of_this_thread();
        let started = thread::spawn(move || {
            raise_to(12);
            raise_to(7);
            (
                niceness_of_this_thread(),
                thread::spawn(niceness_of_this_thread).join(),
            )
        });
        let (own, inherited) = started.join().expect("the thread does not panic");
        assert_eq!(
            (own, inherited.expect("the thread does not panic")),
            (before.max(12), before.max(12))
        );
    }
}
