//! Jobs that fill what requests leave: what they get done, and what they cost the requests.

use std::time::Duration;

use crate::batching::Policy;
use crate::cells::{self, Cell};
use crate::world::{Callers, Jobs, Measured, Rule, World, run, run_jobs_alone, run_with_jobs};

/// The default of `background_slack`.
pub(crate) const DEFAULT_SLACK: f64 = 0.5;

const ADAPTIVE: Rule = Rule::Policy(Policy::Adaptive {
    max_delay: Duration::from_millis(10),
});

/// A cell with and without jobs.
pub(crate) struct Comparison {
    pub without: Measured,
    pub with: Measured,
    /// Items of jobs per millisecond.
    pub jobs: f64,
    /// The items per millisecond that the workers can do, less those of requests.
    pub free: f64,
    /// Milliseconds of a full batch.
    pub full_batch: f64,
}

impl Comparison {
    /// Measures a cell without jobs, and with jobs that may lengthen batches by each of these shares.
    pub(crate) fn of(cell: &Cell, slacks: &[f64], share_batches: bool) -> Vec<Self> {
        let world = &cell.world;
        let without = run(world, ADAPTIVE);
        slacks
            .iter()
            .map(|slack| {
                let jobs = Jobs {
                    slack: *slack,
                    share_batches,
                    backlog: 2 * world.workers * world.max_batch_size,
                };
                let (with, jobs) = run_with_jobs(world, ADAPTIVE, jobs);
                let capacity = world.service.capacity(world.max_batch_size) * world.workers as f64;
                Self {
                    without,
                    with,
                    jobs,
                    free: capacity - without.throughput,
                    full_batch: world.service.millis(world.max_batch_size),
                }
            })
            .collect()
    }

    /// The 99th percentile with jobs, as a share of what is promised: 1.1 times that without jobs, and a full batch.
    pub(crate) fn p99_of_promise(&self) -> f64 {
        self.with.p99 / (1.1 * self.without.p99 + self.full_batch)
    }

    /// The share of the free capacity that jobs use.
    pub(crate) fn share_of_free(&self) -> f64 {
        self.jobs / self.free
    }
}

/// Items of jobs per millisecond without any requests.
pub(crate) fn alone(world: &World) -> f64 {
    let jobs = Jobs {
        slack: DEFAULT_SLACK,
        share_batches: true,
        backlog: 2 * world.workers * world.max_batch_size,
    };
    run_jobs_alone(world, ADAPTIVE, jobs)
}

/// The cells whose load is that of requests that come whatever the server does.
pub(crate) fn open(items: usize) -> Vec<Cell> {
    let mut cells: Vec<Cell> = cells::all(items)
        .into_iter()
        .chain(cells::several(items))
        .collect();
    cells.retain(|cell| matches!(cell.world.callers, Callers::Open { .. }));
    cells
}

/// The cells with closed-loop clients.
pub(crate) fn closed(items: usize) -> Vec<Cell> {
    let mut cells = cells::all(items);
    cells.retain(|cell| matches!(cell.world.callers, Callers::Closed { .. }));
    cells
}
