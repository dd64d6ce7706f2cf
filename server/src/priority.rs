//! Who runs first where there are fewer cores than work: what computes models gives way to what answers clients.

/// Lets every thread of a lower niceness run before the calling one, from now on. The threads and processes that it starts
/// inherit that, so that a plugin's own threads give way as well. Niceness 0 changes nothing.
pub fn give_way(nice: i32) {
    if nice == 0 {
        return;
    }
    // On Linux this is the priority of the calling thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        log::warn!("cannot lower the scheduling priority of a thread that runs models: {error}");
    }
}
