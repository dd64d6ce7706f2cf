//! Holds the policy `adaptive` to its bar, in virtual time and against every policy that needs a knob.
//!
//! The runs are short, so that every build can afford them: a cell may miss the bar by as much as the chance of a short
//! run makes. `cargo bench -p inference-server --bench simulation` measures the same cells for longer, holds them to the
//! bar itself, and draws them.

#![allow(
    dead_code,
    reason = "the command that draws the cells uses more of what is shared"
)]

#[path = "../benches/simulation/cells.rs"]
mod cells;
#[path = "../benches/simulation/jobs.rs"]
mod jobs;
#[path = "../benches/simulation/verdict.rs"]
mod verdict;
#[path = "../benches/simulation/world.rs"]
mod world;

use inference_server::{batcher, batching, clock};

use verdict::{BAR, Bar, Breach, breaches};

const ITEMS: usize = 3000;

/// The bar, and the margin for chance with this many items.
const SHORT_RUN: Bar = Bar {
    mean: BAR.mean * 1.05,
    p99: BAR.p99 * 1.25,
    throughput: BAR.throughput * 0.99,
};

/// Whether most of a batch's cost is overhead, the callers are 4 to 32, and they come back much sooner than a batch
/// takes, by no more than half their time earlier or later. There, merging them gives 1.3 × greedy's throughput.
///
/// Where they think as long as a batch takes, greedy's two groups keep the worker busy, and nothing can be gained; where
/// their thinking is exponential, the last of 32 takes four times the mean, and a third is out of reach.
fn is_mergeable(world: &world::World) -> bool {
    match world.callers {
        world::Callers::Closed {
            callers,
            think: world::Think::Even { mean, .. },
            ..
        } => world.service.name == "overhead" && mean <= 1.0 && (4..=32).contains(&callers),
        world::Callers::Closed { .. } | world::Callers::Open { .. } => false,
    }
}

/// One line for each.
fn list(breaches: &[Breach]) -> String {
    breaches.iter().map(|breach| format!("{breach}\n")).collect()
}

/// Every cell of one service is within the bar, and merges its callers where that can be done.
fn hold(service: &str) {
    let mut cells = cells::all(ITEMS);
    cells.retain(|cell| cell.world.service.name == service);
    assert!(!cells.is_empty(), "no cell has the service {service}");
    let verdicts = verdict::measure(&cells);
    let breaches = breaches(&cells, &verdicts, SHORT_RUN);
    assert!(breaches.is_empty(), "out of the bar:\n{}", list(&breaches));

    for (cell, verdict) in cells.iter().zip(&verdicts) {
        if is_mergeable(&cell.world) {
            let throughput = verdict.throughput();
            assert!(throughput >= 1.3, "{}: throughput × {throughput:.3}", cell.name);
        }
    }
}

/// The cells with several workers or items in which more is allowed, and why.
const ALLOWED: [(&str, Bar); 3] = [
    // The first rounds, in which the think time is learned, are more than one in a hundred of so few batches. The bar is met
    // over 3000 items.
    (
        "overhead, closed, think 0.3 ms, 16 callers of 4, 2 workers",
        Bar {
            p99: 1.75,
            ..SHORT_RUN
        },
    ),
    // Likewise; the bar is met over 20,000 items.
    (
        "overhead, closed, think 1 ms exponential, 4 callers of 8, 1 workers",
        Bar {
            mean: 1.2,
            ..SHORT_RUN
        },
    ),
    // Misses the bar also in long runs: see `verdict::known_miss`.
    (
        "overhead, open, poisson, 95 %, 4 workers",
        Bar {
            mean: 1.15,
            ..SHORT_RUN
        },
    ),
];

/// Several workers, requests of several items, and more clients than a batch holds.
#[test]
fn adaptive_is_about_as_good_as_the_best_knob_with_several_workers_and_items() {
    let cells = cells::several(2000);
    let verdicts = verdict::measure(&cells);
    let worse: Vec<String> = cells
        .iter()
        .zip(&verdicts)
        .filter(|(cell, verdict)| {
            let allowed = ALLOWED.iter().find(|(name, _)| *name == cell.name);
            verdict.miss(allowed.map_or(SHORT_RUN, |(_, bar)| *bar)) > 1.0
        })
        .map(|(cell, verdict)| Breach { cell, verdict }.to_string())
        .collect();
    assert!(worse.is_empty(), "out of the bar:\n{}", worse.join("\n"));
}

#[test]
fn adaptive_is_about_as_good_as_the_best_knob_where_batches_cost_mostly_overhead() {
    hold("overhead");
}

#[test]
fn adaptive_is_about_as_good_as_the_best_knob_where_items_cost_the_same_in_any_batch() {
    hold("linear");
}

#[test]
fn adaptive_is_about_as_good_as_the_best_knob_where_large_batches_are_inefficient() {
    hold("convex");
}

/// What no cell was tuned on: noise, other costs and callers, several workers, requests of several items.
#[test]
fn adaptive_never_gets_much_less_done_than_greedy_in_worlds_that_it_was_not_tuned_on() {
    // These runs are so short that the few batches of the beginning, when nothing is known, make a difference.
    const LEAST: f64 = 0.85;
    let cells = cells::held_out(600);
    let verdicts = verdict::measure(&cells);
    let worse: Vec<String> = cells
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| verdict.throughput() < LEAST)
        .map(|(cell, verdict)| format!("{}: throughput × {:.3}", cell.name, verdict.throughput()))
        .collect();
    assert!(worse.is_empty(), "{}", worse.join("\n"));
}

/// What the default of `background_slack` promises, for requests that come whatever the server does.
#[test]
fn jobs_use_the_free_capacity_and_make_requests_wait_for_about_one_batch() {
    let mut failed = Vec::new();
    for cell in jobs::open(2000) {
        let world::Callers::Open { load, .. } = cell.world.callers else {
            continue;
        };
        if load > 0.5 {
            continue;
        }
        for row in jobs::Comparison::of(&cell, &[jobs::DEFAULT_SLACK], true) {
            let (p99, share) = (row.p99_of_promise(), row.share_of_free());
            if p99 > 1.0 || (load == 0.5 && share < 0.8) {
                failed.push(format!(
                    "{}: p99 {p99:.2} of the promise, {share:.2} of the free capacity",
                    cell.name
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn jobs_alone_run_in_full_batches() {
    let mut cells = jobs::open(20_000);
    cells.retain(|cell| cell.name.contains("poisson, 50 %"));
    assert!(cells.len() >= 3);
    for cell in cells {
        let world = &cell.world;
        let full = world.max_batch_size as f64 / world.service.millis(world.max_batch_size);
        let share = jobs::alone(world) / (full * world.workers as f64);
        // The first batches are shorter, since the time of larger ones is not known yet.
        assert!(share >= 0.96, "{}: {share:.3}", cell.name);
    }
}
