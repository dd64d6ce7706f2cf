//! Random items and their possible outcomes.

use std::fmt;

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::targets::Target;

/// Outcome of an item as seen by its client, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Success,
    Invalid,
    Expired,
    Unavailable,
    Fault,
}

use Outcome::{Expired, Fault, Invalid, Success, Unavailable};

impl Outcome {
    /// Returns the outcome for the code of an error.
    pub(super) fn of(code: &str) -> Self {
        match code {
            "invalid_input" => Invalid,
            "model_fault" => Fault,
            "deadline_exceeded" => Expired,
            "unavailable" => Unavailable,
            other => panic!("an item failed with {other}"),
        }
    }

    /// Returns the status of a request whose items all have this outcome.
    pub(super) fn status(self) -> u16 {
        match self {
            Success => 200,
            Invalid => 422,
            Fault => 500,
            Unavailable => 503,
            Expired => 504,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Success => "succeeded",
            Invalid => "were invalid",
            Fault => "failed in the model",
            Expired => "expired",
            Unavailable => "were queued when the model entered a crash loop",
        })
    }
}

/// An action with its relative frequency and its possible outcomes. Any item can expire, and an item that reaches the model can
/// fail with its batch because of another item.
struct Action {
    name: &'static str,
    chances: u32,
    prepared_only: bool,
    /// Whether the action terminates its process.
    fatal: bool,
    outcomes: &'static [Outcome],
}

const fn action(name: &'static str, chances: u32, outcomes: &'static [Outcome]) -> Action {
    Action {
        name,
        chances,
        prepared_only: false,
        fatal: false,
        outcomes,
    }
}

const fn prepared(name: &'static str, chances: u32, outcomes: &'static [Outcome]) -> Action {
    Action {
        prepared_only: true,
        ..action(name, chances, outcomes)
    }
}

const fn fatal(name: &'static str, chances: u32) -> Action {
    Action {
        fatal: true,
        ..action(name, chances, &[Fault, Expired])
    }
}

/// Not an action: an item with an unknown field.
const UNKNOWN_FIELD: &str = "nonsense";

const ACTIONS: [Action; 23] = [
    action("echo", 860, &[Success, Fault, Expired]),
    action("sleep", 40, &[Success, Fault, Expired]),
    action("log", 5, &[Success, Fault, Expired]),
    action("fail_item", 25, &[Invalid, Fault, Expired]),
    action("fault_item", 15, &[Fault, Expired]),
    action(UNKNOWN_FIELD, 10, &[Invalid, Fault, Expired]),
    action("fail_batch", 5, &[Fault, Expired]),
    action("panic", 6, &[Fault, Expired]),
    action("panic_twice", 4, &[Fault, Expired]),
    action("too_few", 4, &[Fault, Expired]),
    action("too_many", 4, &[Fault, Expired]),
    // Succeeds in a batch of one item, and so do the other items without it.
    action("out_of_memory", 2, &[Success, Fault, Expired]),
    action("busy", 5, &[Success, Fault, Expired]),
    prepared("fail_in_prepare", 10, &[Invalid, Expired]),
    prepared("panic_in_prepare", 5, &[Fault, Expired]),
    prepared("panic_in_prepared_drop", 5, &[Success, Fault, Expired]),
    fatal("abort", 3),
    fatal("segfault", 3),
    fatal("exit", 2),
    fatal("stack_overflow", 2),
    fatal("kill", 2),
    fatal("hang", 1),
    Action {
        prepared_only: true,
        ..fatal("abort_in_prepare", 3)
    },
];

/// An item to send.
pub(super) struct Item {
    pub(super) value: u64,
    pub(super) json: Json,
    target: Target,
    outcomes: &'static [Outcome],
}

impl Item {
    /// Returns a random item with this value for a task of a target.
    pub(super) fn choose(rng: &mut Rng, target: Target, task: &str, value: u64) -> Self {
        let possible = || {
            ACTIONS
                .iter()
                .filter(|action| !action.prepared_only || task == "prepared")
                .filter(|action| !action.fatal || target == Target::Processes)
        };
        let chances: u32 = possible().map(|action| action.chances).sum();
        let mut ticket = rng.u32(..chances);
        let action = possible()
            .find(|action| match ticket.checked_sub(action.chances) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            })
            .expect("the chances add up");
        let mut json = match action.name {
            UNKNOWN_FIELD => json!({"vlaue": value}),
            name => json!({"do": name, "value": value, "ms": rng.u64(1..4), "message": name}),
        };
        if task == "prepared" {
            json["weight"] = rng.u64(1..20).into();
            json["group"] = rng.u64(..3).into();
        }
        Self {
            value,
            json,
            target,
            outcomes: action.outcomes,
        }
    }

    /// Panics if the item cannot have this outcome.
    pub(super) fn check(&self, outcome: Outcome, answer: &Json) {
        // Losing a process twice fails its whole batch, and a crash loop fails the whole queue.
        let by_a_process = self.target == Target::Processes && [Fault, Unavailable].contains(&outcome);
        let possible = self.outcomes.contains(&outcome) || by_a_process;
        assert!(
            possible,
            "unexpected outcome {} of {}: {answer}",
            outcome, self.json
        );
    }
}
