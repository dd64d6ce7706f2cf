//! How `adaptive` does in a cell beside the policies that need a knob.

use std::time::Duration;

use crate::batching::Policy;
use crate::cells::Cell;
use crate::world::{Measured, run};

/// What it is measured against.
pub(crate) const BASELINES: [(&str, Policy); 6] = [
    ("greedy", Policy::Greedy),
    ("fixed 0.5 ms", fixed(500)),
    ("fixed 1 ms", fixed(1000)),
    ("fixed 2 ms", fixed(2000)),
    ("fixed 5 ms", fixed(5000)),
    ("fixed 10 ms", fixed(10_000)),
];

const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(10),
};

const fn fixed(micros: u64) -> Policy {
    Policy::Fixed {
        max_delay: Duration::from_micros(micros),
    }
}

/// One cell, measured.
pub(crate) struct Verdict {
    pub adaptive: Measured,
    /// In the order of [`BASELINES`].
    pub baselines: Vec<Measured>,
}

impl Verdict {
    pub(crate) fn of(cell: &Cell) -> Self {
        Verdict {
            adaptive: run(&cell.world, ADAPTIVE),
            baselines: BASELINES
                .iter()
                .map(|(_, policy)| run(&cell.world, *policy))
                .collect(),
        }
    }

    /// Mean latency as a multiple of the best baseline's.
    pub(crate) fn mean(&self) -> f64 {
        self.adaptive.mean / self.best(|measured| measured.mean)
    }

    /// 99th percentile of latency as a multiple of the best baseline's, which need not be the one with the best mean.
    pub(crate) fn p99(&self) -> f64 {
        self.adaptive.p99 / self.best(|measured| measured.p99)
    }

    /// Throughput as a multiple of greedy's.
    pub(crate) fn throughput(&self) -> f64 {
        self.adaptive.throughput / self.baselines[0].throughput
    }

    /// The baseline with the best mean.
    pub(crate) fn best_name(&self) -> &'static str {
        let best = self.best(|measured| measured.mean);
        let nth = self.baselines.iter().position(|measured| measured.mean == best);
        BASELINES[nth.unwrap_or(0)].0
    }

    fn best(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        self.baselines.iter().map(of).fold(f64::INFINITY, f64::min)
    }
}

/// Measures cells on every core; in their order.
pub(crate) fn measure(cells: &[Cell]) -> Vec<Verdict> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut verdicts: Vec<(usize, Verdict)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    let mine = (first..cells.len()).step_by(threads);
                    mine.map(|nth| (nth, Verdict::of(&cells[nth])))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a simulation does not panic"))
            .collect()
    });
    verdicts.sort_unstable_by_key(|(nth, _)| *nth);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}
