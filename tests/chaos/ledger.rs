//! Counts of requests and items as seen by clients, for comparison with the metrics of the server.

use std::collections::BTreeMap;
use std::fmt;

use super::items::Outcome;
use super::targets::Target;
use crate::harness::Metrics;

/// The tasks whose items are counted.
pub(super) const TASKS: [&str; 3] = ["text", "image", "prepared"];

/// Counts of one target.
pub(super) struct Ledger {
    pub(super) target: Target,
    /// Requests with a reply, by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Items of admitted requests, by outcome.
    pub(super) outcomes: BTreeMap<Outcome, u64>,
    /// Requests that were rejected because their deadline had passed.
    pub(super) expired: u64,
    /// Requests that were rejected because the queue was full or their deadline could not be met.
    pub(super) rejected: u64,
    /// Requests and items of clients that did not wait, so that their outcomes are unknown.
    pub(super) disconnected: u64,
    pub(super) disconnected_items: u64,
}

impl Ledger {
    /// Creates an empty ledger.
    pub(super) fn of(target: Target) -> Self {
        Self {
            target,
            statuses: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            expired: 0,
            rejected: 0,
            disconnected: 0,
            disconnected_items: 0,
        }
    }

    /// Adds another ledger of the same target.
    pub(super) fn add(&mut self, other: Self) {
        for (status, requests) in other.statuses {
            *self.statuses.entry(status).or_default() += requests;
        }
        for (outcome, items) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += items;
        }
        self.expired += other.expired;
        self.rejected += other.rejected;
        self.disconnected += other.disconnected;
        self.disconnected_items += other.disconnected_items;
    }

    /// Panics unless the server has counted every item once, with the outcome that its client has observed.
    pub(super) fn check(&self, metrics: &Metrics) {
        let model = self.target.model();
        let of_task = |metric: &str, label: &'static str, value: &str| -> u64 {
            TASKS
                .iter()
                .map(|task| metrics.count(metric, &[("model", model), ("task", task), (label, value)]))
                .sum()
        };
        let items = |outcome: &str| of_task("inference_items_total", "outcome", outcome);
        let observed = |outcome| self.outcomes.get(&outcome).copied().unwrap_or_default();

        for never in ["lost", "shutting_down", "unsupported"] {
            assert_eq!(items(never), 0, "{never}\n{self}");
        }
        // The outcomes of disconnected clients are unknown. Only their number is known.
        let check = |what: &str, counted: u64, observed: u64, disconnected: u64| {
            let possible = observed..=observed + disconnected;
            assert!(
                possible.contains(&counted),
                "{counted} {what}, expected {possible:?}\n{self}"
            );
        };
        for (name, outcome) in [
            ("success", Outcome::Success),
            ("invalid", Outcome::Invalid),
            ("fault", Outcome::Fault),
            ("expired", Outcome::Expired),
            ("unavailable", Outcome::Unavailable),
        ] {
            check(name, items(name), observed(outcome), self.disconnected_items);
        }
        let settled = TASKS
            .iter()
            .map(|task| metrics.count("inference_items_total", &[("model", model), ("task", task)]))
            .sum();
        check(
            "items",
            settled,
            self.outcomes.values().sum(),
            self.disconnected_items,
        );
        let rejections = |reason: &str| of_task("inference_rejections_total", "reason", reason);
        check(
            "rejected requests",
            rejections("queue_full") + rejections("overloaded"),
            self.rejected,
            self.disconnected,
        );
        check(
            "expired requests",
            rejections("expired"),
            self.expired,
            self.disconnected,
        );
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered: u64 = self.statuses.values().sum();
        write!(
            f,
            "`{}`: {answered} requests answered, by status {:?}; items:",
            self.target.model(),
            self.statuses
        )?;
        for (outcome, items) in &self.outcomes {
            write!(f, " {items} {outcome},")?;
        }
        write!(
            f,
            " {} requests of disconnected clients, with {} items",
            self.disconnected, self.disconnected_items
        )
    }
}
