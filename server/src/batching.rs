//! Batching rules as values: what `config` resolves, plugins declare, and `batcher` follows.
//!
//! Holds no logic beyond names and conversions.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a free worker starts a batch that is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A batch stays open while the expected arrivals are worth the wait, according to what was learned about the
    /// task's clients and the cost of its batches.
    Adaptive {
        /// Maximum time that a batch stays open, counted from when a worker became free.
        max_delay: Duration,
    },
    /// The batch closes `max_delay` after its first item was ready to run, or as soon as it is full.
    Fixed {
        /// Maximum time that the first item of a batch waits for a fuller batch.
        max_delay: Duration,
    },
    /// Items that wait run immediately.
    Greedy,
    /// Items run immediately, one at a time.
    Off,
}

impl Policy {
    /// The name of the policy in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive { .. } => "adaptive",
            Self::Fixed { .. } => "fixed",
            Self::Greedy => "greedy",
            Self::Off => "off",
        }
    }
}

/// How the weights of the items add up to the cost of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightRule {
    /// Every item is padded to the heaviest one: `count × heaviest`. If more items wait than fit, the batch is the
    /// largest one that contains the oldest item, and among those the one with the least padding.
    Padded,
    /// Items are concatenated: the sum of the weights. The oldest items that fit run first.
    Sum,
}

/// Maximum weight of an item, about a trillion. A plugin that states a greater weight fails the item, and the sums and
/// products of weights that fit into a queue stay far from overflow.
pub const MAX_WEIGHT: u64 = 1 << 40;

/// The rules for the batches of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskBatching {
    /// When a batch runs.
    pub policy: Policy,
    /// Maximum number of items in a batch.
    pub max_batch_size: NonZeroUsize,
    /// Maximum cost of a batch, by `weight_rule`. An item that is heavier on its own runs alone.
    pub max_batch_weight: Option<u64>,
    /// How weights add up.
    pub weight_rule: WeightRule,
    /// By how much background items may lengthen a batch that contains items of requests.
    pub background_slack: Slack,
}

/// A share of a time, in thousandths, so that rules can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slack(u32);

impl Slack {
    /// Nothing may take longer.
    pub const NONE: Self = Self(0);

    /// The nearest slack to a share; negative ones are zero.
    pub fn of_share(share: f64) -> Self {
        Self((share * 1e3).round() as u32)
    }

    /// The share, 1 for 100%.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e3
    }
}

/// What a plugin's manifest declares about the batches of one task. Precedence, highest first: the operator's
/// configuration, the manifest, built-in defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclaredLimits {
    /// Maximum number of items in a batch that the plugin supports.
    pub max_batch_size: Option<usize>,
    /// Maximum cost of a batch that the plugin supports.
    pub max_batch_weight: Option<u64>,
    /// How the weights of items add up.
    pub weight_rule: Option<WeightRule>,
}

/// Priority class of a request.
///
/// The oldest item of the highest class that waits leads the next batch. Remaining room is filled from the other
/// classes. While items of a lower class wait, at least every eighth batch is led by the one among them that has waited
/// longest. The class `Background` has no part in this: it only uses what the other classes leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Leads before the other classes.
    High,
    /// The default.
    #[default]
    Normal,
    /// Fills the room that the other classes leave, and leads every eighth batch at least.
    Low,
    /// The items of jobs. They fill the room that requests leave in their batches, within
    /// [`TaskBatching::background_slack`], and run alone while no request waits.
    Background,
}

impl Priority {
    /// Number of classes.
    pub const COUNT: usize = 4;
}

/// Why a batch runs now instead of waiting for more items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DispatchReason {
    /// The batch has `max_batch_size` items.
    Full,
    /// No further item fits into `max_batch_weight`.
    Weight,
    /// No further item fits into the memory budget.
    Memory,
    /// The batch has as many items as its policy wants in one batch.
    Enough,
    /// The first item has waited for `max_delay`, under the policy `fixed`.
    Delay,
    /// The wait for clients that were expected to return after their replies is over.
    Returns,
    /// The wait for the rest of a burst is over.
    Burst,
    /// Waiting longer would let the deadline of an item pass.
    Deadline,
    /// A worker is free and the policy does not wait.
    Idle,
    /// Batching is off.
    Off,
    /// No requests wait, or it is the turn of background items.
    Background,
}

impl DispatchReason {
    /// All reasons.
    pub const ALL: [DispatchReason; 11] = [
        DispatchReason::Full,
        DispatchReason::Weight,
        DispatchReason::Memory,
        DispatchReason::Enough,
        DispatchReason::Delay,
        DispatchReason::Returns,
        DispatchReason::Burst,
        DispatchReason::Deadline,
        DispatchReason::Idle,
        DispatchReason::Off,
        DispatchReason::Background,
    ];

    /// The name of the reason in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            DispatchReason::Full => "full",
            DispatchReason::Weight => "weight",
            DispatchReason::Memory => "memory",
            DispatchReason::Enough => "enough",
            DispatchReason::Delay => "delay",
            DispatchReason::Returns => "returns",
            DispatchReason::Burst => "burst",
            DispatchReason::Deadline => "deadline",
            DispatchReason::Idle => "idle",
            DispatchReason::Off => "off",
            DispatchReason::Background => "background",
        }
    }
}

impl From<&plugin_abi::manifest::Limits> for DeclaredLimits {
    fn from(limits: &plugin_abi::manifest::Limits) -> Self {
        use plugin_abi::manifest::WeightRule as Declared;
        Self {
            max_batch_size: limits.max_batch_size,
            max_batch_weight: limits.max_batch_weight,
            weight_rule: limits.weight_rule.map(|rule| match rule {
                Declared::Padded => WeightRule::Padded,
                Declared::Sum => WeightRule::Sum,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dispatch_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            DispatchReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), DispatchReason::ALL.len());
    }
}
