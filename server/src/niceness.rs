//! Who runs first where there are fewer cores than work: what computes models gives way to what answers clients.

use rustix::process::{getpriority_process, setpriority_process};

/// Lets every thread of a lower niceness run before the calling one, from now on. The threads and processes that it starts
/// inherit that, so that a plugin's own threads give way as well. A thread that has this niceness already, or a higher one
/// because the server was started so, keeps it.
pub fn give_way(nice: i32) {
    // On Linux these are of the calling thread alone.
    if getpriority_process(None).is_ok_and(|own| own >= nice) {
        return;
    }
    if let Err(error) = setpriority_process(None, nice) {
        log::warn!("cannot lower the scheduling priority of a thread that runs models: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_gives_way_and_so_does_what_it_starts_but_never_pushes_forward() {
        let of_this_thread = || getpriority_process(None).expect("a thread has a niceness");
        let before = of_this_thread();
        let started = thread::spawn(move || {
            give_way(12);
            give_way(7);
            (of_this_thread(), thread::spawn(of_this_thread).join())
        });
        let (own, inherited) = started.join().expect("it does not panic");
        assert_eq!(
            (own, inherited.expect("it does not panic")),
            (before.max(12), before.max(12))
        );
    }
}
