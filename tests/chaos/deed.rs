//! What an item may order, and what may come back for it.

use std::fmt;

use fastrand::Rng;
use serde_json::{Value as Json, json};

use super::target::Target;

/// What may become of an item, as its client sees it; the worse, the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Success,
    Invalid,
    Expired,
    Unavailable,
    Fault,
}

use Fate::{Expired, Fault, Invalid, Success, Unavailable};

impl Fate {
    /// From the code of an error.
    pub(super) fn of(code: &str) -> Self {
        match code {
            "invalid_input" => Invalid,
            "model_fault" => Fault,
            "deadline_exceeded" => Expired,
            "unavailable" => Unavailable,
            other => panic!("an item failed with {other}"),
        }
    }

    /// The status of a request of which no item fared better, and none worse.
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

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Success => "succeeded",
            Invalid => "were invalid",
            Fault => "were failed by the model",
            Expired => "expired",
            Unavailable => "were queued when the model entered a crash loop",
        })
    }
}

/// A deed, how often it is chosen among the others, and its fates. Any item may expire; one that reaches the model may
/// share the fate of a batch in which another does harm.
struct Deed {
    order: &'static str,
    chances: u32,
    prepared_only: bool,
    /// It ends the process that does it.
    fatal: bool,
    fates: &'static [Fate],
}

const fn deed(order: &'static str, chances: u32, fates: &'static [Fate]) -> Deed {
    Deed {
        order,
        chances,
        prepared_only: false,
        fatal: false,
        fates,
    }
}

const fn prepared(order: &'static str, chances: u32, fates: &'static [Fate]) -> Deed {
    Deed {
        prepared_only: true,
        ..deed(order, chances, fates)
    }
}

const fn fatal(order: &'static str, chances: u32) -> Deed {
    Deed {
        fatal: true,
        ..deed(order, chances, &[Fault, Expired])
    }
}

/// No order that a plugin knows: the item cannot be read.
const NONSENSE: &str = "nonsense";

const DEEDS: [Deed; 23] = [
    deed("echo", 860, &[Success, Fault, Expired]),
    deed("sleep", 40, &[Success, Fault, Expired]),
    deed("log", 5, &[Success, Fault, Expired]),
    deed("fail_item", 25, &[Invalid, Fault, Expired]),
    deed("fault_item", 15, &[Fault, Expired]),
    deed(NONSENSE, 10, &[Invalid, Fault, Expired]),
    deed("fail_batch", 5, &[Fault, Expired]),
    deed("panic", 6, &[Fault, Expired]),
    deed("panic_twice", 4, &[Fault, Expired]),
    deed("too_few", 4, &[Fault, Expired]),
    deed("too_many", 4, &[Fault, Expired]),
    // It fits when it is alone, and so do the others when it is gone.
    deed("out_of_memory", 2, &[Success, Fault, Expired]),
    deed("busy", 5, &[Success, Fault, Expired]),
    prepared("fail_in_prepare", 10, &[Invalid, Expired]),
    prepared("panic_in_prepare", 5, &[Fault, Expired]),
    prepared("panic_in_prepared_drop", 5, &[Success, Fault, Expired]),
    fatal("abort", 3),
    fatal("segfault", 3),
    fatal("exit", 2),
    fatal("stack_overflow", 2),
    fatal("kill", 2),
    fatal("hang", 1),
    Deed {
        prepared_only: true,
        ..fatal("abort_in_prepare", 3)
    },
];

/// An item to send.
pub(super) struct Item {
    pub(super) value: u64,
    pub(super) json: Json,
    target: Target,
    fates: &'static [Fate],
}

impl Item {
    /// A random one with this value, for a task of a target.
    pub(super) fn choose(rng: &mut Rng, target: Target, task: &str, value: u64) -> Self {
        let possible = || {
            DEEDS
                .iter()
                .filter(|deed| !deed.prepared_only || task == "prepared")
                .filter(|deed| !deed.fatal || target == Target::Processes)
        };
        let chances: u32 = possible().map(|deed| deed.chances).sum();
        let mut ticket = rng.u32(..chances);
        let deed = possible()
            .find(|deed| match ticket.checked_sub(deed.chances) {
                Some(rest) => {
                    ticket = rest;
                    false
                }
                None => true,
            })
            .expect("the chances add up");
        let mut json = match deed.order {
            NONSENSE => json!({"vlaue": value}),
            order => json!({"do": order, "value": value, "ms": rng.u64(1..4), "message": order}),
        };
        if task == "prepared" {
            json["weight"] = rng.u64(1..20).into();
            json["group"] = rng.u64(..3).into();
        }
        Self {
            value,
            json,
            target,
            fates: deed.fates,
        }
    }

    /// Panics if this may not become of the item.
    pub(super) fn check(&self, fate: Fate, answer: &Json) {
        // A process that is lost twice fails its whole batch, and a crash loop fails the whole queue.
        let by_a_process = self.target == Target::Processes && [Fault, Unavailable].contains(&fate);
        let possible = self.fates.contains(&fate) || by_a_process;
        assert!(possible, "{} became of {}: {answer}", fate, self.json);
    }
}
