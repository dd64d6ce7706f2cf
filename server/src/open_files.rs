//! How many files the process may have open, of which every connection is one.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are kept for everything but connections: libraries, models, pipes to child processes.
const RESERVED: u64 = 64;

/// Raises the limit as far as the system lets this process, and says how many of `wanted` connections to each of so many
/// `ports` fit below it. More would be accepted and fail later, together with reloads; fewer wait in the backlog of the
/// socket.
pub fn connections_within_limit(wanted: NonZeroUsize, ports: u64) -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    let fitting = fitting(wanted, ports, current);
    if fitting < wanted {
        log::warn!(
            "`max_connections` is {wanted}, but this process may have {} files open: it takes {fitting} connections to a port; \
             raise the limit (`ulimit -n`, LimitNOFILE of systemd) or lower `max_connections`",
            current.unwrap_or_default()
        );
    }
    fitting
}

fn fitting(wanted: NonZeroUsize, ports: u64, open_files: Option<u64>) -> NonZeroUsize {
    let Some(open_files) = open_files else {
        return wanted;
    };
    let room = usize::try_from(open_files.saturating_sub(RESERVED) / ports).unwrap_or(usize::MAX);
    wanted.min(NonZeroUsize::new(room).unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_other_files() {
        for (wanted, ports, open_files, expected) in [
            (8192, 1, None, 8192),
            (8192, 1, Some(1024), 960),
            (8192, 2, Some(1024), 480),
            (100, 2, Some(1024), 100),
            (8192, 1, Some(64), 1),
            (8192, 1, Some(u64::MAX), 8192),
        ] {
            let wanted = NonZeroUsize::new(wanted).expect("a positive number");
            assert_eq!(
                fitting(wanted, ports, open_files).get(),
                expected,
                "{wanted} of {open_files:?}"
            );
        }
    }
}
