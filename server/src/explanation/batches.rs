//! Why the batches of a task are small, and why its requests are rejected or fail.

use super::history::TaskTotals;
use super::wording::{bytes, counted, number, percent, span, time};
use super::{Explanation, Limits, Window};
use crate::batching::{DispatchReason, Policy, TaskBatching};
use crate::metrics::REJECTIONS;

/// Batches are small if they have less than this share of the items that they may have.
const SMALL: f64 = 0.5;

/// A limit is reported if it closes at least this share of the batches.
const MANY: f64 = 0.25;

/// Number of batches from which on they are explained.
const MIN_BATCHES: u64 = 5;

/// Clients send one request at a time if at most this many are in flight on average.
const ONE_AT_A_TIME: f64 = 1.2;

/// Explains why the batches of `task` are small, if they are, and why its requests are rejected or its items fail, if they are.
pub fn batches(window: &Window, task: usize, limits: &Limits) -> Vec<Explanation> {
    let (Some(totals), Some(rules)) = (window.tasks.get(task), limits.tasks.get(task)) else {
        return Vec::new();
    };
    let batches = Batches {
        window,
        totals,
        rules,
        max_size: limits.max_size(task),
        memory_budget: limits.memory_budget,
    };
    let mut found = Vec::new();
    if totals.batches() >= MIN_BATCHES {
        found.extend(batches.size());
    }
    found.extend(batches.rejections());
    found.extend(batches.failures());
    found
}

/// The batches of a task in a window.
struct Batches<'a> {
    window: &'a Window,
    totals: &'a TaskTotals,
    rules: &'a TaskBatching,
    max_size: usize,
    memory_budget: Option<u64>,
}

impl Batches<'_> {
    fn size(&self) -> Vec<Explanation> {
        match self.rules.policy {
            Policy::Off => {
                let message = "batches have one item because batching is off (`policy = \"off\"`)";
                return vec![Explanation::new("batches_off", message)];
            }
            _ if self.max_size == 1 => {
                let message = "batches have one item because `max_batch_size` is 1";
                return vec![Explanation::new("batches_size_one", message)];
            }
            _ => {}
        }
        let limits = [
            self.weight(),
            self.memory(),
            self.out_of_memory(),
            self.deadline(),
        ];
        let mut found: Vec<Explanation> = limits.into_iter().flatten().collect();
        if found.is_empty() && self.mean_size() < SMALL * self.max_size as f64 {
            found.push(if self.items_in_flight() < SMALL * self.max_size as f64 {
                self.concurrency()
            } else {
                self.policy()
            });
        }
        found
    }

    fn mean_size(&self) -> f64 {
        self.totals.batched_items as f64 / self.totals.batches().max(1) as f64
    }

    /// Mean number of requests in the server while there were any, by Little's law.
    fn requests_in_flight(&self) -> f64 {
        self.totals.requests.seconds / self.window.active_seconds.max(f64::MIN_POSITIVE)
    }

    fn items_in_flight(&self) -> f64 {
        // Jobs are not among the requests.
        let of_requests = self
            .totals
            .batched_items
            .saturating_sub(self.totals.background_items);
        let per_request = of_requests as f64 / self.totals.requests.count.max(1) as f64;
        self.requests_in_flight() * per_request
    }

    /// The share of the batches that this reason closed, if they are many.
    fn many(&self, reason: DispatchReason) -> Option<String> {
        let share = self.totals.batches_for(reason) as f64 / self.totals.batches().max(1) as f64;
        (share >= MANY).then(|| percent(share))
    }

    fn of_max(&self) -> String {
        format!("{} of {} items", number(self.mean_size()), self.max_size)
    }

    fn weight(&self) -> Option<Explanation> {
        let share = self.many(DispatchReason::Weight)?;
        let limit = match self.rules.max_batch_weight {
            Some(weight) => format!("`max_batch_weight` ({weight})"),
            None => "the weight at which memory ran out before".to_owned(),
        };
        Some(Explanation::new(
            "batches_weight",
            format!(
                "batches have {}: {share} of them are closed because no further item fits into {limit}",
                self.of_max()
            ),
        ))
    }

    fn memory(&self) -> Option<Explanation> {
        let share = self.many(DispatchReason::Memory)?;
        let budget = self
            .memory_budget
            .map_or_else(String::new, |budget| format!(" ({})", bytes(budget)));
        Some(Explanation::new(
            "batches_memory",
            format!(
                "batches have {}: {share} of them are closed because no further item fits into the memory budget{budget}",
                self.of_max()
            ),
        ))
    }

    fn out_of_memory(&self) -> Option<Explanation> {
        let count = usize::try_from(self.totals.out_of_memory).unwrap_or(usize::MAX);
        (count > 0).then(|| {
            Explanation::new(
                "batches_out_of_memory",
                format!(
                    "{} ran out of memory in the last {} and ran in parts: batches are limited to a smaller weight until memory \
                     suffices again",
                    match count {
                        1 => "1 batch".to_owned(),
                        _ => format!("{count} batches"),
                    },
                    span(self.window)
                ),
            )
        })
    }

    fn deadline(&self) -> Option<Explanation> {
        let share = self.many(DispatchReason::Deadline)?;
        Some(Explanation::new(
            "batches_deadline",
            format!(
                "batches have {}: {share} of them run early because the deadline of an item would pass otherwise. Clients that can \
                 wait longer should send a longer `x-request-timeout`",
                self.of_max()
            ),
        ))
    }

    fn concurrency(&self) -> Explanation {
        let requests = self.requests_in_flight();
        let cause = if requests <= ONE_AT_A_TIME {
            "clients send one request at a time".to_owned()
        } else {
            format!(
                "only {} items are in flight on average, of {} requests",
                number(self.items_in_flight()),
                number(requests)
            )
        };
        Explanation::new(
            "batches_concurrency",
            format!(
                "batches have {} because {cause}. More concurrent requests, or more items per request, would fill them",
                self.of_max()
            ),
        )
    }

    /// The most frequent reason of the policy.
    fn policy(&self) -> Explanation {
        let policy = self.rules.policy.name();
        let reasons = [
            DispatchReason::Enough,
            DispatchReason::Idle,
            DispatchReason::Returns,
            DispatchReason::Burst,
            DispatchReason::Delay,
        ];
        let most = reasons
            .into_iter()
            .max_by_key(|reason| self.totals.batches_for(*reason));
        let why = match (most, self.rules.policy) {
            (Some(DispatchReason::Enough), _) => {
                "batches of this size are the most efficient, and idle workers share the items".to_owned()
            }
            (Some(DispatchReason::Delay), Policy::Fixed { max_delay }) => {
                format!(
                    "no further item arrives within `max_delay` ({})",
                    time(max_delay.as_secs_f64())
                )
            }
            (Some(DispatchReason::Returns | DispatchReason::Burst), _) => {
                "waiting longer for the items that are expected would not pay".to_owned()
            }
            (_, Policy::Greedy) => "it never waits for a fuller batch".to_owned(),
            _ => "a worker is free, and waiting for more items would not pay".to_owned(),
        };
        Explanation::new(
            "batches_policy",
            format!(
                "batches have {} because of the policy `{policy}`: {why}",
                self.of_max()
            ),
        )
    }

    fn rejections(&self) -> Option<Explanation> {
        let rejections = REJECTIONS.into_iter().zip(self.totals.rejections);
        let (reason, most) = rejections
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count > 0)?;
        let rejected = self.totals.rejected();
        let why = match reason {
            "queue_full" => "the queue was full (`max_queue_size`)",
            "queue_too_heavy" => "the queue was too heavy (`max_queue_weight`)",
            "overloaded" => "the deadline could not be met",
            "too_many_items" => "a request has more items than the queue can hold (`max_queue_size`)",
            "expired" => "the deadline had passed on arrival",
            _ => "the model was shutting down",
        };
        let mostly = if most == rejected { "" } else { "mostly " };
        let count = usize::try_from(rejected).unwrap_or(usize::MAX);
        let verb = if count == 1 { "was" } else { "were" };
        Some(Explanation::new(
            "rejections",
            format!(
                "{} {verb} rejected in the last {}, {mostly}because {why}",
                counted(count, "request"),
                span(self.window)
            ),
        ))
    }

    fn failures(&self) -> Option<Explanation> {
        let failed = usize::try_from(self.totals.failed_items).unwrap_or(usize::MAX);
        (failed > 0).then(|| {
            Explanation::new(
                "failures",
                format!(
                    "{} failed in the last {}; `inference_items_total` counts them by outcome, and the log has faults of the model",
                    counted(failed, "item"),
                    span(self.window)
                ),
            )
        })
    }
}
