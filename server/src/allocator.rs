//! The allocator of the executable: mimalloc.
//!
//! A request and its spans are usually freed by another thread than the one that allocated them. The allocator of the C library
//! takes a lock for that, and mimalloc does not. Plugins keep their own allocator, usually that of the C library.

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};
pub use mimalloc::MiMalloc as Allocator;

/// The option `arena_eager_commit`, by the number that mimalloc gives it. Address space that is reserved at once would become huge
/// pages, of which a small server uses a part, and would count towards `max_memory` of a worker process.
const ARENA_EAGER_COMMIT: mi_option_t = 4;

/// The option `purge_delay`: milliseconds after which freed memory returns to the system. With the default of a second, the memory
/// of a busy server is the peak of the last second. With 10, memory returns between two requests that need it, and each of them
/// causes page faults.
const PURGE_DELAY: mi_option_t = 15;

/// Sets the options of the allocator. They apply to what it reserves with its first allocation, so the executable calls this before.
pub extern "C" fn configure() {
    for (option, value) in [(ARENA_EAGER_COMMIT, 0), (PURGE_DELAY, 100)] {
        // SAFETY: the function only changes the table of options, and no other thread runs yet.
        unsafe { mi_option_set(option, value) };
    }
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
    fn the_options_have_these_numbers() {
        // Only these have these defaults.
        for (option, default) in [(ARENA_EAGER_COMMIT, 2), (PURGE_DELAY, 1000)] {
            // SAFETY: the function has no preconditions.
            assert_eq!(unsafe { mi_option_get(option) }, default);
        }
    }
}
