//! How `adaptive` does in a cell beside the policies that need a knob.

use std::fmt;
use std::time::Duration;

use crate::batching::Policy;
use crate::cells::Cell;
use crate::world::{Callers, Measured, Rule, World, run};

/// What it is measured against.
pub(crate) const BASELINES: [(&str, Policy); 6] = [
    ("greedy", Policy::Greedy),
    ("fixed 0.5 ms", fixed(500)),
    ("fixed 1 ms", fixed(1000)),
    ("fixed 2 ms", fixed(2000)),
    ("fixed 5 ms", fixed(5000)),
    ("fixed 10 ms", fixed(10_000)),
];

/// How far mean and 99th percentile may exceed the best baseline's, each its own, and throughput fall below greedy's.
pub(crate) const BAR: Bar = Bar {
    mean: 1.05,
    p99: 1.15,
    throughput: 0.97,
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bar {
    pub mean: f64,
    pub p99: f64,
    pub throughput: f64,
}

const ADAPTIVE: Policy = Policy::Adaptive {
    max_delay: Duration::from_millis(10),
};

const fn fixed(micros: u64) -> Policy {
    Policy::Fixed {
        max_delay: Duration::from_micros(micros),
    }
}

/// The waits, in microseconds, that are tried to see what can be had.
const PATIENCES: [u64; 11] = [200, 500, 800, 1000, 1300, 1600, 2000, 2500, 3000, 4000, 6000];

/// One cell, measured.
pub(crate) struct Verdict {
    pub adaptive: Measured,
    /// In the order of [`BASELINES`].
    pub baselines: Vec<Measured>,
}

impl Verdict {
    pub(crate) fn of(cell: &Cell) -> Self {
        Verdict {
            adaptive: run(&cell.world, Rule::Policy(ADAPTIVE)),
            baselines: BASELINES
                .iter()
                .map(|(_, policy)| run(&cell.world, Rule::Policy(*policy)))
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

    /// By how much of itself the bar is missed, in the figure where it is missed by most; below 1 it is met.
    pub(crate) fn miss(&self, bar: Bar) -> f64 {
        self.miss_of(&self.adaptive, bar)
    }

    /// By how much `bar` is missed by the best rule of the kind "wait for N items, for at most T", chosen
    /// for this cell, whose batches are limited either by the cell or to N items. None if clients are not in a closed loop, where such a rule has no meaning.
    ///
    /// The best mean and the best percentile may be those of different baselines, and no rule has both: then this is
    /// above 1, and it is as much as can be asked.
    pub(crate) fn least_miss(&self, world: &World, bar: Bar) -> Option<f64> {
        let Callers::Closed { callers, items, .. } = world.callers else {
            return None;
        };
        let sizes = 1..=(callers * items).min(world.max_batch_size);
        let limits = if world.workers > 1 { 2 } else { 1 };
        let rules = sizes.flat_map(|size| {
            let limits = [world.max_batch_size, size].into_iter().take(limits);
            limits.flat_map(move |limit| {
                PATIENCES.map(|micros| Rule::Gather {
                    size,
                    patience: Duration::from_micros(micros),
                    limit,
                })
            })
        });
        rules
            .map(|rule| self.miss_of(&run(world, rule), bar))
            .min_by(f64::total_cmp)
    }

    fn miss_of(&self, measured: &Measured, bar: Bar) -> f64 {
        let mean = measured.mean / self.best(|measured| measured.mean) / bar.mean;
        let p99 = measured.p99 / self.best(|measured| measured.p99) / bar.p99;
        let throughput = bar.throughput * self.baselines[0].throughput / measured.throughput;
        mean.max(p99).max(throughput)
    }

    fn best(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        self.baselines.iter().map(of).fold(f64::INFINITY, f64::min)
    }
}

/// The cells that miss the bar although other policies meet it, and why. They are faults of the policy.
const KNOWN_MISSES: [(&str, &str); 3] = [
    (
        "linear, closed, think 5 ms, 16 callers of 4, 2 workers",
        "the policy does not know which items belong to one request: it splits batches within requests, whose clients then \
         wait for two workers",
    ),
    (
        "overhead, open, poisson, 95 %, 4 workers",
        "the benefit of a wait does not contain the overhead that fuller batches save near saturation",
    ),
    (
        "overhead, closed, think 0.3 ms, 96 callers of 1, 2 workers",
        "all batches are full, and the phase between the workers, which the first waits set, is less even than under greedy",
    ),
];

/// Why a cell misses the bar, if it is known to.
pub(crate) fn known_miss(cell: &str) -> Option<&'static str> {
    KNOWN_MISSES
        .iter()
        .find(|(name, _)| *name == cell)
        .map(|(_, why)| *why)
}

/// A cell that misses the bar.
pub(crate) struct Breach<'a> {
    pub cell: &'a Cell,
    pub verdict: &'a Verdict,
}

impl fmt::Display for Breach<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: mean × {:.3}, p99 × {:.3}, throughput × {:.3}",
            self.cell.name,
            self.verdict.mean(),
            self.verdict.p99(),
            self.verdict.throughput()
        )
    }
}

/// The cells that miss the bar, though it can be met there.
pub(crate) fn breaches<'a>(cells: &'a [Cell], verdicts: &'a [Verdict], bar: Bar) -> Vec<Breach<'a>> {
    /// Of what no rule can do better, so much is granted.
    const AS_GOOD: f64 = 1.05;
    let breach = |(cell, verdict): (&'a Cell, &'a Verdict)| {
        let miss = verdict.miss(bar);
        if miss <= 1.0 {
            return None;
        }
        let least = verdict.least_miss(&cell.world, bar).unwrap_or(1.0).max(1.0);
        (least == 1.0 || miss > least * AS_GOOD).then_some(Breach { cell, verdict })
    };
    cells.iter().zip(verdicts).filter_map(breach).collect()
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
