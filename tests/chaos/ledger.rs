//! What clients asked and were told, to be compared with what the server has counted.

use std::collections::BTreeMap;
use std::fmt;

use super::deed::Fate;
use super::target::Target;
use crate::harness::Metrics;

/// The tasks whose items are counted here.
pub(super) const TASKS: [&str; 3] = ["text", "image", "prepared"];

/// What some clients asked of one target.
pub(super) struct Ledger {
    pub(super) target: Target,
    /// Answered requests by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Items of requests that were admitted, by what became of them.
    pub(super) fates: BTreeMap<Fate, u64>,
    /// Requests that were refused since their deadline had passed.
    pub(super) late: u64,
    /// Requests that were refused since the queue was full.
    pub(super) refused: u64,
    /// Requests and items of clients that did not wait, so that nobody knows what became of them.
    pub(super) left: u64,
    pub(super) left_items: u64,
}

impl Ledger {
    /// Nothing yet.
    pub(super) fn of(target: Target) -> Self {
        Self {
            target,
            statuses: BTreeMap::new(),
            fates: BTreeMap::new(),
            late: 0,
            refused: 0,
            left: 0,
            left_items: 0,
        }
    }

    /// Adds another one of the same target.
    pub(super) fn add(&mut self, other: Self) {
        for (status, requests) in other.statuses {
            *self.statuses.entry(status).or_default() += requests;
        }
        for (fate, items) in other.fates {
            *self.fates.entry(fate).or_default() += items;
        }
        self.late += other.late;
        self.refused += other.refused;
        self.left += other.left;
        self.left_items += other.left_items;
    }

    /// Panics unless the server has settled every item once, in the way that its client was told.
    pub(super) fn check(&self, metrics: &Metrics) {
        let model = self.target.model();
        let of_task = |metric: &str, label: &'static str, value: &str| -> u64 {
            TASKS
                .iter()
                .map(|task| metrics.count(metric, &[("model", model), ("task", task), (label, value)]))
                .sum()
        };
        let items = |outcome: &str| of_task("inference_items_total", "outcome", outcome);
        let told = |fate| self.fates.get(&fate).copied().unwrap_or_default();

        for never in ["lost", "shutting_down", "unsupported"] {
            assert_eq!(items(never), 0, "{never}\n{self}");
        }
        // Of those who left, nobody knows more than that they asked for so much.
        let check = |what: &str, counted: u64, told: u64, left: u64| {
            let possible = told..=told + left;
            assert!(
                possible.contains(&counted),
                "{counted} {what}, expected {possible:?}\n{self}"
            );
        };
        for (outcome, fate) in [
            ("success", Fate::Success),
            ("invalid", Fate::Invalid),
            ("fault", Fate::Fault),
            ("expired", Fate::Expired),
            ("unavailable", Fate::Unavailable),
        ] {
            check(outcome, items(outcome), told(fate), self.left_items);
        }
        let settled = TASKS
            .iter()
            .map(|task| metrics.count("inference_items_total", &[("model", model), ("task", task)]))
            .sum();
        check("items", settled, self.fates.values().sum(), self.left_items);
        let refused = |reason: &str| of_task("inference_rejections_total", "reason", reason);
        check(
            "requests for a full queue",
            refused("queue_full"),
            self.refused,
            self.left,
        );
        check("requests too late", refused("expired"), self.late, self.left);
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
        for (fate, items) in &self.fates {
            write!(f, " {items} {fate},")?;
        }
        write!(
            f,
            " {} requests left before their answer, with {} items",
            self.left, self.left_items
        )
    }
}
