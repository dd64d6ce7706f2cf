//! Divides the limit on open files between connections and everything else.
//!
//! Connections must not prevent a worker process from starting or a reload from reading files. They get the files that nothing
//! else needs; further connections wait in the backlog of the socket.

use std::num::NonZeroUsize;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for everything that does not depend on the configuration: the runtime, the log, libraries, and a reload of a few
/// models.
const RESERVED: u64 = 64;
/// The part of [`RESERVED`] that does not depend on the number of models.
const FIXED: u64 = 32;
/// Files for loading one model. All models can load concurrently.
const PER_LOAD: u64 = 8;

/// Open files needed for purposes other than connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Number of configured models.
    pub models: u64,
    /// Files for starting all worker processes.
    pub processes: u64,
    /// Further files for a reload that replaces all worker processes at once.
    pub reload: u64,
}

/// The limit is too low for the server to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit on open files is {limit}, but this configuration needs at least {needed}: raise it with `ulimit -n`, or \
     LimitNOFILE of systemd"
)]
pub struct TooFewFiles {
    limit: u64,
    needed: u64,
}

/// Raises the soft limit to the hard limit and returns it. `None` if there is no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    }
}

/// How many of `wanted` connections per port fit below the limit. Connections get at least half of the files that are not needed
/// to start, even if a reload of all processes at once would need more.
///
/// # Errors
/// Not even one connection per port fits.
pub fn connections_within(
    limit: Option<u64>,
    wanted: NonZeroUsize,
    ports: u64,
    demand: Demand,
) -> Result<NonZeroUsize, TooFewFiles> {
    let Some(limit) = limit else {
        return Ok(wanted);
    };
    let needed = RESERVED.max(FIXED + PER_LOAD * demand.models) + demand.processes;
    let free = limit.saturating_sub(needed);
    let room = free.saturating_sub(demand.reload).max(free / 2);
    let room = room.max(ports.min(free)) / ports;
    let fitting = NonZeroUsize::new(usize::try_from(room).unwrap_or(usize::MAX));
    let fitting = fitting.ok_or(TooFewFiles {
        limit,
        needed: needed + ports,
    })?;
    Ok(wanted.min(fitting))
}

/// Warns if fewer connections fit than configured.
pub fn warn_if_fewer(limit: Option<u64>, wanted: NonZeroUsize, fitting: NonZeroUsize) {
    if fitting < wanted {
        log::warn!(
            "accepting {fitting} connections per port instead of {wanted} (`max_connections`), since the limit on open files \
             is {}: raise it with `ulimit -n` or LimitNOFILE of systemd, or lower `max_connections`",
            limit.unwrap_or_default()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitting(wanted: usize, ports: u64, limit: Option<u64>, demand: Demand) -> Result<usize, TooFewFiles> {
        let wanted = NonZeroUsize::new(wanted).expect("a positive number");
        connections_within(limit, wanted, ports, demand).map(NonZeroUsize::get)
    }

    #[test]
    fn connections_leave_files_for_other_purposes() {
        for (wanted, ports, limit, expected) in [
            (8192, 1, None, 8192),
            (8192, 1, Some(1024), 960),
            (8192, 2, Some(1024), 480),
            (100, 2, Some(1024), 100),
            (8192, 1, Some(65), 1),
            (8192, 1, Some(u64::MAX), 8192),
        ] {
            let demand = Demand {
                models: 4,
                ..Demand::default()
            };
            assert_eq!(
                fitting(wanted, ports, limit, demand),
                Ok(expected),
                "{wanted} of {limit:?}"
            );
        }
    }

    #[test]
    fn connections_leave_files_for_processes_and_for_a_reload_of_them() {
        let demand = |processes, reload| Demand {
            models: 1,
            processes,
            reload,
        };
        assert_eq!(fitting(8192, 1, Some(1024), demand(160, 100)), Ok(700));
        // Connections take precedence over a reload of all processes at once.
        assert_eq!(fitting(8192, 1, Some(1024), demand(160, 700)), Ok(400));
        let many = Demand {
            models: 100,
            ..Demand::default()
        };
        assert_eq!(fitting(8192, 1, Some(1024), many), Ok(192));
    }

    #[test]
    fn a_limit_that_is_too_low_for_one_connection_is_an_error_with_the_required_limit() {
        for (limit, ports, processes) in [(16, 1, 0), (64, 1, 0), (65, 2, 0), (100, 1, 36)] {
            let demand = Demand {
                models: 1,
                processes,
                reload: 0,
            };
            let error = fitting(8192, ports, Some(limit), demand).expect_err("too few");
            let needed = 64 + processes + ports;
            assert_eq!(error, TooFewFiles { limit, needed });
            assert!(
                error.to_string().contains(&format!("at least {needed}")),
                "{error}"
            );
        }
    }
}
