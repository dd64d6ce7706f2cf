//! The allocator of the executable: mimalloc.
//!
//! A request and its spans are usually freed by another thread than the one that allocated them. The allocator of the C library
//! takes a lock for that, and mimalloc does not. Plugins keep their own allocator, usually that of the C library.

use std::ffi::c_long;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
pub use mimalloc::MiMalloc as Allocator;

/// Number of mimalloc's option `purge_delay`, which the crate does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Milliseconds after which freed memory returns to the system. With the default of 1000, the memory of a busy server is up to the
/// peak of the last second.
const PURGE_DELAY_MS: c_long = 10;

/// Environment variable of worker processes: address space that mimalloc reserves must not count towards `max_memory`.
pub(crate) const WORKER_ENV: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// Sets the options of the allocator. The executable calls this first.
pub fn configure() {
    // SAFETY: the function has no preconditions, and no other thread runs yet.
    unsafe { mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}

/// Returns free memory to the system, that of plugins included, so that the next batch starts like the first one.
pub(crate) fn trim() {
    // SAFETY: the function has no preconditions, and can run at the same time as allocations of other threads.
    unsafe { mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    fn the_number_of_the_option_is_right() {
        // SAFETY: the function has no preconditions.
        let default = unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(default, 1000, "no other option of mimalloc has this default");
    }
}
