//! What clients asked and were told, to be compared with what the server has counted.

use std::collections::BTreeMap;
use std::fmt;

use super::deed::Fate;
use crate::harness::Metrics;

/// The tasks whose items are counted here.
pub(super) const TASKS: [&str; 3] = ["text", "image", "prepared"];

/// What some clients asked of the model `m`, and of the one that nothing happens to.
#[derive(Default)]
pub(super) struct Ledger {
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
    /// Items of the bystander.
    pub(super) bystander: u64,
}

impl Ledger {
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
        self.bystander += other.bystander;
    }

    /// Panics unless the server has settled every item once, in the way that its client was told.
    pub(super) fn check(&self, metrics: &Metrics) {
        let of_task = |metric: &str, label: &'static str, value: &str| -> u64 {
            TASKS
                .iter()
                .map(|task| metrics.count(metric, &[("model", "m"), ("task", task), (label, value)]))
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
        ] {
            check(outcome, items(outcome), told(fate), self.left_items);
        }
        let settled = TASKS
            .iter()
            .map(|task| metrics.count("inference_items_total", &[("model", "m"), ("task", task)]))
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
        let bystander = |outcome: &[(&str, &str)]| {
            let labels = [&[("model", "bystander"), ("task", "text")], outcome].concat();
            metrics.count("inference_items_total", &labels)
        };
        assert_eq!(bystander(&[]), self.bystander, "{self}");
        assert_eq!(bystander(&[("outcome", "success")]), self.bystander, "{self}");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answered: u64 = self.statuses.values().sum();
        write!(
            f,
            "{answered} requests answered, by status {:?}; items:",
            self.statuses
        )?;
        for (fate, items) in &self.fates {
            write!(f, " {items} {fate},")?;
        }
        write!(
            f,
            " {} requests left before their answer, with {} items; {} answers of the bystander",
            self.left, self.left_items, self.bystander
        )
    }
}
