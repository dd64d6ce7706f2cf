//! How `adaptive` does in a cell beside the policies that need a knob.

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
    /// for this cell. None if clients are not in a closed loop, where such a rule has no meaning.
    ///
    /// The best mean and the best percentile may be those of different baselines, and no rule has both: then this is
    /// above 1, and it is as much as can be asked.
    pub(crate) fn least_miss(&self, world: &World, bar: Bar) -> Option<f64> {
        let Callers::Closed { callers, items, .. } = world.callers else {
            return None;
        };
        let sizes = 1..=(callers * items).min(world.max_batch_size);
        let rules = sizes.flat_map(|size| {
            PATIENCES.map(|micros| Rule::Gather {
                size,
                patience: Duration::from_micros(micros),
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

/// The cells that miss the bar, though it can be met there, each with its figures.
pub(crate) fn breaches(cells: &[Cell], verdicts: &[Verdict], bar: Bar) -> Vec<String> {
    /// Of what no rule can do better, so much is granted.
    const AS_GOOD: f64 = 1.05;
    let breach = |(cell, verdict): (&Cell, &Verdict)| {
        let miss = verdict.miss(bar);
        if miss <= 1.0 {
            return None;
        }
        let least = verdict.least_miss(&cell.world, bar).unwrap_or(1.0).max(1.0);
        (least == 1.0 || miss > least * AS_GOOD).then(|| {
            format!(
                "{}: mean × {:.3}, p99 × {:.3}, throughput × {:.3}",
                cell.name,
                verdict.mean(),
                verdict.p99(),
                verdict.throughput()
            )
        })
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
