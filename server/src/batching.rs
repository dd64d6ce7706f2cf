//! How the items of a task may be put into batches: the values that `config` resolves and `batcher` obeys.

use std::num::NonZeroUsize;
use std::time::Duration;

/// When a free worker takes what is waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A batch stays open while the arrivals that are expected are worth the wait, by what has been learned of the
    /// task's callers and of the cost of its batches.
    Adaptive {
        /// Longest time that a batch stays open once a worker is free.
        max_delay: Duration,
    },
    /// The batch closes `max_delay` after its first item arrived, or as soon as it is full.
    Fixed {
        /// Longest time that the first item of a batch waits for company.
        max_delay: Duration,
    },
    /// Whatever is waiting goes at once.
    Greedy,
    /// One item at a time, at once.
    Off,
}

impl Policy {
    /// The name by which it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive { .. } => "adaptive",
            Self::Fixed { .. } => "fixed",
            Self::Greedy => "greedy",
            Self::Off => "off",
        }
    }
}

/// How the weights of a batch's items add up to the cost of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightRule {
    /// Every item is padded to the heaviest: `count × heaviest`. Where more wait than fit, the batch is as large as it
    /// can be around the oldest item, and among the batches of that size the one with the least padding.
    Padded,
    /// Items are laid end to end: the sum of the weights. The oldest that fit go first.
    Sum,
}

/// The rules for the batches of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskBatching {
    /// When a batch is closed.
    pub policy: Policy,
    /// Most items in a batch.
    pub max_batch_size: NonZeroUsize,
    /// Most weight in a batch, counted by `weight_rule`. An item that is heavier on its own still runs, alone.
    pub max_batch_weight: Option<u64>,
    /// How weights add up.
    pub weight_rule: WeightRule,
}

/// What a plugin's manifest declares about the batches of one task. The operator's configuration goes before it, and it
/// goes before what is built in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeclaredLimits {
    /// Most items in a batch that the plugin is made for.
    pub max_batch_size: Option<usize>,
    /// Most weight in a batch that the plugin is made for.
    pub max_batch_weight: Option<u64>,
    /// How the weights of the task's items add up.
    pub weight_rule: Option<WeightRule>,
}

/// Class of a request. A batch is led by the oldest item of the highest class that waits, and the room it leaves is
/// filled from the other classes. While a lower class waits, at least every eighth batch is led by the item that has
/// waited longest below the highest class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Overtakes the other classes.
    High,
    /// What a request is if it does not say.
    #[default]
    Normal,
    /// Fills room that the others leave, and has its turn like any lower class.
    Low,
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
