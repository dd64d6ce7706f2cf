//! The heap of a child process.

/// Returns free memory of the heap to the operating system, so that the next batch starts like the first one. The C library
/// otherwise keeps a part of it, which depends on the batches before.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function has no preconditions, and can run at the same time as allocations of other threads.
    let _ = unsafe { libc::malloc_trim(0) };
}
